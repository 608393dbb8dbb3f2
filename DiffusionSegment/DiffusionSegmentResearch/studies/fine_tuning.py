"""`study fine-tuning`: a probe fine-tuned to one organ on one scan, and a network trained on that scan alone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from DiffusionSegmentBackend.datasets.labelled_cases import Case, CaseFiles, find_cases, load_case
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.label_maps import read_label_map
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import read_volume
from DiffusionSegmentBackend.metrics.overlap import dice_by_label
from DiffusionSegmentBackend.models.manifest import ModelDescription
from DiffusionSegmentBackend.models.model import Model, load_model
from DiffusionSegmentBackend.models.tile_shape import TILE_SIDE, TileShape
from DiffusionSegmentBackend.networks.backbone import Backbone
from DiffusionSegmentBackend.networks.probe import Probe
from DiffusionSegmentBackend.schema.model_manifest import MAX_LABELS, ModelLabel
from DiffusionSegmentBackend.training.fine_tuned_model import fine_tuning_budget
from DiffusionSegmentBackend.training.fine_tuning import LabelledVolume, fine_tune_probe
from DiffusionSegmentBackend.training.loop import Budget
from DiffusionSegmentBackend.training.presegmentations import probe_map
from DiffusionSegmentBackend.training.probe import Task, train_probe
from DiffusionSegmentBackend.training.session import add_coordinates
from numpy.typing import NDArray
from tqdm import tqdm

from .result_file import StudyDescription, StudyResult, StudyRow
from .study import StudyRequest
from .study_data import validation_cases

FINE_TUNED = "fine-tuned on one scan"
FROM_SCRATCH = "trained from scratch on that scan"
ORGANS = ("left_kidney", "spleen")
MINUTES = 1.5
_HALVES = ("upper", "lower")


def study(request: StudyRequest) -> StudyResult:
    """Fine-tune the first model on the first training case; tested on the validation cases.

    With `targets` there is a row for each target, else two rows for the default organs.
    """
    description, options = request.description, request.options
    base = load_model(str(description.folder), "cpu", with_refiner=False)
    training = find_cases(request.data[0])[0]
    tests = validation_cases(every_value(description), request.data)
    targets = parse_targets(options.targets or ",".join(ORGANS), description)
    minutes = options.minutes or MINUTES
    texts = _description(description, training, tests, minutes)
    if options.targets is None:
        return StudyResult(fine_tuning_rows(base, training, tests, targets, minutes=minutes), texts)
    rows = target_rows(base, training, tests, targets, minutes=minutes)
    return StudyResult(rows, _target_description(texts, description, reference=rows[0].name))


def _description(
    base: ModelDescription, training: CaseFiles, tests: Sequence[Case], minutes: float
) -> StudyDescription:
    return StudyDescription(
        order=60,
        title="A user's own model",
        question="How good is fine-tuning to one organ on one scan?",
        protocol=f"{_protocol(base, training, tests)} Baseline: backbone and probe of the same architecture, both new, "
        f"trained on the same scan for the same time. The backbone of {base.name} was fine-tuned with labels of these "
        "organs: one that is new to it will fare worse.",
        budget=f"{minutes:g} minutes of the processor an organ, features included; base {base.name} {base.version}",
        reference=FROM_SCRATCH,
    )


def _protocol(base: ModelDescription, training: CaseFiles, tests: Sequence[Case]) -> str:
    return (
        f"Each alone from case {training.name}, tested on {len(tests)} validation cases on the model's grid. "
        f"Fine-tuned: a probe on the frozen features of {base.name}, initialised from its own probe."
    )


def _target_description(texts: StudyDescription, base: ModelDescription, *, reference: str) -> StudyDescription:
    return replace(
        texts,
        order=61,
        title="Fine-tuning to what the base does not know",
        question="How much worse is a target without labels in any training of the base?",
        protocol=f"{texts.protocol.partition(' Baseline:')[0]} Half an organ is cut at the middle of its volume: a "
        f"boundary without labels in any training of {base.name}.",
        reference=reference,
    )


@dataclass(frozen=True)
class Target:
    """A target of fine-tuning: the voxels of label `value`, or the upper or lower half of their volume."""

    name: str
    value: int
    half: str | None = None

    def mask(self, labels: NDArray[np.uint8], heights: NDArray[Any]) -> NDArray[np.uint8]:
        """The target as 1, from labels (k, j, i) and the height of each voxel in mm, broadcastable to (k, j, i)."""
        inside: NDArray[np.bool_] = labels == self.value
        if self.half is None or not inside.any():
            return inside.astype(np.uint8)
        heights = np.broadcast_to(heights, labels.shape)
        middle = np.median(heights[inside])
        half: NDArray[np.bool_] = inside & ((heights > middle) == (self.half == "upper"))
        return half.astype(np.uint8)


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
    """The description with a label for every possible value, to read label maps with other labels than the model's."""
    known = {label.value: label for label in description.labels}
    others = (ModelLabel(value=n, name=f"label_{n}", title=f"Label {n}") for n in range(1, MAX_LABELS + 1))
    labels = tuple(known.get(label.value, label) for label in others)
    return replace(description, labels=labels)


def fine_tuning_rows(
    base: Model, training: CaseFiles, tests: Sequence[Case], targets: Sequence[Target], *, minutes: float
) -> list[StudyRow]:
    """Dice of each target, fine-tuned and trained from scratch for `minutes` of processor time, in two rows.

    `tests` are cases with body coordinates.
    """
    case = load_case(training, every_value(base.description))
    add_coordinates([case], base.bodypart)
    rows = {name: _empty_row(name, tests) for name in (FINE_TUNED, FROM_SCRATCH)}
    budget = _budget(minutes)
    for target, probe in _fine_tuned(base, training, targets, budget):
        _record(rows[FINE_TUNED], tests, target, base.backbone, probe)
        _record(rows[FROM_SCRATCH], tests, target, *trained_from_scratch(base, case, target, budget))
    return list(rows.values())


def target_rows(
    base: Model, training: CaseFiles, tests: Sequence[Case], targets: Sequence[Target], *, minutes: float
) -> list[StudyRow]:
    """Dice of each target, fine-tuned as in `fine_tuning_rows`, in a row for each."""
    rows = {target: _empty_row(target.name, tests) for target in targets}
    for target, probe in _fine_tuned(base, training, targets, _budget(minutes)):
        _record(rows[target], tests, target, base.backbone, probe)
    return list(rows.values())


def _empty_row(name: str, tests: Sequence[Case]) -> StudyRow:
    return StudyRow(name, dice={test.name: {} for test in tests})


def _budget(minutes: float) -> Budget:
    return replace(fine_tuning_budget(minutes), processor_time=True, cores=torch.get_num_threads())


def _fine_tuned(
    base: Model, training: CaseFiles, targets: Sequence[Target], budget: Budget
) -> Iterator[tuple[Target, Probe]]:
    """A probe for each target alone, fine-tuned on one scan."""
    volume = read_volume(training.image)
    labels, heights = read_label_map(training.label, volume), scan_heights(volume)
    for target in tqdm(targets, desc="targets"):
        example = LabelledVolume(volume, target.mask(labels, heights))
        with tempfile.TemporaryDirectory() as folder:
            yield target, fine_tune_probe([example], {1: target.name}, base, budget=budget, folder=Path(folder))


def scan_heights(volume: Volume) -> NDArray[np.float64]:
    """Superior coordinate (k, j, i) of every voxel in mm."""
    k, j, i = np.ogrid[tuple(slice(n) for n in volume.array.shape)]
    along_i, along_j, along_k, origin = volume.index_to_lps[2]
    heights: NDArray[np.float64] = along_i * i + along_j * j + along_k * k + origin
    return heights


def trained_from_scratch(base: Model, case: Case, target: Target, budget: Budget) -> tuple[Backbone, Probe]:
    """Backbone and probe of the base's architecture, both new, trained on one target of one case alone."""
    target_case = replace(case, labels=_on_grid(target, case), drawn=None)
    torch.manual_seed(budget.seed)
    backbone = Backbone(base.backbone.channels)
    with tempfile.TemporaryDirectory() as folder:
        trained = train_probe(
            [Task("organ", [target_case], 2)], backbone=backbone, budget=budget, folder=Path(folder), finetune=True
        )
    return trained.backbone.eval(), trained.probes["organ"].eval()  # type: ignore[return-value]


def _on_grid(target: Target, case: Case) -> NDArray[np.uint8]:
    """The target in a case; on the model's grid the slice index increases towards the head."""
    return target.mask(case.labels, np.arange(case.labels.shape[0])[:, None, None])


def organ_on_grid(case: Case, backbone: Backbone, probe: Probe) -> NDArray[np.uint8]:
    """The organ (z, y, x) predicted by a probe of two classes in a case with body coordinates."""
    image, coordinates = case.padded(TileShape.cube(TILE_SIDE))
    predicted = probe_map(image, coordinates, backbone, probe, device="cpu", bf16=False).argmax(dim=0)
    z, y, x = case.image.shape
    return predicted[:z, :y, :x].byte().numpy()


def _record(row: StudyRow, tests: Sequence[Case], target: Target, backbone: Backbone, probe: Probe) -> None:
    assert row.dice is not None
    for test in tests:
        dice = float(dice_by_label(organ_on_grid(test, backbone, probe), _on_grid(target, test), 2)[0])
        row.dice[test.name][target.name] = None if np.isnan(dice) else round(dice, 4)
