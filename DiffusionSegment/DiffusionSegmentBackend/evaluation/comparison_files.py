"""A comparison on disk: strict JSON, and a CSV file with a row per measure and organ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import __version__
from .comparison import ComparedScore, Comparison
from .result_files import csv_text, write_pair
from .stored_evaluation import StoredEvaluation
from .summary import LEVEL, ROUNDS, SEED

FORMAT = "diffusion-segment comparison"
FORMAT_VERSION = 1
ALL_ORGANS = "all"
CSV_COLUMNS = (
    *("measure", "organ", "cases", "mean_a", "mean_b", "difference", "interval_low", "interval_high"),
    *("p", "p_holm"),
)
_DIGITS = 4


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Write the JSON file and the CSV file beside it, both or neither.

    Raises:
        DiffusionSegmentError: OUTPUT_UNWRITABLE or DISK_FULL.
    """
    write_pair(path, comparison_json(comparison), csv_text(CSV_COLUMNS, _csv_rows(comparison)))


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """The content of the JSON file, as docs/EVALUATION.md describes it."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "software": f"DiffusionSegment {__version__}",
        "a": _side(comparison.a, comparison.variant_a),
        "b": _side(comparison.b, comparison.variant_b),
        "cases": list(comparison.cases),
        "only_a": list(comparison.only_a),
        "only_b": list(comparison.only_b),
        "bootstrap": {"level": LEVEL, "rounds": ROUNDS, "seed": SEED},
        "test": "Wilcoxon signed-rank, two-sided",
        "measures": {
            measure: {**_values(rows[0]), "organs": {str(row.organ): _values(row) for row in rows[1:]}}
            for measure, rows in comparison.rows.items()
        },
    }


def _side(stored: StoredEvaluation, variant: str) -> dict[str, str]:
    return {"file": str(stored.path.resolve()), "model": stored.model, "variant": variant}


def _values(row: ComparedScore) -> dict[str, Any]:
    difference = row.difference
    known = difference.n > 1
    values = {
        "cases": difference.n,
        "mean_a": round(row.mean_a, _DIGITS),
        "mean_b": round(row.mean_b, _DIGITS),
        "difference": round(difference.mean, _DIGITS),
        "interval": [round(difference.low, _DIGITS), round(difference.high, _DIGITS)] if known else None,
        "p": difference.p,
    }
    return values if row.organ is None else {**values, "p_holm": row.p_holm}


def _csv_rows(comparison: Comparison) -> list[dict[str, Any]]:
    rows = []
    for measure, compared in comparison.rows.items():
        for row in compared:
            values = _values(row)
            low, high = values.pop("interval") or (None, None)
            named = {"measure": measure, "organ": row.organ or ALL_ORGANS}
            rows.append({**named, **values, "interval_low": low, "interval_high": high})
    return rows
