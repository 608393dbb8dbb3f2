"""Cases and pre-segmentations of a fold of the bake-off for the training and the test of refiners."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.datasets.volumes import TrainingVolume
from DiffusionSegmentBackend.imaging.volume import coarser_grid
from DiffusionSegmentBackend.networks.segmenter import Segmenter
from DiffusionSegmentBackend.training.whole_model.out_of_fold import pooled_labels
from numpy.typing import NDArray
from tqdm import tqdm

from .bakeoff import CONTROL, SUB_VOXELS, TRUNK_RECIPE, TRUNK_STRIDE, Arm, train_arm, train_trunk
from .bakeoff_data import BakeoffSetup
from .out_of_fold_maps import stored_map


@dataclass(frozen=True)
class PresegmentedCase:
    """A case at the spacing of the trunk, and probabilities (classes, z, y, x) of its pre-segmentation."""

    case: Case
    presegmentation: NDArray[np.float16]


@dataclass(frozen=True)
class RefinerData:
    """Training cases with the pre-segmentations of the trunk, and held-out ones with those of the control arm.

    No network has seen the held-out cases. The training cases were seen by the trunk, which ends early: its errors on
    them are those of a network that has not yet learned them.
    """

    training: list[PresegmentedCase]
    held_out: list[PresegmentedCase]


def ensemble_maps(setup: BakeoffSetup) -> dict[str, list[NDArray[np.float16]]]:
    """Probabilities of the held-out cases by the networks of the bake-off: trunk, control and sub-voxel arm, at 3 mm.

    The sub-voxel arm is trained if it is not.
    """
    trunk = train_trunk(setup.data, setup.plan)
    members = [(trunk, TRUNK_RECIPE, setup.plan.trunk_name)]
    arms: tuple[Arm, ...] = (CONTROL, SUB_VOXELS)
    members += [(train_arm(arm, setup.data, trunk, setup.plan), arm.recipe, arm.name) for arm in arms]
    maps: dict[str, list[NDArray[np.float16]]] = {}
    for _, volume in tqdm(setup.data.held_out, desc="ensemble"):
        for network, recipe, name in members:
            path = setup.plan.folder / name / f"{volume.name}.npy"
            maps.setdefault(volume.name, []).append(stored_map(path, volume, network, recipe, setup.plan.device))
    return maps


def refiner_data(setup: BakeoffSetup) -> RefinerData:
    """Cases of the fold; predictions are kept beside the checkpoints of their networks."""
    trunk = train_trunk(setup.data, setup.plan)
    control = train_arm(CONTROL, setup.data, trunk, setup.plan)
    folder = setup.plan.folder
    training = [
        _presegmented(volume, trunk, folder / setup.plan.trunk_name, setup.plan.device)
        for volume in tqdm(setup.data.training, desc="training cases")
    ]
    held_out = [
        _presegmented(volume, control, folder / CONTROL.name, setup.plan.device)
        for _, volume in tqdm(setup.data.held_out, desc="held-out cases")
    ]
    return RefinerData(training, held_out)


def _presegmented(volume: TrainingVolume, network: Segmenter, folder: Path, device: str) -> PresegmentedCase:
    path = folder / f"{volume.name}.npy"
    return PresegmentedCase(coarse_case(volume), stored_map(path, volume, network, TRUNK_RECIPE, device))


def coarse_case(volume: TrainingVolume) -> Case:
    """The volume at the spacing of the trunk; a voxel has the label of most of its sub-voxels."""
    image = volume.pooled_image(TRUNK_STRIDE)
    coordinates = F.interpolate(
        volume.coordinates[None], size=list(image.shape), mode="trilinear", align_corners=False
    )[0]
    z, y, x = (o // step for o, step in zip(volume.offset, TRUNK_STRIDE, strict=True))
    return Case(
        name=volume.name,
        image=image.numpy(),
        labels=pooled_labels(volume.labels, TRUNK_STRIDE).numpy(),
        grid=coarser_grid(volume.grid, TRUNK_STRIDE),
        offset=(z, y, x),
        coordinates=coordinates.numpy().astype(np.float16),
        drawn=None,
    )
