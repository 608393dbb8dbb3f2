"""Which patient, study and series a scan shows, for the page and the line that a reader looks at; never for a log or
report.json. Standard library only: Slicer's process and the backend share it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..errors import one_line

_DATE = re.compile(r"(\d{4})[.:-]?(\d{2})[.:-]?(\d{2})")


@dataclass(frozen=True)
class Examination:
    """Values as they are read: a name in natural order, an ISO date; empty where DICOM has none."""

    patient_name: str = ""
    patient_id: str = ""
    study_date: str = ""
    series_description: str = ""

    @classmethod
    def of_dicom(cls, values: Mapping[str, Any]) -> Examination:
        """From the values of a DICOM header by field name; whatever is no text counts as empty."""
        texts = {item.name: one_line(value) for item in fields(cls) if isinstance(value := values.get(item.name), str)}
        name, date = person_name(texts.pop("patient_name", "")), iso_date(texts.pop("study_date", ""))
        return cls(patient_name=name, study_date=date, **texts)


def person_name(value: str) -> str:
    """A DICOM person name as it is read: "Doe^Jane^^Dr" becomes "Dr Doe, Jane"; another script follows in brackets."""
    written = [spelled for group in value.split("=")[:2] if (spelled := _spelled(group))]
    return written[0] + (f" ({written[1]})" if len(written) > 1 else "") if written else ""


def _spelled(group: str) -> str:
    family, given, middle, prefix, suffix = ([part.strip() for part in group.split("^")] + [""] * 5)[:5]
    forenames = " ".join(part for part in (given, middle) if part)
    surname = " ".join(part for part in (prefix, family) if part)
    return ", ".join(part for part in (surname, forenames, suffix) if part)


def iso_date(value: str) -> str:
    """A DICOM date, 20260504 or 2026.05.04, as 2026-05-04; anything else as it is."""
    match = _DATE.fullmatch(value.strip())
    return "-".join(match.groups()) if match else value.strip()
