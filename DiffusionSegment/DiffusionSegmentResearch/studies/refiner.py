"""`study refiner`: refiners whose samples may differ, against a deterministic one and an ensemble of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.imaging.balls import Spacing, largest_balls
from DiffusionSegmentBackend.metrics.looks import LOOK_RADIUS_MM, gross_errors, look
from DiffusionSegmentBackend.metrics.overlap import dice_by_label
from DiffusionSegmentBackend.models.model import load_model
from DiffusionSegmentBackend.training.loop import Budget, RunOptions
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ..label_diffusion.inference import Scan, drawn_samples, sampled
from ..label_diffusion.network import LabelDenoiser
from ..label_diffusion.process import Process
from ..label_diffusion.training import Recipe, train_denoiser
from .case_selection import cropped
from .degraded_predictions import PREDICTIONS_A_CASE
from .diversity import diversity_rows, sample_measures
from .measures_by_case import Measures, MeasuresByCase
from .presegmentation_paths import without_organ
from .refiner_data import PresegmentedCase, ensemble_maps, training_cases, validation_cases
from .result_file import StudyDescription, StudyResult, StudyRow
from .study import StudyRequest
from .study_data import organ_names

SAMPLES = 4
STEPS = 2
_MINUTES = 30.0
_RANK = 8
_DELETED = ("spleen", "right_kidney")
# Slices left out beside an organ, and the fewest that are judged, where it is absent.
_MARGIN, _MIN_SLICES = 4, 24
_FALSE_ML = 1.0
_LOOKS = 5


@dataclass(frozen=True)
class Variant:
    """A refiner: its process (None: deterministic), the rank of its logits, which samples see the pre-segmentation."""

    name: str
    title: str
    process: Process | None
    rank: int = 0
    shown: tuple[bool, ...] = (True,) * SAMPLES


NEW = Variant("scaled", "scale 0.1, broad-band noise, from abar 0.01", Process())
VARIANTS = (
    NEW,
    Variant("white", "scale 1, white noise, from abar 0.2", Process(scale=1.0, broad_band=False, abar_start=0.2)),
    Variant("deterministic", "no state, draws of rank 8", None, rank=_RANK),
)
HALF_SHOWN = (True, False, True, False)


def study(request: StudyRequest) -> StudyResult:
    """Train every variant on the training cases, resuming, and test it on the validation cases.

    The first model pre-segments; all models together are the ensemble.
    """
    model, *others = (load_model(str(description.folder), "cpu") for description in request.descriptions)
    minutes = request.options.minutes or _MINUTES
    organs = organ_names(model.description)
    training = training_cases(request, model)
    networks = [trained(variant, training, request, minutes=minutes) for variant in VARIANTS]
    tested = validation_cases(request, model)
    rows: list[StudyRow] = []
    for variant, network in zip(VARIANTS, networks, strict=True):
        for shown in (variant.shown, HALF_SHOWN):
            title = variant.title + ("" if all(shown) else ", two of four samples without the pre-segmentation")
            key = f"refiner {variant.name} {minutes} {shown} {STEPS} {request.seed}"
            store = MeasuresByCase(request.options.measures, key)
            bench = RefinerBench(network, variant, shown, organs, seed=request.seed)
            measured = {
                item.case.name: store.get(
                    f"{item.case.name} {variant.name} {sum(shown)}", partial(bench.measures, item)
                )
                for item in tqdm(tested, desc=title)
            }
            rows.append(_row(title, measured, organs))
    if others:
        rows.append(_ensemble_row(tested, ensemble_maps(tested, others), organs, seed=request.seed))
    description = StudyDescription(
        order=57,
        title="Refiners whose samples may differ",
        question="Do samples differ where the segmentation is wrong, and do they restore what it misses?",
        protocol=f"Pre-segmentations by {model.description.name}. Training: what it finds in degraded images of its "
        f"{len(training) // PREDICTIONS_A_CASE} training cases, {PREDICTIONS_A_CASE} of each; test: what it finds in "
        f"{len(tested)} validation cases. K = {SAMPLES}, S = {STEPS}; diffusion at 6 mm, decoded to 3 mm. Measures as "
        f"in 'Spread and skill of the samples'. Deleted: "
        f"{' and '.join(organ.replace('_', ' ') for organ in _DELETED)}, one at a time; 'of "
        "undropped': Dice of the best sample over that without the deletion; invented: samples with more than "
        f"{_FALSE_ML:g} mL of the organ in slices beyond it. Recall at {_LOOKS} as in 'Where to look', for the "
        "disagreement of the samples with their mean and for its expected error.",
        budget=f"{minutes:g} minutes of one core for each",
    )
    return StudyResult(rows, description)


def trained(
    variant: Variant, training: Sequence[PresegmentedCase], request: StudyRequest, *, minutes: float
) -> LabelDenoiser:
    """The network of a variant in evaluation mode; resumes from its checkpoint."""
    torch.manual_seed(request.seed)
    torch.set_num_threads(1)
    network = LabelDenoiser(request.description.classes, rank=variant.rank)
    budget = Budget(
        steps=10**9, minutes=minutes, learning_rate=2e-3, ema_decay=0.995, processor_time=True, seed=request.seed
    )
    run = RunOptions(
        budget=budget, folder=request.trainings / f"refiner-{variant.name}", resume=True, title=variant.name
    )
    cases = [item.case for item in training]
    maps = [item.presegmentation for item in training]
    return train_denoiser(network, cases, maps, recipe=Recipe(process=variant.process), run=run)


@dataclass(frozen=True)
class RefinerBench:
    """Measures one refiner on cases that it has not seen."""

    network: LabelDenoiser
    variant: Variant
    shown: tuple[bool, ...]
    organs: Sequence[str]
    seed: int = 0

    def measures(self, item: PresegmentedCase) -> Measures:
        """All measures of a case."""
        case, spacing = item.case, _spacing(item.case)
        pre = _probabilities(item)
        mean, samples = self._results(case, pre)
        measures = sample_measures(
            samples, mean.argmax(axis=0).astype(np.uint8), case.labels, spacing, self.network.classes, seed=self.seed
        )
        before = dice_by_label(pre.argmax(dim=0).numpy().astype(np.uint8), case.labels, self.network.classes)
        measures["start_dice"] = float(np.nanmean(before))
        measures["looks"] = disagreement_looks(mean, samples, case.labels, spacing)
        measures["deleted"] = [
            entry for organ in _DELETED if (entry := self._deleted(item, organ, samples)) is not None
        ]
        return measures

    def _results(self, case: Case, pre: Tensor) -> tuple[NDArray[np.float32], list[NDArray[np.uint8]]]:
        """Mean probabilities and the label maps of the samples, of the shape of the case."""
        scan, process = Scan.of(case), self.variant.process
        if process is not None:
            samples = [
                sampled(self.network, scan, pre, process, steps=STEPS, shown=shown, seed=self.seed + number)
                for number, shown in enumerate(self.shown)
            ]
            mean = torch.stack(samples).mean(dim=0)
        else:
            drawn = {
                shown: drawn_samples(
                    self.network, scan, pre, count=self.shown.count(shown), shown=shown, seed=self.seed
                )
                for shown in sorted(set(self.shown))
            }
            mean = drawn[True][0]
            samples = [sample for results in drawn.values() for sample in results[1:]]
        return mean.numpy(), [sample.argmax(dim=0).numpy().astype(np.uint8) for sample in samples]

    def _deleted(self, item: PresegmentedCase, organ: str, undropped: Sequence[NDArray[np.uint8]]) -> Measures | None:
        """What the samples show of an organ that the pre-segmentation lacks, and where it is absent."""
        value = list(self.organs).index(organ) + 1
        slices = np.flatnonzero((item.case.labels == value).any(axis=(1, 2)))
        if not len(slices):
            return None
        _, samples = self._results(item.case, without_organ(_probabilities(item), value))

        def best(maps: Sequence[NDArray[np.uint8]]) -> float:
            return max(float(dice_by_label(m, item.case.labels, value + 1)[value - 1]) for m in maps)

        return {
            "organ": organ,
            "dice": best(samples),
            "undropped": best(undropped),
            "invented": self._invented(item, value),
        }

    def _invented(self, item: PresegmentedCase, value: int) -> list[float]:
        """mL of an absent organ in each sample of the slices beyond it, as many as there are on the larger side."""
        case = item.case
        slices = np.flatnonzero((case.labels == value).any(axis=(1, 2)))
        depth, height, width = case.labels.shape
        sides = (slice(0, max(0, slices[0] - _MARGIN)), slice(min(depth, slices[-1] + 1 + _MARGIN), depth))
        side = max(sides, key=lambda part: part.stop - part.start)
        if side.stop - side.start < _MIN_SLICES:
            return []
        part = cropped(case, (side, slice(0, height), slice(0, width)))
        pre = without_organ(_probabilities(item)[:, side], value)
        _, samples = self._results(part, pre)
        return [float(np.count_nonzero(s == value) * np.prod(_spacing(case)) / 1000) for s in samples]


def _ensemble_row(
    tested: Sequence[PresegmentedCase],
    maps: Mapping[str, Sequence[NDArray[np.float16]]],
    organs: Sequence[str],
    *,
    seed: int,
) -> StudyRow:
    """The pre-segmentations of several models as the samples."""
    measured = {}
    for item in tested:
        case, spacing = item.case, _spacing(item.case)
        members = [member.astype(np.float32) for member in maps[case.name]]
        mean: NDArray[np.float32] = np.mean(members, axis=0, dtype=np.float32)
        samples = [member.argmax(axis=0).astype(np.uint8) for member in members]
        labels = mean.argmax(axis=0).astype(np.uint8)
        measures = sample_measures(samples, labels, case.labels, spacing, len(mean), seed=seed)
        before = item.presegmentation.argmax(axis=0).astype(np.uint8)
        measures["start_dice"] = float(np.nanmean(dice_by_label(before, case.labels, len(mean))))
        measures["looks"] = disagreement_looks(mean, samples, case.labels, spacing)
        measured[case.name] = {**measures, "deleted": []}
    return _row(f"ensemble of {len(next(iter(maps.values())))} models", measured, organs)


def disagreement_looks(
    mean: NDArray[np.float32], samples: Sequence[NDArray[np.uint8]], truth: NDArray[np.uint8], spacing: Spacing
) -> dict[str, float | None]:
    """Recall of gross errors of the mean at five looks, by disagreement of the samples and by expected error."""
    labels = mean.argmax(axis=0).astype(np.uint8)
    errors = gross_errors(labels, truth, spacing=spacing)
    maps = {
        "disagreement": np.mean([sample != labels for sample in samples], axis=0),
        "expected error": 1 - mean.max(axis=0),
    }
    result: dict[str, float | None] = {}
    for name, values in maps.items():
        scores = np.where(values > 0.2, values, 0).astype(np.float32)
        balls = largest_balls(scores, count=_LOOKS, min_sum=1e-3, radius_mm=LOOK_RADIUS_MM, spacing=spacing)
        recall = look(errors, [ball.centre for ball in balls], spacing=spacing).recall(_LOOKS)
        result[name] = None if np.isnan(recall) else recall
    return result


def _probabilities(item: PresegmentedCase) -> Tensor:
    return torch.from_numpy(item.presegmentation.astype(np.float32))


def _spacing(case: Case) -> Spacing:
    x, y, z = case.grid.spacing
    return z, y, x


def _row(title: str, measured: Mapping[str, Measures], organs: Sequence[str]) -> StudyRow:
    (row,) = diversity_rows({title: measured}, organs)
    deleted = [entry for measures in measured.values() for entry in measures["deleted"]]
    invented = [volume for entry in deleted for volume in entry["invented"]]
    numbers = {
        "Dice of the pre-segmentation": np.mean([m["start_dice"] for m in measured.values()]),
        "Dice": np.mean([np.nanmean([np.nan if v is None else v for v in m["dice"]]) for m in measured.values()]),
        **dict(row.numbers or {}),
    }
    if deleted:
        numbers["of undropped"] = np.mean([e["dice"] for e in deleted]) / np.mean([e["undropped"] for e in deleted])
    if invented:
        numbers["invented"] = np.mean([volume > _FALSE_ML for volume in invented])
    for name in ("disagreement", "expected error"):
        values = [m["looks"][name] for m in measured.values() if m["looks"][name] is not None]
        if values:
            numbers[f"recall at {_LOOKS}, {name}"] = np.mean(values)
    return StudyRow(title, dice=row.dice, numbers={name: round(float(value), 4) for name, value in numbers.items()})
