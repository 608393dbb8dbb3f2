"""report.json: volumes with intervals, confidence, regions to review, corrections, timings, memory, provenance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from . import dataclass_json
from .correction_record import CorrectionRecord
from .dataclass_json import SchemaError
from .organ_margin import OrganMargin
from .provenance import Provenance
from .reviewed_segmentation import ReviewedSegmentation

SCHEMA_VERSION = 2


@dataclass(frozen=True, kw_only=True)
class OrganResult:
    """One organ of a result: volume and its 90 % interval in mL, and the mean probability of its voxels, 0..1.

    `margin` is that of the model, None where it has none and for a reviewed segmentation.
    """

    name: str
    title: str
    value: int
    volume_ml: float
    volume_interval_ml: tuple[float, float]
    confidence: float
    margin: OrganMargin | None = None


@dataclass(frozen=True, kw_only=True)
class ReviewRegion:
    """A connected region in which two labels compete, "background" for label 0.

    `score` are the mL expected to be wrong; `probability` is that of a gross error, 0..1, None for a model without
    calibration; `centroid_lps_mm` lies inside the region.
    """

    organ: str
    competing_organ: str
    value: int = 0
    competing_value: int = 0
    centroid_lps_mm: tuple[float, float, float]
    volume_ml: float
    score: float
    sentence: str
    probability: float | None = None


@dataclass(frozen=True, kw_only=True)
class RemovedIslands:
    """Small pieces of an organ, separate from its largest one, that were set to background."""

    name: str
    title: str
    pieces: int
    volume_ml: float


class AlarmKind(StrEnum):
    """What is unusual about a whole organ."""

    ABSENT = "absent"
    VOLUME = "volume"
    PIECES = "pieces"
    SIDES = "sides"


@dataclass(frozen=True, kw_only=True)
class OrganAlarm:
    """An organ that is unusual as a whole, by a rule; `position_lps_mm` lies in it, None for an absent one."""

    organ: str
    kind: AlarmKind
    sentence: str
    position_lps_mm: tuple[float, float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class MapScale:
    """What the values 0..1 of a map mean: a quantity of `classes` classes, which is `nats_at_1` nats where it is 1."""

    quantity: str
    classes: int
    nats_at_1: float


@dataclass(frozen=True, kw_only=True)
class OrganDifference:
    """mL that an organ would gain and lose in an alternative."""

    name: str
    gained_ml: float
    lost_ml: float


@dataclass(frozen=True, kw_only=True)
class PieceDifference:
    """A connected piece in which an alternative has `label` where the segmentation has `instead`."""

    label: str
    instead: str
    volume_ml: float
    position_lps_mm: tuple[float, float, float]
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """A different sample: its file in the result folder, how many samples agree with it, and how it differs."""

    file: str
    samples: int
    share: float
    differs_ml: float
    organs: tuple[OrganDifference, ...] = ()
    differences: tuple[PieceDifference, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """The content of report.json. `expected_wrong_ml` is the volume of the voxels whose label is expected to be wrong.

    `timings_s` are seconds by stage and their `total`; `run_timings_s`, of a corrected
    result, those of the run before it. Optional parts are left out of the file where a run does not have them.
    """

    organs: tuple[OrganResult, ...]
    review: tuple[ReviewRegion, ...] = ()
    alarms: tuple[OrganAlarm, ...] = ()
    expected_wrong_ml: float | None = None
    confidence: float | None = None
    taken_out: tuple[RemovedIslands, ...] = ()
    warnings: tuple[str, ...] = ()
    timings_s: dict[str, float] = field(default_factory=dict)
    run_timings_s: dict[str, float] | None = None
    peak_memory_mb: float | None = None
    predicted_memory_mb: float | None = None
    scales: dict[str, MapScale] = field(default_factory=dict)
    provenance: Provenance
    corrections: tuple[CorrectionRecord, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    probabilities: tuple[str, ...] = ()
    reviewed: ReviewedSegmentation | None = None
    schema_version: int = SCHEMA_VERSION

    @classmethod
    def from_json(cls, value: Any) -> Report:
        """Read a report of this version or an earlier one, which has no `schema_version`.

        Raises:
            SchemaError: A value is missing or of another type, or the report is of a later version.
        """
        if not isinstance(value, Mapping):
            raise SchemaError("the report is not an object")
        version = value.get("schema_version", 1)
        if version not in range(1, SCHEMA_VERSION + 1):
            raise SchemaError(f"schema_version is {version!r:.20}; this program reads up to {SCHEMA_VERSION}")
        current = _from_version_1(value) if version == 1 else value
        return dataclass_json.from_json(cls, {**current, "schema_version": SCHEMA_VERSION})

    @classmethod
    def from_partial_json(cls, value: Any) -> Report:
        """Read a report of any version whose organs and provenance may be missing or incomplete; they are empty then.

        Raises:
            SchemaError: A value is of another type, or the report is of a later version.
        """
        if not isinstance(value, Mapping) or not isinstance(provenance := value.get("provenance", {}), Mapping):
            raise SchemaError("the report is not an object")
        stated = {name: item for name, item in provenance.items() if item is not None}
        return cls.from_json({"organs": (), **value, "provenance": {**_NO_PROVENANCE, **stated}})

    def to_json(self) -> dict[str, Any]:
        """The object of the file."""
        values = {item.name: dataclass_json.to_json(getattr(self, item.name)) for item in fields(self)}
        for name in ("organs", "review"):
            values[name] = [
                {k: v for k, v in item.items() if k not in _CALIBRATED or v is not None} for item in values[name]
            ]
        left_out = [name for name in _OPTIONAL if not values[name]]
        return {name: values[name] for name in ("schema_version", *values) if name not in left_out}


# Left out of the file where they are empty.
_OPTIONAL = ("alarms", "run_timings_s", "corrections", "alternatives", "probabilities", "reviewed")
# Left out of organs and regions without it.
_CALIBRATED = ("margin", "probability")
_NO_PROVENANCE = {"software": "", "version": "", "sha256": "", "model": "", "seed": 0, "samples": 0, "steps": 0}
_RENAMED_IN_2 = {"rival": "competing_organ", "rival_value": "competing_value"}


def _from_version_1(value: Mapping[str, Any]) -> dict[str, Any]:
    """A report of version 1 with the keys of version 2: regions named the competing organ `rival`."""
    review = value.get("review", ())
    if not isinstance(review, (list, tuple)) or not all(isinstance(region, Mapping) for region in review):
        raise SchemaError("review is not a list of objects")
    renamed = [{_RENAMED_IN_2.get(key, key): item for key, item in region.items()} for region in review]
    return {**value, "review": renamed}
