"""Rows of the tables from the reports of the results."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from ..schema.model_manifest import ModelLabel
from ..schema.report import OrganResult, Report
from .reasons import UNFIT, reason_of
from .scan import CohortScan, Outcome
from .tables import Row

_SEPARATOR = " | "
MIN_SCANS_FOR_Z = 10
# The standard deviation of a normal distribution in units of its median absolute deviation.
_MAD_TO_SD = 1.4826


@dataclass(frozen=True)
class VolumeNorm:
    """Median and spread of the logarithm of an organ's volume over the scans in which it was measured."""

    median: float
    spread: float

    def z(self, volume_ml: float) -> float:
        """How many robust standard deviations a volume in mL lies from the median."""
        return (math.log(volume_ml) - self.median) / self.spread


def volume_norms(volumes: Mapping[str, Sequence[float]]) -> dict[str, VolumeNorm]:
    """Norms of the organs with at least 10 measured volumes (mL, > 0), from the median absolute deviation."""
    norms = {}
    for organ, values in volumes.items():
        if len(values) < MIN_SCANS_FOR_Z:
            continue
        logs = [math.log(value) for value in values]
        median = statistics.median(logs)
        spread = _MAD_TO_SD * statistics.median(abs(value - median) for value in logs)
        if spread > 0:
            norms[organ] = VolumeNorm(median, spread)
    return norms


def organ_rows(
    scan_id: str, report: Report, cut: Sequence[str], labels: Mapping[str, ModelLabel], norms: Mapping[str, VolumeNorm]
) -> list[Row]:
    """A row for each organ of a report; volumes are null for an organ that is cut or outside of the scan."""
    levels = _covered_levels(report, cut, labels)
    rows = []
    for organ in report.organs:
        label = labels.get(organ.name)
        state = _state(organ, cut, label, levels)
        low, high = organ.volume_interval_ml
        measured = state in ("measured", "absent")
        norm = norms.get(organ.name)
        code = label.code if label is not None else None
        alarms = [alarm.sentence for alarm in report.alarms if alarm.organ == organ.name]
        rows.append(
            {
                "scan_id": scan_id,
                "organ": organ.name,
                "code_scheme": code.scheme if code is not None else None,
                "code": code.value if code is not None else None,
                "side_code": label.modifier.value if label is not None and label.modifier is not None else None,
                "state": state,
                "volume_ml": organ.volume_ml if measured else None,
                "volume_ml_p05": low if measured else None,
                "volume_ml_p95": high if measured else None,
                "confidence": organ.confidence if organ.volume_ml > 0 else None,
                "volume_z": norm.z(organ.volume_ml) if norm is not None and state == "measured" else None,
                "alarm": _SEPARATOR.join(alarms) or None,
            }
        )
    return rows


def _state(
    organ: OrganResult, cut: Sequence[str], label: ModelLabel | None, levels: tuple[float, float] | None
) -> str:
    if organ.volume_ml > 0:
        return "cut" if organ.name in cut else "measured"
    if levels is None or label is None or label.body_mm is None:
        return "outside"
    return "absent" if levels[0] <= label.body_mm[2] <= levels[1] else "outside"


def _covered_levels(
    report: Report, cut: Sequence[str], labels: Mapping[str, ModelLabel]
) -> tuple[float, float] | None:
    """From the lowest to the highest level, in mm of the body frame, of the organs that lie whole in the scan."""
    levels = [
        label.body_mm[2]
        for organ in report.organs
        if organ.volume_ml > 0
        and organ.name not in cut
        and (label := labels.get(organ.name)) is not None
        and label.body_mm is not None
    ]
    return (min(levels), max(levels)) if len(levels) > 1 else None


def region_rows(scan_id: str, report: Report) -> list[Row]:
    """A row for each region to review."""
    return [
        {
            "scan_id": scan_id,
            "rank": rank,
            "organ": region.organ,
            "competing_organ": region.competing_organ,
            "score_ml": region.score,
            "volume_ml": region.volume_ml,
            "probability": region.probability,
            **dict(zip(("x_mm", "y_mm", "z_mm"), region.centroid_lps_mm, strict=True)),
            "sentence": region.sentence,
        }
        for rank, region in enumerate(report.review, start=1)
    ]


def scan_row(scan: CohortScan, outcome: Outcome | None, report: Report | None, *, identifiers: bool) -> Row:
    """The row of a scan, without what compares it with others."""
    row: Row = {
        "scan_id": scan.scan_id,
        "status": _status(outcome, report),
        "patient": scan.patient or None,
        "study": scan.study or None,
        **{name: value or None for name, value in asdict(scan.acquisition).items()},
    }
    if identifiers:
        row |= {name: value or None for name, value in asdict(scan.identifiers).items()}
    if outcome is not None:
        row |= _outcome_values(scan, outcome)
    if report is not None:
        row |= _report_values(report)
    return row


def _status(outcome: Outcome | None, report: Report | None) -> str:
    if outcome is None:
        return "waiting"
    if not outcome.code:
        return "done" if report is not None else "failed"
    return "not_fit" if outcome.attempts == 0 or outcome.code in UNFIT else "failed"


def _outcome_values(scan: CohortScan, outcome: Outcome) -> Row:
    row: Row = {
        "code": outcome.code or None,
        "reason": scan.unfit.reason if scan.unfit is not None else reason_of(outcome.code) or None,
        "attempts": outcome.attempts,
        "seconds": outcome.seconds if outcome.attempts else None,
        "key": outcome.key or None,
    }
    if len(outcome.shape) == 3 and len(outcome.spacing_mm) == 3:
        row |= dict(zip(("size_k", "size_j", "size_i"), outcome.shape, strict=True))
        row |= dict(zip(("spacing_i_mm", "spacing_j_mm", "spacing_k_mm"), outcome.spacing_mm, strict=True))
    return row


def _report_values(report: Report) -> Row:
    software = report.provenance.software
    return {
        "expected_wrong_ml": report.expected_wrong_ml,
        "confidence": report.confidence,
        "alarms": len(report.alarms),
        "regions": len(report.review),
        "warnings": _SEPARATOR.join(report.warnings) or None,
        "peak_memory_mb": report.peak_memory_mb,
        "model": report.provenance.plan.model,
        "model_version": software.version,
        "model_sha256": software.sha256,
        "software": software.software,
        "seed": report.provenance.plan.seed,
    }


def review_priorities(rows: Sequence[Row]) -> list[float | None]:
    """How much each scan needs review, 0 to 1; None for scans without a result.

    It is the mean of the scan's ranks among all results by expected wrong volume, by lack of confidence, by the number
    of alarms and by the largest deviation of a volume; a value that is missing has the lowest rank.
    """
    done = [index for index, row in enumerate(rows) if row["status"] == "done"]
    criteria = [
        [float(rows[index].get("expected_wrong_ml") or 0.0) for index in done],
        [-float(1.0 if (value := rows[index].get("confidence")) is None else value) for index in done],
        [float(rows[index].get("alarms") or 0) for index in done],
        [float(rows[index].get("max_volume_z") or 0.0) for index in done],
    ]
    ranks = [_ranks(values) for values in criteria]
    priorities: list[float | None] = [None] * len(rows)
    for position, index in enumerate(done):
        priorities[index] = sum(rank[position] for rank in ranks) / len(ranks)
    return priorities


def _ranks(values: Sequence[float]) -> list[float]:
    """The share of the other values that are smaller, 0 to 1; equal values have equal ranks."""
    ordered = sorted(values)
    first: dict[float, int] = {}
    for position, value in enumerate(ordered):
        first.setdefault(value, position)
    return [first[value] / max(len(values) - 1, 1) for value in values]
