"""What corrections did to a segmentation, as the list `corrections` of report.json keeps it.

    {"time": "2026-03-01T09:30:00+00:00", "kind": "marks", "marked_voxels": 40, "changed_voxels": 512,
     "organs": [{"name": "liver", "title": "Liver", "gained_voxels": 500, "lost_voxels": 12,
                 "gained_ml": 13.5, "lost_ml": 0.32}]}

Records are made by `imaging.label_changes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from .dataclass_json import SchemaError


class CorrectionKind(StrEnum):
    """How labels came to change: by scribbles that the model was given, or by edits that it was not."""

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

    def __post_init__(self) -> None:
        try:
            datetime.fromisoformat(self.time)
        except ValueError as error:
            raise SchemaError(f"{self.time!r:.40} is not a time of ISO 8601") from error
        counts = (
            self.marked_voxels,
            self.changed_voxels,
            *(n for o in self.organs for n in (o.gained_voxels, o.lost_voxels)),
        )
        if min(counts) < 0:
            raise SchemaError(f"{min(counts)} is not a number of voxels")


def corrected_organs(records: Sequence[CorrectionRecord]) -> frozenset[str]:
    """Names of the organs that any of the corrections changed."""
    return frozenset(organ.name for record in records for organ in record.organs)
