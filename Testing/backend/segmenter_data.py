"""Small volumes for the second-generation network: two boxes of tissue in a body, one on each side."""

from __future__ import annotations

import numpy as np
import torch
from DiffusionSegmentBackend.networks.bodypart import BodyPartRegressor
from DiffusionSegmentBackend.training.data import Case
from DiffusionSegmentBackend.training.volumes import TrainingVolume, training_volume
from DiffusionSegmentBackend.volume import Volume, model_grid

CLASSES = 3
RIGHT, LEFT = 1, 2
CHANNELS = (8, 8, 16)
STRIDE = (1, 2, 2)
SIDES = (24, 40, 48)
WINDOW = (-125.0, 275.0)
SPACING_XYZ = (1.5, 1.5, 3.0)


def two_organs(
    name: str = "case", *, seed: int = 0, drawn: frozenset[int] | None = None, sides: tuple[int, int, int] = SIDES
) -> Case:
    """A right organ that is bright and a left one that is dark, in a body in air; noise by seed."""
    random = np.random.default_rng(seed)
    z, y, x = sides
    image = np.full(sides, -1.0, np.float32)
    image[:, 4 : y - 4, 4 : x - 4] = 0.0
    labels = np.zeros(sides, np.uint8)
    labels[z // 4 : z // 2 + 2, y // 3 : 2 * y // 3, x // 8 : x // 2 - 4] = RIGHT
    labels[z // 4 : z // 2 + 2, y // 3 : 2 * y // 3, x // 2 + 6 : x - 8] = LEFT
    image[labels == RIGHT] = 0.6
    image[labels == LEFT] = -0.5
    image += 0.02 * random.standard_normal(sides).astype(np.float32)
    matrix = np.diag([*SPACING_XYZ, 1.0])
    grid = model_grid(Volume(labels, matrix), spacing=SPACING_XYZ)
    return Case(name, image.clip(-1, 1), labels, grid, drawn=drawn)


def small_volume(name: str = "case", **options: object) -> TrainingVolume:
    """The same as training keeps it, with an untrained body-part network of two levels."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        regressor = BodyPartRegressor((8, 8))
    case = two_organs(name, **options)  # type: ignore[arg-type]
    return training_volume(case, regressor, CLASSES, trunk_stride=STRIDE)
