"""What corrections did to a segmentation, as the list `corrections` of report.json keeps it.

    {"time": "2026-03-01T09:30:00+00:00", "kind": "marks", "marked_voxels": 40, "changed_voxels": 512,
     "organs": [{"name": "liver", "title": "Liver", "gained_voxels": 500, "lost_voxels": 12,
                 "gained_ml": 13.5, "lost_ml": 0.32}]}

Standard library and numpy only, because Slicer's process imports it too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

CORRECTIONS_KEY = "corrections"
_LABELS = 256


class CorrectionKind(str, Enum):
    """How labels came to change: by marks that the model was given, or by edits that it was not."""

    MARKS = "marks"
    EDITS = "edits"


@dataclass(frozen=True, kw_only=True)
class OrganChange:
    """Voxels of the scan and mL that an organ gained and lost."""

    name: str
    title: str
    gained_voxels: int
    lost_voxels: int
    gained_ml: float
    lost_ml: float


@dataclass(frozen=True, kw_only=True)
class CorrectionRecord:
    """One correction: `time` in ISO 8601 with its offset, voxels of the scan marked and changed, organs that changed.

    `marked_voxels` are those marked in this correction, not those of earlier ones.
    """

    time: str
    kind: CorrectionKind
    marked_voxels: int
    changed_voxels: int
    organs: tuple[OrganChange, ...]

    def as_json(self) -> dict[str, Any]:
        """The entry of report.json."""
        return {**asdict(self), "kind": self.kind.value, "organs": [asdict(organ) for organ in self.organs]}


def record_correction(
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
    *,
    organs: Sequence[Mapping[str, Any]],
    voxel_ml: float,
    marked_voxels: int,
    kind: CorrectionKind = CorrectionKind.MARKS,
    time: str | None = None,
) -> CorrectionRecord:
    """Compare two label maps of one shape; `organs` are those of the report, `time` is now unless given.

    Raises:
        KeyError: an organ without `name`, `title` or `value`.
    """
    changed = before != after
    gained = np.bincount(after[changed], minlength=_LABELS)
    lost = np.bincount(before[changed], minlength=_LABELS)
    changes = (
        OrganChange(
            name=str(organ["name"]),
            title=str(organ["title"]),
            gained_voxels=int(gained[organ["value"]]),
            lost_voxels=int(lost[organ["value"]]),
            gained_ml=round(float(gained[organ["value"]]) * voxel_ml, 2),
            lost_ml=round(float(lost[organ["value"]]) * voxel_ml, 2),
        )
        for organ in organs
    )
    return CorrectionRecord(
        time=time or datetime.now(timezone.utc).isoformat(timespec="seconds"),
        kind=kind,
        marked_voxels=marked_voxels,
        changed_voxels=int(np.count_nonzero(changed)),
        organs=tuple(change for change in changes if change.gained_voxels or change.lost_voxels),
    )


def corrections_of(report: Mapping[str, Any]) -> tuple[CorrectionRecord, ...]:
    """The corrections that a report lists, oldest first; none for a report without such a list.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: the list is damaged.
    """
    return tuple(_record(item) for item in report.get(CORRECTIONS_KEY, []))


def with_corrections(report: Mapping[str, Any], records: Sequence[CorrectionRecord]) -> dict[str, Any]:
    """The report with these corrections; without the list where there are none."""
    rest = {key: value for key, value in report.items() if key != CORRECTIONS_KEY}
    return {**rest, CORRECTIONS_KEY: [record.as_json() for record in records]} if records else rest


def corrected_organs(records: Sequence[CorrectionRecord]) -> frozenset[str]:
    """Names of the organs that any of the corrections changed."""
    return frozenset(organ.name for record in records for organ in record.organs)


def _record(item: Mapping[str, Any]) -> CorrectionRecord:
    return CorrectionRecord(
        time=datetime.fromisoformat(str(item["time"])).isoformat(),
        kind=CorrectionKind(item["kind"]),
        marked_voxels=_count(item["marked_voxels"]),
        changed_voxels=_count(item["changed_voxels"]),
        organs=tuple(_organ(organ) for organ in item["organs"]),
    )


def _organ(item: Mapping[str, Any]) -> OrganChange:
    return OrganChange(
        name=str(item["name"]),
        title=str(item["title"]),
        gained_voxels=_count(item["gained_voxels"]),
        lost_voxels=_count(item["lost_voxels"]),
        gained_ml=float(item["gained_ml"]),
        lost_ml=float(item["lost_ml"]),
    )


def _count(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r:.40} is no number of voxels")
    return value
