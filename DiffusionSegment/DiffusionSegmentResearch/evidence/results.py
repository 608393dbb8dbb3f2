"""Result files of the evidence page, read and validated."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.evaluation.scores import Scores

KIND = "evidence"
DICE = "dice"
DICE_BY_GROUP = "dice by group"


@dataclass(frozen=True)
class Row:
    """One measured variant; `x` is its position in the plot, in the line `series`."""

    name: str
    dice: Scores | None
    surface_dice: Scores | None
    numbers: dict[str, float | None]
    x: float | None
    series: str


@dataclass(frozen=True)
class Plot:
    """The plot: `y` is "dice", "dice by group" (a line per group of organs), or the name of a number."""

    x_label: str
    log_x: bool
    y: str
    y_label: str


@dataclass(frozen=True)
class Claim:
    """A claim: what was required, what was measured, and whether that suffices.

    `brief` says for the summary of the page what `here` is; empty for a claim that is not in it.
    """

    claim: str
    asked: str
    here: str
    holds: bool
    brief: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture of a study: its file beside the result files, and its caption."""

    file: str
    caption: str


@dataclass(frozen=True)
class Result:
    """One result file; `stem` is the file's name without .json."""

    stem: str
    order: int
    title: str
    question: str
    protocol: str
    command: str
    commit: str
    seed: int
    budget: str
    hardware: str
    reference: str | None
    groups: dict[str, list[str]]
    rows: list[Row]
    plot: Plot | None
    answer: str
    claims: list[Claim]
    shortfalls: list[str]
    pictures: list[Picture]


def read_result(path: Path) -> Result:
    """Read and check one result file.

    Raises:
        DiffusionSegmentError: INPUT_MISSING, INPUT_UNREADABLE (not JSON), or INPUT_VALUES (a key is missing or wrong).
    """
    fields = _Fields(_load(path), path)
    if fields.text("kind") != KIND:
        raise fields.error('"kind" must be "evidence"')
    return _result(fields)


def read_results(folder: Path) -> list[Result]:
    """All files of `folder` whose "kind" is "evidence", in their `order` (same order: by file name).

    Raises:
        DiffusionSegmentError: INPUT_MISSING when there is none, and as for `read_result`.
    """
    loaded = [(path, _load(path)) for path in sorted(folder.glob("*.json"))]
    results = [
        _result(_Fields(values, path))
        for path, values in loaded
        if isinstance(values, dict) and values.get("kind") == KIND
    ]
    if not results:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_MISSING,
            f"{folder} holds no result file.",
            hint='Name a folder of JSON files with "kind": "evidence".',
        )
    return sorted(results, key=lambda result: (result.order, result.stem))


def restricted(scores: Scores, organs: Iterable[str]) -> Scores:
    """The scores of `organs` alone."""
    wanted = set(organs)
    return {case: {o: value for o, value in known.items() if o in wanted} for case, known in scores.items()}


def group_mean(scores: Scores, organs: Iterable[str]) -> float | None:
    """Mean over `organs` of the mean over cases that show the organ, 0..1; None if no case shows any."""
    by_organ = [[case[organ] for case in scores.values() if organ in case] for organ in organs]
    means = [float(np.mean(values)) for values in by_organ if values]
    return float(np.mean(means)) if means else None


class _Fields:
    """A JSON object whose values are checked on access; `where` is its path inside the file."""

    def __init__(self, values: Any, file: Path, where: str = "") -> None:
        self.file, self.where = file, where
        if not isinstance(values, dict):
            raise self.error("an object was expected")
        self.values: dict[str, Any] = values

    def error(self, problem: str) -> DiffusionSegmentError:
        source = f"{self.file}, {self.where}" if self.where else str(self.file)
        return DiffusionSegmentError(
            ErrorCode.INPUT_VALUES, f"{source}: {problem}.", hint="Repair the result file or write it again."
        )

    def has(self, key: str) -> bool:
        return self.values.get(key) is not None

    def take(self, key: str, kinds: tuple[type, ...], wanted: str) -> Any:
        if not self.has(key):
            raise self.error(f'"{key}" is missing')
        value = self.values[key]
        # In Python bool is a subclass of int, so it has to be excluded.
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise self.error(f'"{key}" must be {wanted}')
        return value

    def text(self, key: str) -> str:
        value: str = self.take(key, (str,), "text")
        if not value.strip():
            raise self.error(f'"{key}" is empty')
        return value.strip()

    def optional_text(self, key: str) -> str | None:
        return self.text(key) if self.has(key) else None

    def integer(self, key: str) -> int:
        return int(self.take(key, (int,), "a whole number"))

    def truth(self, key: str) -> bool:
        return bool(self.take(key, (bool,), "true or false"))

    def number(self, key: str) -> float | None:
        """A finite number; None for null, NaN and a missing key."""
        if not self.has(key):
            return None
        value = float(self.take(key, (int, float), "a number"))
        if math.isinf(value):
            raise self.error(f'"{key}" is infinite')
        return None if math.isnan(value) else value

    def inside(self, key: str) -> _Fields:
        """The object under `key`; an empty one if the key is missing."""
        where = f"{self.where}, {key}" if self.where else key
        return _Fields(self.values[key] if self.has(key) else {}, self.file, where)

    def objects(self, key: str) -> list[_Fields]:
        return [_Fields(item, self.file, f"{key}[{n}]") for n, item in enumerate(self.take(key, (list,), "a list"))]

    def texts(self, key: str) -> list[str]:
        items: list[Any] = self.take(key, (list,), "a list of texts")
        if not all(isinstance(item, str) for item in items):
            raise self.error(f'"{key}" must be a list of texts')
        return list(items)


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_MISSING, f"{path} does not exist.", hint="Check the path."
        ) from error
    except (OSError, ValueError) as error:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_UNREADABLE, f"{path} cannot be read as JSON: {error}.", hint="Write the file again."
        ) from error


def _result(fields: _Fields) -> Result:
    groups = fields.inside("groups")
    result = Result(
        stem=fields.file.stem,
        order=fields.integer("order"),
        title=fields.text("title"),
        question=fields.text("question"),
        protocol=fields.text("protocol"),
        command=fields.text("command"),
        commit=fields.text("commit"),
        seed=fields.integer("seed"),
        budget=fields.text("budget"),
        hardware=fields.text("hardware"),
        reference=fields.optional_text("reference"),
        groups={name: groups.texts(name) for name in groups.values},
        rows=[_row(row) for row in fields.objects("rows")],
        plot=_plot(fields.inside("plot")) if fields.has("plot") else None,
        answer=fields.text("answer"),
        claims=[_claim(claim) for claim in fields.objects("claims")] if fields.has("claims") else [],
        shortfalls=fields.texts("shortfalls"),
        pictures=[_picture(item) for item in fields.objects("pictures")] if fields.has("pictures") else [],
    )
    _check_rows(result, fields)
    _check_plot(result, fields)
    return result


def _row(fields: _Fields) -> Row:
    numbers = fields.inside("numbers")
    row = Row(
        name=fields.text("name"),
        dice=_scores(fields.inside("dice")) if fields.has("dice") else None,
        surface_dice=_scores(fields.inside("surface_dice")) if fields.has("surface_dice") else None,
        numbers={name: numbers.number(name) for name in numbers.values},
        x=fields.number("x"),
        series=fields.optional_text("series") or "",
    )
    if row.dice is None and not row.numbers:
        raise fields.error('neither "dice" nor "numbers" is there')
    return row


def _scores(fields: _Fields) -> Scores:
    scores: Scores = {}
    for case in fields.values:
        organs = fields.inside(case)
        values = {organ: organs.number(organ) for organ in organs.values}
        scores[case] = {organ: value for organ, value in values.items() if value is not None}
        for organ, value in scores[case].items():
            if not 0 <= value <= 1:
                raise organs.error(f'"{organ}" is {value:g}, and a Dice lies in 0..1')
    return scores


def _plot(fields: _Fields) -> Plot:
    return Plot(fields.text("x_label"), fields.truth("log_x"), fields.text("y"), fields.text("y_label"))


def _picture(fields: _Fields) -> Picture:
    picture = Picture(fields.text("file"), fields.text("caption"))
    if not (fields.file.parent / picture.file).is_file():
        raise fields.error(f"{picture.file} does not lie beside the result file")
    return picture


def _claim(fields: _Fields) -> Claim:
    return Claim(
        fields.text("claim"),
        fields.text("asked"),
        fields.text("here"),
        fields.truth("holds"),
        fields.optional_text("brief") or "",
    )


def _check_rows(result: Result, fields: _Fields) -> None:
    by_name: Mapping[str, Row] = {row.name: row for row in result.rows}
    if not by_name or len(by_name) != len(result.rows):
        raise fields.error('"rows" must hold at least one row, each with its own name')
    if result.reference is not None and (result.reference not in by_name or not by_name[result.reference].dice):
        raise fields.error(f'"reference" names "{result.reference}", which is no row with Dice')
    # A misspelt organ would silently be omitted from the mean of its group.
    known = {organ for row in fields.values["rows"] for case in (row.get(DICE) or {}).values() for organ in case or {}}
    for group, organs in result.groups.items():
        unknown = sorted(set(organs) - known)
        if unknown:
            raise fields.error(f'group "{group}" names {", ".join(unknown)}, which no row\'s Dice has')


def _check_plot(result: Result, fields: _Fields) -> None:
    if result.plot is None:
        return
    plot = result.plot
    by_dice = plot.y in (DICE, DICE_BY_GROUP)
    drawn = [row for row in result.rows if row.x is not None and (row.dice if by_dice else plot.y in row.numbers)]
    if plot.y == DICE_BY_GROUP and not result.groups:
        raise fields.error('a plot by group needs "groups"')
    if not drawn:
        raise fields.error(f'the plot needs rows with "x" and "{plot.y}"')
    if plot.log_x and any(row.x is not None and row.x <= 0 for row in drawn):
        raise fields.error('a logarithmic plot needs "x" above 0')
