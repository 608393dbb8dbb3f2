"""`study audit`: an audit network trained on implanted errors, tested on real errors of segmenters it never saw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from DiffusionSegmentBackend.models.manifest import ModelDescription
from DiffusionSegmentBackend.models.model import load_model
from DiffusionSegmentBackend.training.session import load_cases
from numpy.typing import NDArray
from tqdm import tqdm

from ..audit.inference import OrganAudit, audit_organ
from ..audit.network import AuditNetwork
from ..audit.training import NEAR_TRAINING_MM
from .audit_cases import AuditCase, predicted_case
from .audit_measures import NEAR_MM, Detection, at_precision, auroc, detections, threshold_of
from .audit_training import trained_audit
from .result_file import StudyDescription, StudyResult, StudyRow
from .study import StudyRequest

LEFT_OUT = ("left_kidney", "aorta", "pancreas")
_MINUTES = 100.0
_AUDIT, _DOUBT, _DISTANCE = "audit network", "doubt of the segmenter", "distance to its surface"


def study(request: StudyRequest) -> StudyResult:
    """Train on the training cases of the first model's data, resuming; test each model's result on its own data."""
    minutes = request.options.minutes or _MINUTES
    left_out = left_out_values(request.description)
    models = [load_model(str(description.folder), "cpu") for description in request.descriptions]
    network, count = trained_audit(request, models[0], minutes=minutes, left_out=left_out)
    rows: list[StudyRow] = []
    for number, (model, data) in enumerate(zip(models, request.data, strict=True)):
        cases = load_cases([data], model.description, part="validation")
        audited = (predicted_case(case, model) for case in tqdm(cases, desc=model.description.name))
        rows += audit_rows(network, audited, model.description, never_seen=left_out if number == 0 else None)
    names = ", ".join(name.replace("_", " ") for name in LEFT_OUT)
    return StudyResult(
        rows,
        StudyDescription(
            order=57,
            title="Audit network",
            question="Does a network that knows no organs see where the outline of an organ is wrong?",
            protocol=f"Trained on {count} training cases of {request.description.name}, half on errors implanted into "
            f"expert masks, half on errors of this model in degraded images of them; {names} were never audited in "
            "training. Tested on the errors of models on their validation cases, on voxels of 3 mm; it never saw those "
            "of the other models. AUROC of wrong against right voxels within "
            f"{NEAR_MM:g} mm of the found surface, mean over cases, then over organs. Recall and precision of "
            "regions against gross errors; the threshold of a case is chosen on the others for a precision of 0.55.",
            budget=f"{minutes:g} minutes of one core",
        ),
    )


def left_out_values(description: ModelDescription) -> frozenset[int]:
    """The labels of the organs that are never audited in training."""
    return frozenset(label.value for label in description.labels if label.name in LEFT_OUT)


def audit_rows(
    network: AuditNetwork,
    cases: Iterable[AuditCase],
    description: ModelDescription,
    *,
    never_seen: frozenset[int] | None,
) -> list[StudyRow]:
    """A row for the network and for each control, and one for every organ.

    `never_seen` are labels that were left out of training; None if none of the organs was in it.
    """
    titles = {label.value: label.title for label in description.labels}
    unseen = titles.keys() if never_seen is None else titles.keys() & never_seen
    measured = [audited_case(network, case) for case in cases]
    rows = []
    for score in (_AUDIT, _DOUBT, _DISTANCE):
        by_organ = {value: _mean(case.aurocs[score].get(value) for case in measured) for value in titles}
        numbers = {
            "AUROC": _mean(by_organ.values()),
            "organs audited in training": _mean(by_organ[value] for value in titles if value not in unseen),
            "organs never audited": _mean(by_organ[value] for value in titles if value in unseen),
            **_regions([case.detections[score] for case in measured if score in case.detections]),
        }
        rows.append(StudyRow(f"{description.name}, {score}", numbers={"label maps": len(measured), **_known(numbers)}))
    organs = _known({titles[value]: _mean(case.aurocs[_AUDIT].get(value) for case in measured) for value in titles})
    rows += [StudyRow(f"{description.name}, {title}", numbers={"AUROC": mean}) for title, mean in organs.items()]
    return [*rows, StudyRow(f"{description.name}, expert label maps", numbers=_expert_numbers(measured))]


@dataclass(frozen=True)
class AuditedCase:
    """The audit of a segmentation and that of the expert's label map of the same scan.

    Attributes:
        aurocs: by score, that of each organ.
        detections: by score, at all thresholds.
        expert_detections: of the audit network, at all thresholds; every region is a false one.
        expected_ml: sum of the probability that voxels are wrong: in the segmentation, and in the expert's label map.
    """

    aurocs: Mapping[str, Mapping[int, float]]
    detections: Mapping[str, Sequence[Detection]]
    expert_detections: Sequence[Detection]
    expected_ml: tuple[float, float]


def audited_case(network: AuditNetwork, case: AuditCase) -> AuditedCase:
    """Audit all organs of a segmentation and of the expert's label map, and compare with the true errors."""
    found, expert = (_audits(network, case, labels) for labels in (case.labels, case.truth))
    aurocs: dict[str, dict[int, float]] = {_AUDIT: {}, _DOUBT: {}, _DISTANCE: {}}
    for value, audited in found.items():
        wrong = (case.labels[audited.box] == value) != (case.truth[audited.box] == value)
        near = np.abs(audited.distance_mm) <= NEAR_MM
        scores = {
            _AUDIT: audited.probability,
            _DOUBT: case.doubt[audited.box],
            _DISTANCE: -np.abs(audited.distance_mm),
        }
        for name, values in scores.items():
            score = auroc(values[near], wrong[near])
            if score is not None:
                aurocs[name][value] = score
    probability, of_expert = (_wrong(audits, case.labels.shape) for audits in (found, expert))
    voxel_ml = float(np.prod(case.spacing)) / 1000.0
    return AuditedCase(
        aurocs,
        {
            _AUDIT: detections(probability, case.labels, case.truth, case.spacing),
            _DOUBT: detections(case.doubt, case.labels, case.truth, case.spacing),
        },
        detections(of_expert, case.truth, case.truth, case.spacing),
        (float(probability.sum()) * voxel_ml, float(of_expert.sum()) * voxel_ml),
    )


def _audits(network: AuditNetwork, case: AuditCase, labels: NDArray[np.uint8]) -> dict[int, OrganAudit]:
    audits = {value: audit_organ(network, case.image, labels, value, spacing=case.spacing) for value in case.organs}
    return {value: audit for value, audit in audits.items() if audit is not None}


def _wrong(audits: Mapping[int, OrganAudit], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The highest probability of all organs (z, y, x); 0 beyond the reach of the network's training."""
    highest = np.zeros(shape, np.float32)
    for audit in audits.values():
        near = np.where(audit.distance_mm > -NEAR_TRAINING_MM, audit.probability, np.float32(0))
        np.maximum(highest[audit.box], near, out=highest[audit.box])
    return highest


def _expert_numbers(cases: Sequence[AuditedCase]) -> dict[str, float]:
    """Expected wrong volumes, and label maps without a region at the threshold of the errors of the others."""
    silent = 0
    for number, case in enumerate(cases):
        others = [other.detections[_AUDIT] for n, other in enumerate(cases) if n != number]
        silent += case.expert_detections[threshold_of(others)].regions == 0
    own, expert = (round(float(np.mean([case.expected_ml[n] for case in cases]))) for n in (0, 1))
    return {
        "label maps": len(cases),
        "expected wrong, mL": expert,
        "expected wrong in the model's, mL": own,
        "without a region": silent,
    }


def _regions(cases: Sequence[Sequence[Detection]]) -> dict[str, float | None]:
    if not cases or not any(case[0].errors for case in cases):
        return {}
    total = at_precision(cases)
    return {"gross errors": total.errors, "recall of regions": total.recall, "precision of regions": total.precision}


def _known(numbers: Mapping[str, float | None]) -> dict[str, float]:
    return {name: round(number, 3) for name, number in numbers.items() if number is not None}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
