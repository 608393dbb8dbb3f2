"""Learn from this case: a probe for a reader's own segments, fitted to frozen features of one labelled scan or a few.

The features of a scan are computed once and kept; the probe starts from that of the base model, where it has one, which
already knows how to combine them, so that two minutes on a CPU are enough. What the features come from stays as it is
and is shared with the base.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.volume import Volume
from ..models.model import Model
from ..models.pre_segmenter import PreSegmenter, ProbedFeatures
from ..networks.probe import Probe
from ..pipeline.dense_features import DenseFeatures, scan_features
from ..pipeline.progress import Progress, silent
from .loop import Budget, Training
from .losses import SegmentationLoss

# Small crops make many steps; what group norm sees of one is less than of a tile, which did not show in the Dice.
_CROP = 32
_VOXELS_PER_CLASS = 4000
_LEAST_SHARE_FOR_FITTING = 0.3
_JITTER = 0.15


@dataclass(frozen=True)
class TaughtCase:
    """A scan (k, j, i) and whole-numbered labels of the same shape; values that are not named are background.

    `modality` is that of the DICOM header, None where there is none.
    """

    volume: Volume
    labels: NDArray
    modality: str | None = None


@dataclass(frozen=True)
class Lesson:
    """Frozen features of a scan, and what they should be read as.

    `levels[l]` (channels[l], z / 2^l, ...) in half precision, `labels` (z, y, x) uint8, `drawn` (classes,) bool,
    `places` per drawn class some of its voxels (N, 3), `spreads[l]` (channels[l],) standard deviations.
    """

    levels: list[Tensor]
    labels: Tensor
    drawn: Tensor
    places: list[Tensor]
    spreads: list[Tensor]


def teach(
    cases: Sequence[TaughtCase],
    names: Mapping[int, str],
    base: Model,
    *,
    budget: Budget,
    folder: Path,
    resume: bool = False,
    progress: Progress = silent,
) -> Probe:
    """Fit a probe on the features of `base` to the segments `names` (label value -> name), which become 1, 2, 3, ...

    `budget.minutes` includes the features. A value that a case does not show counts there as not drawn, not as absent.
    `folder` receives checkpoints, from which a stopped run can be resumed.

    Raises:
        DiffusionSegmentError: GEOMETRY or TRAINING_DATA, naming what is wrong with the labels.
    """
    began = budget.clock()
    check_lesson(cases, names)
    lessons = [_lesson_of(case, list(names), base, progress) for case in cases]
    left = max(budget.minutes - (budget.clock() - began) / 60, _LEAST_SHARE_FOR_FITTING * budget.minutes)
    torch.manual_seed(budget.seed)
    probe = new_probe(base.pre_segmenter, len(names) + 1)
    return _fit(lessons, probe, replace(budget, minutes=left), folder, resume=resume, progress=progress)


def check_lesson(cases: Sequence[TaughtCase], names: Mapping[int, str]) -> None:
    """Refuse labels that nothing can be learnt from.

    Raises:
        DiffusionSegmentError: GEOMETRY for labels of another shape, TRAINING_DATA without segments or for an empty one.
    """
    if not cases or not names:
        raise DiffusionSegmentError(
            ErrorCode.TRAINING_DATA, "There is nothing to learn from.", hint="Give a labelled scan and name a segment."
        )
    if min(names) < 1:
        raise DiffusionSegmentError(
            ErrorCode.TRAINING_DATA, f"A segment has the value {min(names)}.", hint="Number segments from 1."
        )
    for case in cases:
        if case.labels.shape != case.volume.array.shape:
            raise DiffusionSegmentError(
                ErrorCode.GEOMETRY,
                f"The labels have the shape {case.labels.shape}, the scan {case.volume.array.shape}.",
                hint="Resample the labels to the scan.",
            )
    for value, name in names.items():
        if not any(np.any(case.labels == value) for case in cases):
            raise DiffusionSegmentError(
                ErrorCode.TRAINING_DATA,
                f"The segment '{name}' (value {value}) is empty.",
                hint="Draw it, or leave it out.",
            )


def _lesson_of(case: TaughtCase, values: Sequence[int], base: Model, progress: Progress) -> Lesson:
    found = scan_features(case.volume, base, progress=progress)
    named = np.zeros(case.labels.shape, np.uint8)
    for number, value in enumerate(values, start=1):
        named[case.labels == value] = number
    labels = _labels_of(found, named)
    drawn = torch.tensor([True, *(bool((labels == n).any()) for n in range(1, len(values) + 1))])
    if not drawn[1:].any():
        raise DiffusionSegmentError(
            ErrorCode.TRAINING_DATA,
            f"The segments are smaller than a voxel of {found.grid.spacing[0]:g} mm, or lie outside the body.",
            hint="Draw them larger.",
        )
    return lesson_from(found.levels, labels, drawn)


def _labels_of(found: DenseFeatures, labels: NDArray[np.uint8]) -> Tensor:
    """Labels (k, j, i) on the box of the features, padding included, as (z, y, x) uint8."""
    box = tuple(slice(o, o + n) for o, n in zip(found.offset, found.inside, strict=True))
    inside = torch.from_numpy(found.grid.labels_to_grid(labels)[box])
    whole = torch.zeros(found.image.shape, dtype=torch.uint8)
    whole[tuple(slice(0, n) for n in found.inside)] = inside
    return whole


def lesson_from(levels: list[Tensor], labels: Tensor, drawn: Tensor) -> Lesson:
    """A lesson of features and labels as `Lesson` has them."""
    places = []
    for value in drawn.nonzero().flatten().tolist():
        voxels = (labels == value).nonzero()
        if len(voxels):
            places.append(voxels[torch.linspace(0, len(voxels) - 1, min(len(voxels), _VOXELS_PER_CLASS)).long()])
    spreads = [level.float().std(dim=(1, 2, 3)) for level in levels]
    return Lesson(levels, labels, drawn, places, spreads)


def _fit(
    lessons: Sequence[Lesson],
    probe: Probe,
    budget: Budget,
    folder: Path,
    *,
    resume: bool,
    progress: Progress,
) -> Probe:
    probe.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    training = Training(probe, budget, folder, resume=resume)
    generator = torch.Generator().manual_seed(budget.seed + training.step)
    loss = SegmentationLoss()

    def losses(share: float) -> dict[str, Tensor]:
        progress("teach", round(100 * share), 100)
        pyramid, labels, drawn = draw_crop(lessons, generator)
        with budget.autocast():
            logits = probe([level.to(budget.device) for level in pyramid])
        return {"probe": loss(logits, labels.long().to(budget.device), drawn.to(budget.device))}

    taught = training.run(losses, title="teach", quiet=True)
    progress("teach", 100, 100)
    return taught  # type: ignore[return-value]


def new_probe(base: PreSegmenter, classes: int) -> Probe:
    """A trainable probe on the features of `base`, which begins as its probe where it has one."""
    if isinstance(base, ProbedFeatures):
        return probe_from(base.probe, classes)
    return Probe(base.channels, classes)


def probe_from(start: Probe, classes: int) -> Probe:
    """A trainable probe for `classes` classes with all but the last layer of `start`; that layer is new."""
    widths = [int(level.get_parameter("weight").shape[1]) for level in start.levels]
    probe = Probe(widths, classes, hidden=start.head.in_channels)
    known = {key: value for key, value in start.state_dict().items() if not key.startswith(("head", "temperature"))}
    probe.load_state_dict(known, strict=False)
    return probe


def jittered(features: Tensor, spread: Tensor, generator: torch.Generator) -> Tensor:
    """Features (1, channels, ...) with a random gain and offset of each channel, as another patient might have them.

    Of the ways to learn more from one scan this one helped, and it is free; features of turned, scaled, brightened and
    noisy copies of the scan did not.
    """
    gain, offset = torch.randn((2, features.shape[1]), generator=generator) * _JITTER
    shape = (1, -1, 1, 1, 1)
    return features * (1 + gain).reshape(shape) + (offset * spread).reshape(shape)


def draw_crop(lessons: Sequence[Lesson], generator: torch.Generator) -> tuple[list[Tensor], Tensor, Tensor]:
    """A jittered pyramid (1, channels, ...), its labels (1, 1, z, y, x), what was drawn (1, classes): around a voxel.

    Every lesson is as likely as every other, and within it every drawn class. Crops begin at whole coarsest cells.
    """
    lesson = lessons[int(torch.randint(len(lessons), (), generator=generator))]
    voxels = lesson.places[int(torch.randint(len(lesson.places), (), generator=generator))]
    centre = voxels[int(torch.randint(len(voxels), (), generator=generator))]
    cell = 2 ** (len(lesson.levels) - 1)
    place = []
    for middle, size in zip(centre.tolist(), lesson.labels.shape, strict=True):
        jitter = int(torch.randint(_CROP // 2, (), generator=generator)) - _CROP // 4
        low = round((middle + jitter - _CROP / 2) / cell) * cell
        low = max(0, min(low, size - _CROP))
        place.append(slice(low, low + _CROP))
    pyramid = []
    for n, level in enumerate(lesson.levels):
        cells = tuple(slice(s.start // 2**n, s.stop // 2**n) for s in place)
        pyramid.append(level[(slice(None), *cells)][None].float())
    return (
        [jittered(*pair, generator) for pair in zip(pyramid, lesson.spreads, strict=True)],
        lesson.labels[tuple(place)][None, None],
        lesson.drawn[None],
    )
