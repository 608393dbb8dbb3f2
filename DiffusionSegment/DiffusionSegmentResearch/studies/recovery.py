"""`study recovery`: simulated errors of the start that the samples of a refiner repair, and organs that they invent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from DiffusionSegmentBackend.datasets import label_errors
from DiffusionSegmentBackend.datasets.label_errors import Labels, Spacing
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.metrics.overlap import dice_by_label
from DiffusionSegmentBackend.models.model import Model, load_model, weights_sha256
from DiffusionSegmentBackend.pipeline.features import Stage1
from DiffusionSegmentBackend.pipeline.options import SegmentOptions, run_plan_of
from DiffusionSegmentBackend.pipeline.sampling import SamplingPlan
from DiffusionSegmentBackend.training.cross_fitting import stage_of
from numpy.typing import NDArray
from tqdm import tqdm

from .case_selection import cases_text, crop_of, outside_organ, selected_cases
from .measures_by_case import Measures, MeasuresByCase
from .presegmentation_paths import PathChains, PathInputs, fitted
from .result_file import StudyDescription, StudyResult, StudyRow
from .study import StudyRequest
from .study_data import organ_names, training_budget

SOURCES = ("expert, hard", "expert, soft", "pre-segmentation, hard", "pre-segmentation, soft")
SAMPLES = 2
_DELETED = ("spleen", "right_kidney", "pancreas", "gallbladder")
_TO_HEART = (1.0, -1.0, 1.0)
_RECOVERED = 0.5
_FALSE_ML = 1.0
_ABSENT = "organ truly absent"


@dataclass(frozen=True)
class SimulatedError:
    """An error of a label map: its kind, the label values whose Dice it lowers, and the function that makes it."""

    kind: str
    values: tuple[int, ...]
    apply: Callable[[Labels, Spacing, np.random.Generator], Labels]


def study(request: StudyRequest) -> StudyResult:
    """The refiner of the first model, with its default options."""
    model = load_model(str(request.description.folder), "cpu")
    key = f"recovery {weights_sha256(model.description)} {request.options.crop} {SAMPLES} {request.seed}"
    store = MeasuresByCase(request.options.measures, key)
    measured: dict[str, Measures] = {}
    for case in tqdm(selected_cases(request, model), desc="cases"):
        bench = RecoveryBench(model, crop_of(case, request), seed=request.seed)
        measured[case.name] = {
            source: store.get(f"{case.name} {source}", partial(bench.measures, source)) for source in SOURCES
        }
        absent = partial(absent_measures, model, case, request)
        measured[case.name][_ABSENT] = store.get(f"{case.name} absent", absent)
    rows = recovery_rows(measured, organ_names(model.description))
    return StudyResult(rows, _description(request, model, len(measured)))


def _description(request: StudyRequest, model: Model, count: int) -> StudyDescription:
    plan = SamplingPlan.of(run_plan_of(SegmentOptions(), model))
    organs = ", ".join(organ.replace("_", " ") for organ in _DELETED)
    return StudyDescription(
        order=42,
        title="Recovery from simulated errors",
        question="Do samples repair an error of the label map that they start from, and do they invent organs?",
        protocol=f"{cases_text(request, count)}; refiner of {model.description.name}, {plan.sampler.upper()}, "
        f"S = {plan.steps}, T' at abar {plan.abar_start:g}, {SAMPLES} samples, islands kept. Each error is made in the "
        "expert's label map or in the pre-segmentation; hard: one-hot; soft: filtered by a Gaussian of 3 mm, or the "
        f"probabilities with the error moved into them. Deleted: {organs}, one at a time. Dice: of the affected "
        "organs. 'Of uncorrupted': that Dice over the Dice of the chain from the map without the error. Restored: "
        "share of the changed voxels with their original label. Recovered: share of samples with a Dice above "
        f"{_RECOVERED} (deleted, swapped) or with more than half of the voxels restored. {_ABSENT.capitalize()}: "
        "slices above or below the organ, started from a map without it; false recovery: share of samples with more "
        f"than {_FALSE_ML:g} mL of it.",
        budget=training_budget(model.description, "refiner"),
    )


def simulated_errors(labels: Labels, organs: Sequence[str]) -> Iterator[SimulatedError]:
    """The errors that are possible in a label map, whose values 1, 2, ... are `organs`."""
    present = label_errors.present_labels(labels)

    def value_of(organ: str) -> int | None:
        value = organs.index(organ) + 1 if organ in organs else 0
        return value if value in present else None

    for organ in _DELETED:
        if value := value_of(organ):
            yield SimulatedError("organ deleted", (value,), partial(label_errors.delete_organ, value=value))
    absent = [value for value in range(1, len(organs) + 1) if value not in present]
    inserted = absent[0] if absent else value_of("spleen") or present[0]
    yield SimulatedError("ball inserted", (inserted,), partial(label_errors.insert_ball, value=inserted))
    shape = value_of("left_kidney") or present[-1]
    yield SimulatedError(
        "shape of a kidney inserted", (inserted,), partial(label_errors.insert_shape, value=inserted, shape_of=shape)
    )
    right, left = value_of("right_kidney"), value_of("left_kidney")
    if right and left:
        yield SimulatedError("kidneys swapped", (right, left), partial(label_errors.swap_sides, pairs=[(right, left)]))
    for organ in ("spleen", "liver"):
        if value := value_of(organ):
            cut = partial(label_errors.lose_slab, value=value, share=(0.3, 0.4))
            yield SimulatedError("a third cut off", (value,), cut)
    if value := value_of("liver"):
        yield SimulatedError(
            "liver leaked to the heart", (value,), partial(label_errors.leak, value=value, direction=_TO_HEART)
        )


class RecoveryBench:
    """Simulated errors of one case, and the results of the chains that start from them."""

    def __init__(self, model: Model, case: Case, *, seed: int) -> None:
        self.model, self.case, self.seed = model, case, seed
        self._stage: Stage1 | None = None

    @property
    def stage(self) -> Stage1:
        """Features and pre-segmentation, computed on demand."""
        if self._stage is None:
            with torch.inference_mode():
                self._stage = stage_of(self.case, self.model)
        return self._stage

    def start_of(self, source: str) -> tuple[Labels, NDArray[np.float16]]:
        """The label map of a source without errors, and its probabilities (classes, z, y, x)."""
        classes = self.model.description.classes
        z, y, x = self.case.labels.shape
        pre = self.stage.pre[:, :z, :y, :x].numpy()
        labels = self.case.labels if source.startswith("expert") else pre.argmax(axis=0).astype(np.uint8)
        if source.endswith("hard"):
            return labels, label_errors.one_hot(labels, classes)
        if source.startswith("expert"):
            return labels, label_errors.softened(labels, spacing_of(self.model), classes)
        return labels, pre.astype(np.float16)

    def measures(self, source: str) -> Measures:
        """For every error a list of what its samples show; "errors" is its only key."""
        chains, spacing = PathChains(self.stage, self.model), spacing_of(self.model)
        labels, start = self.start_of(source)
        uncorrupted = self.samples(chains, start)
        organs, classes = organ_names(self.model.description), self.model.description.classes
        entries = []
        for number, error in enumerate(tqdm(list(simulated_errors(labels, organs)), desc=source, leave=False)):
            after = error.apply(labels, spacing, np.random.default_rng([self.seed, number]))
            if np.array_equal(after, labels):
                continue
            hard = source.endswith("hard")
            corrupted = (
                label_errors.one_hot(after, classes) if hard else label_errors.with_error(start, labels, after, spacing)
            )
            results = self.samples(chains, corrupted)
            entry = error_measures(error, before=labels, after=after, results=results, truth=self.case.labels)
            entry["uncorrupted"] = [mean_dice(result, self.case.labels, error.values) for result in uncorrupted]
            entries.append(entry)
        return {"errors": entries}

    def samples(self, chains: PathChains, start: NDArray[np.float16]) -> list[Labels]:
        """The label maps (z, y, x) of the samples that start from probabilities (classes, z, y, x)."""
        z, y, x = self.case.labels.shape
        plan = SamplingPlan.of(run_plan_of(SegmentOptions(), self.model))
        inputs = PathInputs.same(fitted(torch.from_numpy(start).float(), self.stage.tiling.shape))
        with torch.inference_mode():
            drawn = [chains.sample(inputs, plan, sample=n)[:, :z, :y, :x].argmax(dim=0) for n in range(SAMPLES)]
        return [result.numpy().astype(np.uint8) for result in drawn]


def absent_measures(model: Model, case: Case, request: StudyRequest) -> Measures:
    """Volume in mL of organs that are outside of the scan, in samples that start from maps without them, by source."""
    organs = organ_names(model.description)
    voxel_ml = float(np.prod(spacing_of(model))) / 1000
    volumes: dict[str, list[float]] = {}
    for organ in tqdm([o for o in _DELETED if o in organs], desc="absent", leave=False):
        value = organs.index(organ) + 1
        part = outside_organ(case, value, request)
        if part is None:
            continue
        bench = RecoveryBench(model, part, seed=request.seed)
        for source in (SOURCES[0], SOURCES[-1]):
            labels, start = bench.start_of(source)
            without = label_errors.delete_organ(labels, spacing_of(model), np.random.default_rng(0), value=value)
            lacking = label_errors.with_error(start, labels, without, spacing_of(model))
            drawn = bench.samples(PathChains(bench.stage, model), lacking)
            volumes.setdefault(source, []).extend(voxel_ml * np.count_nonzero(r == value) for r in drawn)
    return {"volumes": volumes}


def spacing_of(model: Model) -> Spacing:
    """Spacing (z, y, x) in mm of the model's grid."""
    x, y, z = model.description.spacing_mm
    return z, y, x


def error_measures(
    error: SimulatedError, *, before: Labels, after: Labels, results: Sequence[Labels], truth: Labels
) -> Measures:
    """What the samples that start from the map `after` show of the map `before`."""
    changed = before != after
    restored = [float(np.mean(result[changed] == before[changed])) for result in results]
    dice = [mean_dice(result, truth, error.values) for result in results]
    whole_organ = error.kind in ("organ deleted", "kidneys swapped")
    judged = [value or 0.0 for value in dice] if whole_organ else restored
    return {
        "kind": error.kind,
        "values": list(error.values),
        "start": mean_dice(after, truth, error.values),
        "dice": dice,
        "restored": restored,
        "recovered": [value > _RECOVERED for value in judged],
    }


def mean_dice(predicted: Labels, truth: Labels, values: Sequence[int]) -> float | None:
    """Mean Dice of the labels `values`; None if the truth has none of them."""
    dice = dice_by_label(predicted, truth, max(values) + 1)[[value - 1 for value in values]]
    return None if np.isnan(dice).all() else float(np.nanmean(dice))


def recovery_rows(measured: Mapping[str, Measures], organs: Sequence[str]) -> list[StudyRow]:
    """A row for each source and kind of error over all cases, and one for each control."""
    rows = []
    for source in SOURCES:
        entries = [(case, entry) for case, by_source in measured.items() for entry in by_source[source]["errors"]]
        for kind in dict.fromkeys(entry["kind"] for _, entry in entries):
            rows.append(_row(f"{source}: {kind}", [(c, e) for c, e in entries if e["kind"] == kind], organs))
    for source in (SOURCES[0], SOURCES[-1]):
        volumes = [v for by_source in measured.values() for v in by_source[_ABSENT]["volumes"].get(source, [])]
        if volumes:
            numbers = {
                "false recovery": round(float(np.mean([v > _FALSE_ML for v in volumes])), 4),
                "invented mL": round(float(np.mean(volumes)), 3),
            }
            rows.append(StudyRow(f"{source}: {_ABSENT}", numbers=numbers))
    return rows


def _row(name: str, entries: Sequence[tuple[str, Measures]], organs: Sequence[str]) -> StudyRow:
    dice: dict[str, dict[str, float | None]] = {}
    for case, entry in entries:
        if None not in entry["dice"]:
            organ = " and ".join(organs[value - 1] for value in entry["values"])
            dice.setdefault(case, {})[organ] = round(float(np.mean(entry["dice"])), 4)
    known = [entry for _, entry in entries if None not in entry["dice"]]
    numbers = {}
    if known:
        reached = np.mean([np.mean(entry["dice"]) for entry in known])
        uncorrupted = np.mean([np.mean(entry["uncorrupted"]) for entry in known])
        numbers["Dice of the start"] = round(float(np.mean([entry["start"] for entry in known])), 4)
        if uncorrupted > 0:
            numbers["of uncorrupted"] = round(float(reached / uncorrupted), 4)
    numbers["restored"] = round(float(np.mean([np.mean(entry["restored"]) for _, entry in entries])), 4)
    numbers["recovered"] = round(float(np.mean([np.mean(entry["recovered"]) for _, entry in entries])), 4)
    return StudyRow(name, dice=dice or None, numbers=numbers)
