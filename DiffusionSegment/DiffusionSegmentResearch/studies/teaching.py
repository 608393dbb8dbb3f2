"""What a reader's own model is worth: an organ taught from one scan, beside a network trained on that scan alone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from DiffusionSegmentBackend.datasets.labelled_cases import Case, CaseFiles, load_case
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.label_maps import read_label_map
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import read_volume
from DiffusionSegmentBackend.metrics.metrics import dice_by_label
from DiffusionSegmentBackend.models.manifest import MAX_LABELS, Label, ModelDescription
from DiffusionSegmentBackend.models.model import Model
from DiffusionSegmentBackend.models.tile_shape import TILE_SIDE, TileShape
from DiffusionSegmentBackend.networks.backbone import Backbone
from DiffusionSegmentBackend.networks.probe import Probe
from DiffusionSegmentBackend.training.fine_tuned_model import fine_tuning_budget
from DiffusionSegmentBackend.training.fine_tuning import LabelledVolume, fine_tune_probe
from DiffusionSegmentBackend.training.loop import Budget
from DiffusionSegmentBackend.training.presegmentations import probe_map
from DiffusionSegmentBackend.training.probe import Task, train_probe
from DiffusionSegmentBackend.training.session import add_coordinates
from numpy.typing import NDArray
from tqdm import tqdm

from .result_file import StudyRow

TAUGHT = "taught from one scan"
FROM_SCRATCH = "network of its own from that scan"
ORGANS = ("left_kidney", "spleen")
_HALVES = ("upper", "lower")


@dataclass(frozen=True)
class Target:
    """What is taught: the voxels of label `value`, or that half of them, by volume, which lies above or below."""

    name: str
    value: int
    half: str | None = None

    def mask(self, labels: NDArray, heights: NDArray) -> NDArray[np.uint8]:
        """1 where the target is, of labels (k, j, i) whose voxels lie at `heights` (k, j, i) or broadcastable, mm."""
        inside = labels == self.value
        if self.half is None or not inside.any():
            return inside.astype(np.uint8)
        heights = np.broadcast_to(heights, labels.shape)
        middle = np.median(heights[inside])
        return (inside & ((heights > middle) == (self.half == "upper"))).astype(np.uint8)


def parse_targets(text: str, description: ModelDescription) -> tuple[Target, ...]:
    """ "spleen,left_kidney:upper,1=my organ" -> targets; a name alone is an organ of the model.

    Raises:
        DiffusionSegmentError: OPTION.
    """
    targets = []
    for part in text.split(","):
        whole, colon, half = part.strip().partition(":")
        value, equals, name = whole.partition("=")
        if (colon and half not in _HALVES) or (equals and not value.isdecimal()):
            raise DiffusionSegmentError(
                ErrorCode.OPTION,
                f"'{part}' is not NAME, VALUE=NAME or NAME:HALF.",
                hint="Write --targets spleen,left_kidney:upper or --targets 1=liver.",
            )
        number = int(value) if equals else description.label_named(whole).value
        targets.append(Target(f"{name or whole}{f', {half} half' if half else ''}", number, half or None))
    return tuple(targets)


def every_value(description: ModelDescription) -> ModelDescription:
    """A description for reading label maps with values that the model does not know."""
    known = {label.value: label for label in description.labels}
    labels = tuple(known.get(n, Label(n, f"label_{n}", f"Label {n}")) for n in range(1, MAX_LABELS + 1))
    return replace(description, labels=labels)


def teaching_rows(
    base: Model, lesson: CaseFiles, tests: Sequence[Case], targets: Sequence[Target], *, minutes: float
) -> list[StudyRow]:
    """Two rows, Dice of each target, which is taught alone in so many minutes, on the cases `tests` with coordinates.

    Minutes are those in which the processor computes, so that other work on the machine does not shorten them.
    """
    case = load_case(lesson, every_value(base.description))
    add_coordinates([case], base.bodypart)
    rows = {name: _empty_row(name, tests) for name in (TAUGHT, FROM_SCRATCH)}
    budget = _budget(minutes)
    for target, probe in _taught(base, lesson, targets, budget):
        _record(rows[TAUGHT], tests, target, base.backbone, probe)
        _record(rows[FROM_SCRATCH], tests, target, *network_of_its_own(base, case, target, budget))
    return list(rows.values())


def target_rows(
    base: Model, lesson: CaseFiles, tests: Sequence[Case], targets: Sequence[Target], *, minutes: float
) -> list[StudyRow]:
    """As the first of `teaching_rows`, a row for each target."""
    rows = {target: _empty_row(target.name, tests) for target in targets}
    for target, probe in _taught(base, lesson, targets, _budget(minutes)):
        _record(rows[target], tests, target, base.backbone, probe)
    return list(rows.values())


def _empty_row(name: str, tests: Sequence[Case]) -> StudyRow:
    return StudyRow(name, dice={test.name: {} for test in tests})


def _budget(minutes: float) -> Budget:
    return replace(fine_tuning_budget(minutes), processor_time=True, cores=torch.get_num_threads())


def _taught(
    base: Model, lesson: CaseFiles, targets: Sequence[Target], budget: Budget
) -> Iterator[tuple[Target, Probe]]:
    """A probe for each target alone, taught on one scan."""
    volume = read_volume(lesson.image)
    labels, heights = read_label_map(lesson.label, volume), scan_heights(volume)
    for target in tqdm(targets, desc="targets"):
        taught = LabelledVolume(volume, target.mask(labels, heights))
        with tempfile.TemporaryDirectory() as folder:
            yield target, fine_tune_probe([taught], {1: target.name}, base, budget=budget, folder=Path(folder))


def scan_heights(volume: Volume) -> NDArray[np.float64]:
    """Superior coordinate in mm of every voxel (k, j, i)."""
    k, j, i = np.ogrid[tuple(slice(n) for n in volume.array.shape)]
    along_i, along_j, along_k, origin = volume.index_to_lps[2]
    return along_i * i + along_j * j + along_k * k + origin


def network_of_its_own(base: Model, case: Case, target: Target, budget: Budget) -> tuple[Backbone, Probe]:
    """Backbone and probe of the base's architecture, both new, trained on one target of one case alone."""
    own = replace(case, labels=_on_grid(target, case), drawn=None)
    torch.manual_seed(budget.seed)
    backbone = Backbone(base.backbone.channels)
    with tempfile.TemporaryDirectory() as folder:
        trained = train_probe(
            [Task("organ", [own], 2)], backbone=backbone, budget=budget, folder=Path(folder), finetune=True
        )
    return trained.backbone.eval(), trained.probes["organ"].eval()  # type: ignore[return-value]


def _on_grid(target: Target, case: Case) -> NDArray[np.uint8]:
    """The target in a case; slices of the model's grid lie the higher, the greater their number."""
    return target.mask(case.labels, np.arange(case.labels.shape[0])[:, None, None])


def organ_on_grid(case: Case, backbone: Backbone, probe: Probe) -> NDArray[np.uint8]:
    """Where a probe of two classes finds its organ (z, y, x) in a case that has its coordinates."""
    image, coordinates = case.padded(TileShape.cube(TILE_SIDE))
    found = probe_map(image, coordinates, backbone, probe, device="cpu", bf16=False).argmax(dim=0)
    z, y, x = case.image.shape
    return found[:z, :y, :x].byte().numpy()


def _record(row: StudyRow, tests: Sequence[Case], target: Target, backbone: Backbone, probe: Probe) -> None:
    assert row.dice is not None
    for test in tests:
        dice = float(dice_by_label(organ_on_grid(test, backbone, probe), _on_grid(target, test), 2)[0])
        row.dice[test.name][target.name] = None if np.isnan(dice) else round(dice, 4)
