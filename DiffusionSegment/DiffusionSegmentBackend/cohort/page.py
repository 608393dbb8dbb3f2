"""The page of a cohort: one HTML file that opens without a network, with its values as JSON inside it."""

from __future__ import annotations

import base64
import hashlib
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..imaging.atomic_writes import write_text
from ..models.manifest import ModelDescription
from .folder import PAGE, CohortFolder
from .tables import Row

_HERE = Path(__file__).parent
_SHOWN = ("scan_id", "status", "review_priority", "expected_wrong_ml", "confidence", "alarms", "max_volume_z")
_SEARCHED = ("scan_id", "status", "code", "patient", "study", "path", "patient_id", "series_uid")


def write_page(folder: CohortFolder, rows: Sequence[Row], model: ModelDescription) -> None:
    """Write index.html.

    Args:
        folder: the cohort.
        rows: those of the table of scans, with `volumes` (mL by organ) and `first_region` where there is a result.
        model: the model, whose organs have a histogram each.

    Raises:
        DiffusionSegmentError: DISK_FULL or OUTPUT_UNWRITABLE.
    """
    write_text(folder.root / PAGE, page_html(page_data(rows, model)))


def page_data(rows: Sequence[Row], model: ModelDescription) -> dict[str, Any]:
    """The values that the page shows."""
    done = sum(row["status"] == "done" for row in rows)
    failed = sum(row["status"] == "failed" for row in rows)
    organs = []
    for label in model.labels:
        volumes = [
            [row["scan_id"], round(volume, 2)]
            for row in rows
            if (volume := row.get("volumes", {}).get(label.name)) is not None
        ]
        median = statistics.median(volume for _, volume in volumes) if volumes else None
        organs.append({"title": label.title, "volumes": volumes, "median": median})
    summary = f"{len(rows)} scans, {done} with a result, {failed} failed. Model {model.name} {model.version}."
    return {"summary": summary, "organs": organs, "scans": [_page_row(row) for row in rows]}


def _page_row(row: Row) -> dict[str, Any]:
    note = row.get("first_region") or row.get("reason") or ""
    words = [str(row[name]) for name in _SEARCHED if row.get(name)]
    return {
        **{name: row.get(name) for name in _SHOWN},
        "name": row.get("path") or row["scan_id"],
        "note": note,
        "text": " ".join([*words, note]).lower(),
    }


def page_html(data: dict[str, Any]) -> str:
    """The page with its values; its policy allows its own script and style alone, and pictures beside it."""
    style, script = (_resource(f"cohort_page.{suffix}") for suffix in ("css", "js"))
    policy = (
        f"default-src 'none'; img-src 'self' file:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    # Within a script element, only < can begin a tag or a comment.
    values = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    parts = {"@POLICY@": policy, "@STYLE@": style, "@SCRIPT@": script, "@DATA@": values}
    html = _resource("cohort_page.html")
    for name, text in parts.items():
        before, after = html.split(name)
        html = before + text + after
    return html


def _resource(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
