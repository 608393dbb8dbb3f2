"""Fine-tuning: fit a probe for the user's own segments to frozen features of one or a few labelled scans.

The features of a scan are computed once and kept in memory. The probe starts from the weights of the base model's
probe, where there is one, so that two minutes on a CPU are enough. The networks that compute the features stay
unchanged and are shared with the base model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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

# Small crops allow many steps. Group norm then sees less context than in a full tile, without a measured loss of Dice.
_CROP = 32
_VOXELS_PER_CLASS = 4000
_MIN_FITTING_SHARE = 0.3
_JITTER = 0.15
_STAGE = "fine_tune"


@dataclass(frozen=True)
class LabelledVolume:
    """A scan (k, j, i) and its label map of integers, of the same shape; label values without a name are background.

    `modality` is that of the DICOM header, None without one.
    """

    volume: Volume
    labels: NDArray[Any]
    modality: str | None = None


@dataclass(frozen=True)
class LabelledFeatures:
    """Frozen features of a scan and their training target.

    Attributes:
        levels: Of each level l, (channels[l], z / 2^l, y / 2^l, x / 2^l) in half precision.
        labels: (z, y, x) uint8.
        drawn: (classes,) bool, whether a class is annotated in this scan.
        class_voxels: For each annotated class that is present, some of its voxels (N, 3).
        spreads: Of each level, the standard deviation of every channel (channels[l],).
    """

    levels: list[Tensor]
    labels: Tensor
    drawn: Tensor
    class_voxels: list[Tensor]
    spreads: list[Tensor]


def fine_tune_probe(
    cases: Sequence[LabelledVolume],
    names: Mapping[int, str],
    base: Model,
    *,
    budget: Budget,
    folder: Path,
    resume: bool = False,
    progress: Progress = silent,
) -> Probe:
    """Fit a probe on the features of `base` to the segments `names` (label value -> name), which become 1, 2, 3, ...

    A label value that is missing from a scan counts as not annotated there, not as absent.

    Args:
        cases: Labelled scans.
        names: Names of the segments by label value.
        base: The model whose features are used.
        budget: Its `minutes` include the computation of features.
        folder: Receives the checkpoints.
        resume: Continue from the checkpoint in `folder`.
        progress: Called with the stages of the features and of the training.

    Raises:
        DiffusionSegmentError: GEOMETRY or TRAINING_DATA, with the reason why the labels cannot be used.
    """
    began = budget.clock()
    check_labels(cases, names)
    examples = [_features_of(case, list(names), base, progress) for case in cases]
    left = max(budget.minutes - (budget.clock() - began) / 60, _MIN_FITTING_SHARE * budget.minutes)
    torch.manual_seed(budget.seed)
    probe = new_probe(base.pre_segmenter, len(names) + 1)
    return _fit(examples, probe, replace(budget, minutes=left), folder, resume=resume, progress=progress)


def check_labels(cases: Sequence[LabelledVolume], names: Mapping[int, str]) -> None:
    """Check that every named segment is drawn in one of the scans.

    Raises:
        DiffusionSegmentError: GEOMETRY for labels of another shape than the scan, TRAINING_DATA without scans or
            segments, or for an empty segment.
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


def _features_of(case: LabelledVolume, values: Sequence[int], base: Model, progress: Progress) -> LabelledFeatures:
    features = scan_features(case.volume, base, progress=progress)
    renumbered = np.zeros(case.labels.shape, np.uint8)
    for number, value in enumerate(values, start=1):
        renumbered[case.labels == value] = number
    labels = _labels_on_features(features, renumbered)
    drawn = torch.tensor([True, *(bool((labels == n).any()) for n in range(1, len(values) + 1))])
    if not drawn[1:].any():
        raise DiffusionSegmentError(
            ErrorCode.TRAINING_DATA,
            f"The segments are smaller than a voxel of {features.grid.spacing[0]:g} mm, or lie outside the body.",
            hint="Draw them larger.",
        )
    return labelled_features(features.levels, labels, drawn)


def _labels_on_features(features: DenseFeatures, labels: NDArray[np.uint8]) -> Tensor:
    """Labels (k, j, i) resampled to the grid of the features, padding included, as (z, y, x) uint8."""
    box = tuple(slice(o, o + n) for o, n in zip(features.offset, features.inside, strict=True))
    inside = torch.from_numpy(features.grid.labels_to_grid(labels)[box])
    padded = torch.zeros(features.image.shape, dtype=torch.uint8)
    padded[tuple(slice(0, n) for n in features.inside)] = inside
    return padded


def labelled_features(levels: list[Tensor], labels: Tensor, drawn: Tensor) -> LabelledFeatures:
    """Complete `LabelledFeatures` with a sample of the voxels of each class and the spread of each channel."""
    class_voxels = []
    for value in drawn.nonzero().flatten().tolist():
        voxels = (labels == value).nonzero()
        if len(voxels):
            class_voxels.append(voxels[torch.linspace(0, len(voxels) - 1, min(len(voxels), _VOXELS_PER_CLASS)).long()])
    spreads = [level.float().std(dim=(1, 2, 3)) for level in levels]
    return LabelledFeatures(levels, labels, drawn, class_voxels, spreads)


def _fit(
    examples: Sequence[LabelledFeatures],
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
        progress(_STAGE, round(100 * share), 100)
        pyramid, labels, drawn = draw_crop(examples, generator)
        with budget.autocast():
            logits = probe([level.to(budget.device) for level in pyramid])
        return {"probe": loss(logits, labels.long().to(budget.device), drawn.to(budget.device))}

    fitted = training.run(losses, title="fine-tuning", quiet=True)
    progress(_STAGE, 100, 100)
    return fitted


def new_probe(base: PreSegmenter, classes: int) -> Probe:
    """A trainable probe on the features of `base`, initialised from its own probe where it has one."""
    if isinstance(base, ProbedFeatures):
        return probe_from(base.probe, classes)
    return Probe(base.channels, classes)


def probe_from(start: Probe, classes: int) -> Probe:
    """A trainable probe for `classes` classes with the weights of `start`, except for a new last layer."""
    widths = [int(level.get_parameter("weight").shape[1]) for level in start.levels]
    probe = Probe(widths, classes, hidden=start.head.in_channels)
    kept = {key: value for key, value in start.state_dict().items() if not key.startswith(("head", "temperature"))}
    probe.load_state_dict(kept, strict=False)
    return probe


def jittered(features: Tensor, spread: Tensor, generator: torch.Generator) -> Tensor:
    """Features (1, channels, ...) with a random gain and offset per channel, to simulate variation between patients.

    The only feature-space augmentation that improved results from one scan; features of rotated, scaled, brightened or
    noisy copies of the scan did not.
    """
    gain, offset = torch.randn((2, features.shape[1]), generator=generator) * _JITTER
    shape = (1, -1, 1, 1, 1)
    jitter: Tensor = features * (1 + gain).reshape(shape) + (offset * spread).reshape(shape)
    return jitter


def draw_crop(examples: Sequence[LabelledFeatures], generator: torch.Generator) -> tuple[list[Tensor], Tensor, Tensor]:
    """Draw a crop around a random voxel; scans, and the annotated classes of a scan, are equally likely.

    Crops are aligned to the voxels of the coarsest level.

    Returns:
        The jittered pyramid, (1, channels[l], ...) per level; labels (1, 1, z, y, x); annotated classes (1, classes).
    """
    example = examples[int(torch.randint(len(examples), (), generator=generator))]
    voxels = example.class_voxels[int(torch.randint(len(example.class_voxels), (), generator=generator))]
    centre = voxels[int(torch.randint(len(voxels), (), generator=generator))]
    stride = 2 ** (len(example.levels) - 1)
    box = []
    for middle, size in zip(centre.tolist(), example.labels.shape, strict=True):
        shift = int(torch.randint(_CROP // 2, (), generator=generator)) - _CROP // 4
        low = round((middle + shift - _CROP / 2) / stride) * stride
        low = max(0, min(low, size - _CROP))
        box.append(slice(low, low + _CROP))
    pyramid = []
    for n, level in enumerate(example.levels):
        level_box = tuple(slice(s.start // 2**n, s.stop // 2**n) for s in box)
        pyramid.append(level[(slice(None), *level_box)][None].float())
    return (
        [jittered(*pair, generator) for pair in zip(pyramid, example.spreads, strict=True)],
        example.labels[tuple(box)][None, None],
        example.drawn[None],
    )
