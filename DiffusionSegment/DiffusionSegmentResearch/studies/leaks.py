"""`study leaks`: on which path the pre-segmentation decides the samples of a refiner."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from DiffusionSegmentBackend.datasets.label_errors import one_hot
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.metrics.diversity import label_distances
from DiffusionSegmentBackend.metrics.overlap import dice_by_label
from DiffusionSegmentBackend.models.model import Model, load_model, weights_sha256
from DiffusionSegmentBackend.pipeline.sampling import SamplingPlan
from DiffusionSegmentBackend.training.cross_fitting import stage_of
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from .case_selection import cases_text, crop_of, selected_cases
from .measures_by_case import Measures, MeasuresByCase
from .presegmentation_paths import PATHS, PathChains, PathInputs, fitted, flat, with_path, without_organ
from .result_file import StudyDescription, StudyResult, StudyRow, organ_table
from .study import StudyRequest
from .study_data import organ_names, training_budget

_PURE_NOISE = 0.0
_DROPPED = "spleen"
_UNCHANGED = "unchanged"


@dataclass(frozen=True)
class Intervention:
    """A change of the inputs of a chain; `compared` is whether the whole result is compared with the unchanged one."""

    name: str
    inputs: PathInputs
    sample: int = 0
    compared: bool = True


def study(request: StudyRequest) -> StudyResult:
    """The refiner of the first model, from its own pre-segmentations."""
    model = load_model(str(request.description.folder), "cpu")
    organs = organ_names(model.description)
    dropped = organs.index(_DROPPED) + 1 if _DROPPED in organs else 1
    cases = [crop_of(case, request) for case in selected_cases(request, model)]
    donors = dict(zip([case.name for case in cases], donor_states(cases, model.description.classes), strict=True))
    key = f"leaks {weights_sha256(model.description)} {request.options.crop} {sorted(donors)} {request.seed}"
    store = MeasuresByCase(request.options.measures, key)
    measured: dict[str, Measures] = {}
    for case in tqdm(cases, desc="cases"):

        def measure(case: Case = case) -> Measures:
            with torch.inference_mode():
                return case_measures(model, case, donors[case.name], dropped=dropped)

        measured[case.name] = store.get(case.name, measure)
    return StudyResult(
        leak_rows(measured, organs, dropped=dropped), _description(request, model, len(cases), organs[dropped - 1])
    )


def _description(request: StudyRequest, model: Model, count: int, organ: str) -> StudyDescription:
    defaults = model.description.defaults
    return StudyDescription(
        order=41,
        title="Paths of the pre-segmentation",
        question="Which input decides the samples: the state, the channel of the pre-segmentation, its added "
        "logarithm, or the scan?",
        protocol=f"{cases_text(request, count)}; refiner of {model.description.name}, S = {defaults.steps}, "
        f"{defaults.sampler.upper()}, one sample, from T' at abar {defaults.abar_start:g} or from pure noise, islands "
        "kept. Each row changes one input. 'Flat' is 1/classes for every class. The state of another scan is made from "
        "the expert's label map of the next case. Dice to the unchanged chain: mean over the organs that either result "
        f"shows. {organ.replace('_', ' ').capitalize()} taken out of the pre-segmentation on some of the three paths: "
        "only the tiles that hold it are computed again.",
        budget=training_budget(model.description, "refiner"),
    )


def donor_states(cases: Sequence[Case], classes: int) -> list[Tensor]:
    """For each case, the one-hot label map (classes, z, y, x) of the next one; of a single case, its mirror image."""
    if len(cases) == 1:
        return [torch.from_numpy(one_hot(np.ascontiguousarray(cases[0].labels[:, :, ::-1]), classes)).float()]
    following = [*cases[1:], cases[0]]
    return [torch.from_numpy(one_hot(case.labels, classes)).float() for case in following]


def interventions(pre: Tensor, donor: Tensor) -> dict[str, list[Intervention]]:
    """Start -> the changes of its chains, the unchanged one first. `donor` is the state of another scan."""
    own, nothing = PathInputs.same(pre), flat(pre)
    from_start = [
        Intervention(_UNCHANGED, own),
        Intervention("another sample", own, sample=1),
        Intervention("state of another scan at T'", replace(own, state=donor)),
        Intervention("state of another scan in every step", replace(own, state=donor, rule="renewed")),
        Intervention("state of zeros in every step", replace(own, rule="zeros")),
    ]
    from_noise = [
        Intervention(_UNCHANGED, own),
        Intervention("state of zeros in every step", replace(own, rule="zeros")),
        Intervention("addition flat", replace(own, addition=nothing)),
        Intervention("channel flat", replace(own, channel=nothing)),
        Intervention("channel and addition flat", replace(own, channel=nothing, addition=nothing)),
        Intervention("features of the scan zero", replace(own, features=False)),
    ]
    return {"from T'": from_start, "from noise": from_noise}


def dropped_interventions(pre: Tensor, value: int) -> Iterator[tuple[str, Intervention]]:
    """(start, change): an organ taken out of the pre-segmentation on every combination of paths."""
    lacking = without_organ(pre, value)
    for start in ("from T'", "from noise"):
        for chosen in product((False, True), repeat=len(PATHS)):
            names = [path for path, lacks in zip(PATHS, chosen, strict=True) if lacks]
            # From pure noise the state does not contain the pre-segmentation.
            if not names or (start == "from noise" and "state" in names):
                continue
            inputs = PathInputs.same(pre)
            for name in names:
                inputs = with_path(inputs, name, lacking)
            yield start, Intervention(f"organ out of {', '.join(names)}", inputs, compared=False)


def case_measures(model: Model, case: Case, donor: Tensor, *, dropped: int) -> Measures:
    """Row name -> Dice to the truth by organ, Dice to the unchanged chain, and Dice of organ `dropped`."""
    stage = stage_of(case, model)
    chains, defaults = PathChains(stage, model), model.description.defaults
    z, y, x = case.labels.shape
    starts = {"from T'": defaults.abar_start, "from noise": _PURE_NOISE}
    changes = [
        (s, i) for s, listed in interventions(stage.pre, fitted(donor, stage.tiling.shape)).items() for i in listed
    ]
    changes += dropped_interventions(stage.pre, dropped)
    unchanged: dict[str, NDArray[np.uint8]] = {}
    measures: Measures = {}
    for start, change in tqdm(changes, desc="chains", leave=False):
        plan = SamplingPlan(
            schedule=defaults.schedule, sampler=defaults.sampler, steps=defaults.steps, abar_start=starts[start], seed=0
        )
        probabilities = chains.sample(change.inputs, plan, sample=change.sample)
        predicted = probabilities[:, :z, :y, :x].argmax(dim=0).numpy().astype(np.uint8)
        reference = unchanged.setdefault(start, predicted)
        maps = (predicted, reference, case.labels)
        measures[f"{start}, {change.name}"] = _measured(
            *maps, compared=change.compared, dropped=dropped, classes=model.description.classes
        )
    return measures


def _measured(
    predicted: NDArray[np.uint8],
    reference: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    *,
    compared: bool,
    dropped: int,
    classes: int,
) -> Measures:
    dice = dice_by_label(predicted, truth, classes)
    if not compared:
        return {"dropped": _number(dice[dropped - 1])}
    shown = [value - 1 for value in range(1, classes) if (predicted == value).any() or (reference == value).any()]
    agreement = 1 - label_distances(predicted, reference, classes)[shown]
    return {
        "dice": [_number(value) for value in dice],
        "dropped": _number(dice[dropped - 1]),
        "unchanged": float(agreement.mean()) if len(agreement) else 1.0,
    }


def _number(value: float) -> float | None:
    """None for NaN, which JSON lacks."""
    return None if np.isnan(value) else float(value)


def leak_rows(measured: Mapping[str, Measures], organs: Sequence[str], *, dropped: int) -> list[StudyRow]:
    """A row for each change, over all cases."""
    names = next(iter(measured.values()))
    rows = []
    for name in names:
        values = {case: measures[name] for case, measures in measured.items()}
        row = StudyRow(name)
        if "dice" in names[name]:
            row.dice = {
                case: organ_table([np.nan if v is None else v for v in value["dice"]], organs)
                for case, value in values.items()
            }
            unchanged = float(np.mean([v["unchanged"] for v in values.values()]))
            row.numbers["Dice to the unchanged chain"] = round(unchanged, 4)
        of_organ = [v["dropped"] for v in values.values() if v["dropped"] is not None]
        if of_organ:
            row.numbers[f"Dice of the {organs[dropped - 1].replace('_', ' ')}"] = round(float(np.mean(of_organ)), 4)
        rows.append(row)
    return rows
