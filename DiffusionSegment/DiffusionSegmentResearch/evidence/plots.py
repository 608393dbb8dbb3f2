"""The plot of a result as PNG: one line per series, for Dice with the 95 % interval over cases as a band.

Bands are omitted with many series, because they would hide the lines; the table has the intervals.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from DiffusionSegmentBackend.evaluation.scores import Scores, case_means
from DiffusionSegmentBackend.evaluation.statistics import bootstrap_interval
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator, ScalarFormatter

from .results import DICE, DICE_BY_GROUP, Plot, Result, Row, restricted

_INCHES = (7.0, 4.0)
_DOTS_PER_INCH = 110
# The palette of Okabe and Ito for all kinds of colour vision; markers distinguish the series in grey.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# For the series beyond the last colour.
_STROKES = ("-", "--", ":")
_MAX_TICKS = 8
_LEGEND_COLUMNS = 3
_MAX_BANDS = 4
_MIN_GAP = 0.06


@dataclass(frozen=True)
class _Point:
    """A point of the plot, Dice in points; `low` and `high` are NaN without an interval."""

    x: float
    y: float
    low: float
    high: float


def write_plot(result: Result, path: Path) -> None:
    """Draw the result's plot into the PNG file `path`.

    Raises:
        ValueError: the result has no plot.
        OSError: the file cannot be written.
    """
    if result.plot is None:
        raise ValueError(f"{result.stem} has no plot.")
    figure = Figure(figsize=_INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    series = _series(result, result.plot)
    for n, (name, line) in enumerate(series.items()):
        _draw(axes, name, line, index=n, band=len(series) <= _MAX_BANDS)
    _format_axes(axes, result.plot, sorted({point.x for line in series.values() for point in line}))
    if any(series):
        # Above the axes, so that it covers no line.
        figure.legend(loc="outside upper left", ncols=min(len(series), _LEGEND_COLUMNS), frameon=False, fontsize=9)
    # Without the version of matplotlib in the metadata, the file is reproducible.
    figure.savefig(path, dpi=_DOTS_PER_INCH, format="png", metadata={"Software": None})


def _series(result: Result, plot: Plot) -> dict[str, list[_Point]]:
    """Points by series, in order of x; series in the order in which they first appear."""
    series: dict[str, list[_Point]] = {}
    for row in result.rows:
        for name, point in _points(row, result, plot):
            series.setdefault(name, []).append(point)
    return {name: sorted(line, key=lambda point: point.x) for name, line in series.items()}


def _points(row: Row, result: Result, plot: Plot) -> Iterator[tuple[str, _Point]]:
    """The points of a row, each with its series."""
    if row.x is None:
        return
    if plot.y == DICE_BY_GROUP:
        for group, organs in result.groups.items():
            yield from _dice_point(group, row.x, restricted(row.dice or {}, organs))
    elif plot.y == DICE:
        yield from _dice_point(row.series, row.x, row.dice or {})
    else:
        value = row.numbers.get(plot.y)
        if value is not None:
            yield row.series, _Point(row.x, value, math.nan, math.nan)


def _dice_point(name: str, x: float, scores: Scores) -> Iterator[tuple[str, _Point]]:
    values = [100 * value for value in case_means(scores).values()]
    if values:
        low, high = bootstrap_interval(values) if len(values) > 1 else (math.nan, math.nan)
        yield name, _Point(x, float(np.mean(values)), low, high)


def _draw(axes: Axes, name: str, line: Sequence[_Point], *, index: int, band: bool) -> None:
    colour = _COLOURS[index % len(_COLOURS)]
    x = [point.x for point in line]
    low, high = [point.low for point in line], [point.high for point in line]
    marker = _MARKERS[index % len(_MARKERS)]
    stroke = _STROKES[index // len(_COLOURS) % len(_STROKES)]
    y = [point.y for point in line]
    axes.plot(x, y, stroke, color=colour, marker=marker, markersize=5, linewidth=1.8, label=name)
    if not band:
        return
    if len(line) == 1:
        # The interval of a single point is drawn as a bar.
        axes.vlines(x, low, high, color=colour, linewidth=1.2)
    else:
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)


def _format_axes(axes: Axes, plot: Plot, positions: Sequence[float]) -> None:
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel(plot.y_label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    if not plot.log_x:
        if all(position.is_integer() for position in map(float, positions)):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return
    axes.set_xscale("log")
    if _fit_as_ticks(positions):
        axes.set_xticks(positions, [f"{position:g}" for position in positions])
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())


def _fit_as_ticks(positions: Sequence[float]) -> bool:
    """Whether labels at these positions of a logarithmic axis do not overlap."""
    if len(positions) > _MAX_TICKS:
        return False
    logs = np.log(np.asarray(positions))
    return len(positions) < 2 or bool(np.diff(logs).min() >= _MIN_GAP * (logs[-1] - logs[0]))
