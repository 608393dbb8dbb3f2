"""`study organ-rules`: alarms of the rules about whole organs, on expert label maps and on altered ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from DiffusionSegmentBackend.datasets.labelled_cases import Case, find_cases, load_case
from DiffusionSegmentBackend.models.manifest import ModelDescription
from DiffusionSegmentBackend.pipeline.organ_alarms import LabelMapOnGrid, organ_alarms
from DiffusionSegmentBackend.schema.model_manifest import ModelLabel
from DiffusionSegmentBackend.schema.report import OrganAlarm
from DiffusionSegmentBackend.training.organ_statistics import organ_statistics
from numpy.typing import NDArray
from tqdm import tqdm

from .result_file import StudyDescription, StudyResult, StudyRow
from .study import StudyRequest

_THIRD = 1 / 3


def study(request: StudyRequest) -> StudyResult:
    """Rules of the first model on its training cases, each judged by the statistics of the others."""
    model = request.description
    cases = [load_case(files, model) for folder in request.data for files in tqdm(find_cases(folder), desc="read")]
    description = StudyDescription(
        order=46,
        title="Rules about whole organs",
        question="How often do rules alone raise an alarm, where nothing is wrong and where something is?",
        protocol=f"{len(cases)} expert label maps on the model's grid, each judged by the volumes of the other cases "
        "(leave one out): as they are, with the kidneys swapped, with an organ deleted, and with the upper third of an "
        "organ cut off; the last two once for every organ. Last rows: volumes of all cases, as in model.json.",
        budget="no training",
    )
    return StudyResult([*alarm_rows(cases, model), *volume_rows(cases, model)], description)


def alarm_rows(cases: Sequence[Case], model: ModelDescription) -> list[StudyRow]:
    """A row per alteration: label maps, those with an alarm about an altered organ, and alarms about other organs."""
    counts: dict[str, list[tuple[bool, int]]] = {}
    for n, case in enumerate(cases):
        others = [*cases[:n], *cases[n + 1 :]]
        statistics = organ_statistics(others, [label.value for label in model.labels])
        labels = [
            replace(label, usual_ml=s.usual_ml, one_piece=s.one_piece)
            if (s := statistics.get(label.value)) is not None
            else label
            for label in model.labels
        ]
        for name, altered, organs in _alterations(case, labels):
            alarms = _alarms(altered, case, labels)
            hit = any(alarm.organ in organs for alarm in alarms)
            counts.setdefault(name, []).append((hit, sum(alarm.organ not in organs for alarm in alarms)))
    return [
        StudyRow(
            name,
            numbers={
                "label maps": float(len(results)),
                "with an alarm about what was altered": float(sum(hit for hit, _ in results)),
                "other alarms a label map": round(float(np.mean([other for _, other in results])), 3),
            },
        )
        for name, results in counts.items()
    ]


def volume_rows(cases: Sequence[Case], model: ModelDescription) -> list[StudyRow]:
    """A row per organ: the entries of model.json, and the cases that they come from."""
    statistics = organ_statistics(cases, [label.value for label in model.labels])
    return [
        StudyRow(
            label.title,
            numbers={
                "smallest, mL": s.usual_ml[0],
                "largest, mL": s.usual_ml[1],
                "always in one piece": float(s.one_piece),
                "cases": float(s.cases),
            },
        )
        for label in model.labels
        if (s := statistics.get(label.value)) is not None
    ]


def _alterations(case: Case, labels: Sequence[ModelLabel]) -> list[tuple[str, NDArray[np.uint8], set[str]]]:
    """Name, label map and altered organs of every alteration of a case."""
    by_name = {label.name: label.value for label in labels if (case.labels == label.value).any()}
    result: list[tuple[str, NDArray[np.uint8], set[str]]] = [("as it is", case.labels, set())]
    pair = {"right_kidney", "left_kidney"}
    if pair <= by_name.keys():
        right, left = by_name["right_kidney"], by_name["left_kidney"]
        swapped = case.labels.copy()
        swapped[case.labels == right], swapped[case.labels == left] = left, right
        result.append(("kidneys swapped", swapped, pair))
    for name, value in by_name.items():
        mask = case.labels == value
        deleted = np.where(mask, np.uint8(0), case.labels)
        heights = np.argwhere(mask)[:, 0]
        above = np.arange(len(mask))[:, None, None] > np.quantile(heights, 1 - _THIRD)
        result.append(("an organ deleted", deleted, {name}))
        result.append(("upper third of an organ cut off", np.where(mask & above, np.uint8(0), case.labels), {name}))
    return result


def _alarms(labels: NDArray[np.uint8], case: Case, known: Sequence[ModelLabel]) -> tuple[OrganAlarm, ...]:
    present = {label.value for label in known if (case.labels == label.value).any()}
    return organ_alarms(LabelMapOnGrid(labels, case.grid, case.offset, present), known)
