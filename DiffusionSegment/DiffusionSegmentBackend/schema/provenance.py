"""Where a result comes from: software, model, the plan of the run, and the files that were read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from .dataclass_json import SchemaError, from_json, to_json
from .run_options import RESULT_OPTIONS, RunPlan

# Options that the plan states beside those that decide the voxels.
_STATED = ("model", *RESULT_OPTIONS, "device", "precision")


@dataclass(frozen=True, kw_only=True)
class Software:
    """The programs and the weights that made a result."""

    software: str
    version: str
    sha256: str
    torch: str = ""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The files that a run read, and the DICOM series; None where they are not known or not stated."""

    input: str | None = None
    model_folder: str | None = None
    presegmentation: str | None = None
    series: str | None = None
    series_uid: str | None = None


# The parts of a source that are paths on the computer of the run, which no exported object contains.
LOCAL_PATHS = ("input", "model_folder", "presegmentation")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """`provenance` of report.json, in JSON one object: `software`, `version` of the model and `sha256` of its weights,
    every option of the plan that decides the voxels, model, device, precision, and the source.
    """

    software: Software
    plan: RunPlan
    source: Source = Source()

    @classmethod
    def from_json(cls, value: Any) -> Provenance:
        """Read the flat object.

        Raises:
            SchemaError: A value is missing or of another type.
        """
        if not isinstance(value, Mapping):
            raise SchemaError("provenance is not an object")
        # A null stands for the default, as for every value that a run did not have.
        stated = {name: value[name] for name in _STATED if value.get(name) is not None}
        for name in ("model", "seed", "samples", "steps"):
            if name not in stated:
                raise SchemaError(f"provenance has no {name}")
        return cls(
            software=from_json(Software, value, path="provenance"),
            plan=from_json(RunPlan, stated, path="provenance"),
            source=from_json(Source, value, path="provenance"),
        )

    def to_json(self) -> dict[str, Any]:
        """The flat object; parts of the source that are not known are left out."""
        software = to_json(self.software)
        torch = software.pop("torch")
        stated = {name: to_json(getattr(self.plan, name)) for name in _STATED}
        source = {name: text for name, text in to_json(self.source).items() if text is not None}
        return {
            "software": software.pop("software"),
            "model": stated.pop("model"),
            **software,
            **stated,
            "torch": torch,
            **source,
        }

    @classmethod
    def json_properties(cls, schema_of: Callable[[Any], dict[str, Any]]) -> tuple[dict[str, Any], list[str]]:
        """Properties and required keys of the flat object, for JSON Schema."""
        hints = {name: hint for kind in (Software, RunPlan, Source) for name, hint in get_type_hints(kind).items()}
        names = (*(item.name for item in fields(Software)), *_STATED, *(item.name for item in fields(Source)))
        optional = {"organs", "region"}
        properties = {name: schema_of(hints[name] | None if name in optional else hints[name]) for name in names}
        return properties, ["software", "model", "version", "sha256", "seed", "samples", "steps"]
