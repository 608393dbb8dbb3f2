"""A figure of time and memory over the number of slices and over K x S."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .record import BenchmarkRow

_OURS = re.compile(r"DiffusionSegment, K = (\d+), S = (\d+)$")
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")


def can_draw(rows: Sequence[BenchmarkRow]) -> bool:
    """Whether our own rows cover at least two scans."""
    return len({row.scan for row, _ in _ours(rows)}) > 1


def draw_growth(rows: Sequence[BenchmarkRow], path: Path) -> None:
    """Draw our rows into the PNG file `path`.

    Raises:
        OSError: the file cannot be written.
    """
    ours = _ours(rows)
    figure = Figure(figsize=(10.0, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    time, evaluations, memory = figure.subplots(1, 3)
    by_method, by_scan = _grouped(ours, lambda row, _: row.method), _grouped(ours, lambda row, _: row.scan[0])
    for n, (method, group) in enumerate(by_method.items()):
        label = str(method).removeprefix("DiffusionSegment, ")
        _line(time, n, label, [(row.scan[0], row.click_s) for row, _ in group])
        _line(memory, n, label, [(row.scan[0], row.host_mb and row.host_mb / 1024) for row, _ in group])
    for n, (slices, group) in enumerate(by_scan.items()):
        _line(evaluations, n, f"{slices} slices", [(passes, row.click_s) for row, passes in group])
    _label_axes(time, "slices of 512 x 512", "warm click, s")
    _label_axes(evaluations, "K x S", "warm click, s")
    _label_axes(memory, "slices of 512 x 512", "host memory, GiB")
    # Without the version of matplotlib in the metadata, the file is reproducible.
    figure.savefig(path, dpi=110, format="png", metadata={"Software": None})


def _ours(rows: Sequence[BenchmarkRow]) -> list[tuple[BenchmarkRow, int]]:
    """Our rows, each with its K x S."""
    return [(row, int(match[1]) * int(match[2])) for row in rows if (match := _OURS.match(row.method))]


def _grouped(
    ours: Sequence[tuple[BenchmarkRow, int]], key: Callable[[BenchmarkRow, int], object]
) -> dict[object, list[tuple[BenchmarkRow, int]]]:
    groups: dict[object, list[tuple[BenchmarkRow, int]]] = {}
    for row, passes in ours:
        groups.setdefault(key(row, passes), []).append((row, passes))
    return groups


def _line(axes: Axes, number: int, label: str, points: Sequence[tuple[float, float | None]]) -> None:
    known = sorted((x, y) for x, y in points if y is not None)
    axes.plot(*zip(*known, strict=True), "o-", color=_COLOURS[number % len(_COLOURS)], label=label)


def _label_axes(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small")
