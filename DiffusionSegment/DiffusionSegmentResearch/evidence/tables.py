"""A result's rows as a Markdown table: Dice in points (0 to 100), other numbers with three significant digits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from DiffusionSegmentBackend.evaluation.scores import case_means, shared_case_means
from DiffusionSegmentBackend.evaluation.statistics import bootstrap_interval, paired_difference
from DiffusionSegmentBackend.evaluation.tables import NOTHING

from .results import Result, Row, group_mean


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A GitHub table; bars and line breaks inside cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(text) for text in line) + " |" for line in lines) + "\n"


def result_table(result: Result) -> str:
    """The Dice columns if any row has Dice, then one column per number."""
    columns = [["row", *(row.name for row in result.rows)]]
    if any(row.dice for row in result.rows):
        columns += _dice_columns(result)
    names = list(dict.fromkeys(name for row in result.rows for name in row.numbers))
    columns += [[name, *(significant(row.numbers.get(name)) for row in result.rows)] for name in names]
    lines = [[column[n] for column in columns] for n in range(len(result.rows) + 1)]
    return markdown_table(lines[0], lines[1:])


def points(score: float | None, *, signed: bool = False) -> str:
    """0.678 as 67.8; `signed` for differences."""
    if score is None or math.isnan(score):
        return NOTHING
    # Adding zero turns -0.0 into 0.0.
    value = round(score * 100, 1) + 0.0
    return f"{value:+.1f}" if signed else f"{value:.1f}"


def significant(value: float | None) -> str:
    """Three significant digits; whole numbers below 1000 as they are."""
    if value is None or math.isnan(value):
        return NOTHING
    rounded = float(f"{value:.2e}")
    if rounded == 0:
        return "0"
    if not 1e-4 <= abs(rounded) < 1e7:
        return f"{value:.2e}"
    if value.is_integer():
        return f"{rounded:.0f}"
    return f"{rounded:.{max(0, 2 - math.floor(math.log10(abs(rounded))))}f}"


def _dice_columns(result: Result) -> list[list[str]]:
    rows = result.rows
    columns = [
        ["cases", *(str(len(case_means(row.dice))) if row.dice else NOTHING for row in rows)],
        ["mean Dice [95 % interval]", *(_mean_and_interval(row) for row in rows)],
        ["median", *(_median(row) for row in rows)],
    ]
    if any(row.surface_dice for row in rows):
        columns.append(["surface Dice 2 mm", *(_surface(row) for row in rows)])
    for group, organs in result.groups.items():
        columns.append([group, *(points(group_mean(row.dice, organs)) if row.dice else NOTHING for row in rows)])
    if result.reference is not None:
        reference = next(row for row in rows if row.name == result.reference)
        compared = [_difference(row, reference) for row in rows]
        columns.append([f"difference to {reference.name} [95 % interval]", *(text for text, _ in compared)])
        columns.append(["p", *(text for _, text in compared)])
    return columns


def _mean_and_interval(row: Row) -> str:
    values = list(case_means(row.dice or {}).values())
    if not values:
        return NOTHING
    # A single case has no interval.
    return points(float(np.mean(values))) + (_interval(*bootstrap_interval(values)) if len(values) > 1 else "")


def _interval(low: float, high: float, *, signed: bool = False) -> str:
    return f" [{points(low, signed=signed)}, {points(high, signed=signed)}]"


def _median(row: Row) -> str:
    values = list(case_means(row.dice or {}).values())
    return points(float(np.median(values))) if values else NOTHING


def _surface(row: Row) -> str:
    values = list(case_means(row.surface_dice or {}).values())
    return points(float(np.mean(values))) if values else NOTHING


def _difference(row: Row, reference: Row) -> tuple[str, str]:
    """The columns "difference" and "p" of a row."""
    if row is reference:
        return "reference", NOTHING
    pairs = shared_case_means(row.dice or {}, reference.dice or {})
    if not pairs:
        return NOTHING, NOTHING
    difference = paired_difference([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    text = points(difference.mean, signed=True)
    if difference.n > 1:
        text += _interval(difference.low, difference.high, signed=True)
    if difference.n < max(len(case_means(row.dice or {})), len(case_means(reference.dice or {}))):
        text += f", n = {difference.n}"
    return text, _probability(difference.p)


def _probability(p: float | None) -> str:
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
