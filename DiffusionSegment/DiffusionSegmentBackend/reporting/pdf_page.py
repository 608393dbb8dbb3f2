"""The case report as a PDF of one A4 page, with the text of the HTML."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from ..schema.review_state import OrganState
from ..schema.uncertainty_colours import UNCERTAINTY_HIGH, UNCERTAINTY_LOW
from .content import NOT_FOR_DIAGNOSIS, TITLE, CaseReport, Finding, OrganRow
from .fonts import MISSING, families_for, shown
from .views import draw_view

_PAGE_MM = (210.0, 297.0)
_LEFT, _RIGHT = 14.0, 196.0
_TOP, _BOTTOM = 14.0, 283.0
_GAP = 4.0
_ROW_MM, _TABLE_MM = 4.8, 72.0
_LINE_MM = 3.4
_CAPTION_MM = 11.8
_CAPTION_LINES, _CAPTION_CHARACTERS = 2, 62
# What fits between the margins in the fonts that are drawn: notes in 7.5, provenance in 6.8 points.
_FACT_CHARACTERS, _NOTE_CHARACTERS, _PROVENANCE_CHARACTERS = 122, 118, 122
_FACT_MM = 4.0
_PICTURE_MM = 67.0
_FIELD_MM = 180.0
_PAIR_FIELD_MM = 110.0
_INK, _GREY, _PALE = "#1d2530", "#56606e", "#e2e6eb"
_GREEN = "#1b6e3c"
_STATE_COLOURS = {OrganState.ACCEPTED.value: _GREEN, "corrected": _GREEN}
_ALARM_STATES = {OrganState.NEEDS_WORK.value, OrganState.FLAGGED.value}
_ALARM = "#a33a00"


def write_pdf_page(report: CaseReport, path: Path) -> None:
    """Write the page.

    Raises:
        OSError: the file cannot be written.
    """
    figure = pdf_figure(report)
    with PdfPages(path, metadata={"Title": TITLE, "Creator": "DiffusionSegment"}) as pages:
        pages.savefig(figure)


def pdf_figure(report: CaseReport) -> Figure:
    """The page as a matplotlib figure of A4 size."""
    page = _Page()
    y = _header(page, report)
    y = _table(page, report, y)
    y = _warnings(page, [*report.warnings, *_missing_letters(report)], y)
    y = _corrections(page, report.corrections, y)
    bottom = _provenance(page, report)
    _findings(page, report, y, bottom)
    return page.figure


class _Page:
    """An A4 figure with coordinates in mm from the upper left corner."""

    def __init__(self) -> None:
        width, height = _PAGE_MM
        self.figure = Figure(figsize=(width / 25.4, height / 25.4))
        FigureCanvasAgg(self.figure)

    def text(self, x: float, y: float, words: str, *, size: float = 8, colour: str = _INK, **style: Any) -> None:
        """Draw text in any script with its upper left corner (or `ha`) at x, y; dollar signs do not start formulas."""
        self.figure.text(
            x / _PAGE_MM[0],
            1 - y / _PAGE_MM[1],
            shown(words),
            fontfamily=families_for(words),
            fontsize=size,
            color=colour,
            va="top",
            parse_math=False,
            **style,
        )

    def rule(self, y: float, *, colour: str = _INK, width: float = 1.2) -> None:
        """Draw a line across the page."""
        x = (_LEFT / _PAGE_MM[0], _RIGHT / _PAGE_MM[0])
        height = 1 - y / _PAGE_MM[1]
        self.figure.add_artist(Line2D(x, (height, height), color=colour, linewidth=width))

    def box(self, x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
        """The rectangle in the figure's own coordinates: left, bottom, width, height."""
        return x / _PAGE_MM[0], 1 - (y + height) / _PAGE_MM[1], width / _PAGE_MM[0], height / _PAGE_MM[1]


def _header(page: _Page, report: CaseReport) -> float:
    page.text(_LEFT, _TOP, TITLE, size=15, fontweight="bold")
    page.text(_LEFT, _TOP + 7, textwrap.shorten(report.scan_name, 90, placeholder=" ..."), size=10)
    y = _TOP + 12
    for line in textwrap.wrap("     ".join(f"{name}: {value}" for name, value in report.examination), _FACT_CHARACTERS):
        page.text(_LEFT, y, line)
        y += _FACT_MM
    page.text(_LEFT, y, "     ".join(f"{name}: {value}" for name, value in report.facts), colour=_GREY)
    page.rule(y + 5)
    return y + 7


def _table(page: _Page, report: CaseReport, y: float) -> float:
    """Draw the table of organs; rows are smaller for models with many organs."""
    step = min(_ROW_MM, _TABLE_MM / (len(report.rows) + 1))
    size = 8 * step / _ROW_MM
    heads, columns = _table_columns(report)
    for head, x in zip(heads, columns, strict=True):
        page.text(x, y, head, size=size, colour=_GREY, ha="left" if x == _LEFT else "right", fontweight="bold")
    page.text(168.0, y, "Review", size=size, colour=_GREY, fontweight="bold")
    for row in report.rows:
        y += step
        page.rule(y - 0.22 * step, colour=_PALE, width=0.5)
        _table_row(page, row, y, columns=columns, size=size)
    if report.margins:
        y += 0.5 * step
        for line in textwrap.wrap(report.margins, _PROVENANCE_CHARACTERS):
            y += _LINE_MM
            page.text(_LEFT, y, line, size=6.8, colour=_GREY)
    return y + step


def _table_columns(report: CaseReport) -> tuple[list[str], list[float]]:
    """The headings of the columns up to the review, and their positions: the left edge of the first, right edges."""
    with_before = any(row.before is not None for row in report.rows)
    heads = ["Organ", *(["Before (mL)"] if with_before else []), "Volume (mL)", "90 % interval (mL)", "Confidence"]
    if report.margins:
        return [*heads, "Margin"], [_LEFT, *([76.0] if with_before else []), 94.0, 121.0, 138.0, 164.0]
    return heads, [_LEFT, *([84.0] if with_before else []), 107.0, 138.0, 160.0]


def _table_row(page: _Page, row: OrganRow, y: float, *, columns: list[float], size: float) -> None:
    red, green, blue = (v / 255 for v in row.colour)
    left, bottom, width, height = page.box(_LEFT, y + 0.1, 0.34 * size, 0.34 * size)
    page.figure.add_artist(Rectangle((left, bottom), width, height, color=(red, green, blue), linewidth=0))
    ink = _GREY if row.confidence == "-" else _INK
    page.text(_LEFT + 5, y, row.title, size=size, colour=ink)
    if row.corrected:
        # Beside the titles, of which the longest takes half of the column; the next one is 12 to 17 mm wide.
        right = columns[1] - (12.0 if row.before is not None else 17.0)
        page.text(right, y, f"corrected {row.corrected}", size=0.8 * size, colour=_GREEN, ha="right")
    values = [*([row.before] if row.before is not None else []), row.volume, row.interval, row.confidence, row.margin]
    for value, x in zip(values, columns[1:], strict=False):
        page.text(x, y, value, size=size, colour=ink, ha="right")
    page.text(168.0, y, row.state.value, size=size, colour=_state_colour(row.state.value))


def _state_colour(state: str) -> str:
    return _ALARM if state in _ALARM_STATES else _STATE_COLOURS.get(state, _GREY)


def _missing_letters(report: CaseReport) -> list[str]:
    """A note if no font of this computer has some of the characters."""
    names = [
        report.scan_name,
        *(value for _, value in report.examination),
        *(row.title for row in report.rows),
        *(finding.sentence for finding in report.findings),
    ]
    if all(shown(name) == name for name in names):
        return []
    return [f"Characters missing from the fonts of this computer are shown as {MISSING}; the HTML report has them."]


def _warnings(page: _Page, warnings: Sequence[str], y: float) -> float:
    for warning in warnings:
        for line in textwrap.wrap(f"Note: {warning}", _NOTE_CHARACTERS):
            page.text(_LEFT, y, line, size=7.5, colour=_ALARM)
            y += _LINE_MM
    return y + 1.5


def _corrections(page: _Page, corrections: Sequence[str], y: float) -> float:
    if not corrections:
        return y
    page.text(_LEFT, y, "Corrections", size=9, fontweight="bold")
    y += 4.5
    for correction in corrections:
        for line in textwrap.wrap(correction, 130, subsequent_indent="    "):
            page.text(_LEFT, y, line, size=7)
            y += _LINE_MM
    return y + 1.5


def _provenance(page: _Page, report: CaseReport) -> float:
    """Draw the provenance at the bottom of the page; returns its upper edge."""
    lines = textwrap.wrap(
        ".  ".join(f"{name}: {value}" for name, value in report.provenance) + ".", _PROVENANCE_CHARACTERS
    )
    begin = _BOTTOM - 5 - len(lines) * _LINE_MM
    for n, line in enumerate(lines):
        page.text(_LEFT, begin + n * _LINE_MM, line, size=6.8, colour=_GREY)
    page.rule(_BOTTOM - 4.5)
    page.text(_LEFT, _BOTTOM - 3.5, NOT_FOR_DIAGNOSIS, size=9, fontweight="bold")
    return begin


def _findings(page: _Page, report: CaseReport, y: float, bottom: float) -> None:
    """Draw the pictures in two columns in the remaining space, with the legend below."""
    count = len(report.findings)
    if not count:
        page.text(_LEFT, y, "The model names no region to review.", size=8)
        return
    heading = f"Regions to review: the {count} most uncertain of {report.regions}"
    page.text(_LEFT, y, heading, size=9, fontweight="bold")
    y += 5.5
    lines = (count + 1) // 2
    height = min(_PICTURE_MM, (bottom - 7 - y) / lines - _CAPTION_MM)
    width = (_RIGHT - _LEFT - _GAP) / 2
    for n, finding in enumerate(report.findings):
        corner = (_LEFT + (n % 2) * (width + _GAP), y + (n // 2) * (height + _CAPTION_MM))
        overlay = _finding(page, finding, report, corner=corner, size=(width, height))
    _legend(page, report, overlay, y + lines * (height + _CAPTION_MM))


def _finding(
    page: _Page, finding: Finding, report: CaseReport, *, corner: tuple[float, float], size: tuple[float, float]
) -> AxesImage:
    (x, y), (width, height) = corner, size
    count = len(finding.views)
    pane = (width - (count - 1)) / count
    across = _PAIR_FIELD_MM if count > 1 else _FIELD_MM
    for n, (heading, view) in enumerate(finding.views):
        axes = page.figure.add_axes(page.box(x + n * (pane + 1), y, pane, height))
        overlay = draw_view(axes, view, report.colours, field_mm=(across, across * height / pane), font_size=6)
        axes.text(0.035, 0.965, heading, transform=axes.transAxes, color="white", fontsize=7, va="top")
    y += height + 0.8
    caption = f"{finding.number}. {finding.sentence}"
    for line in textwrap.wrap(caption, _CAPTION_CHARACTERS, max_lines=_CAPTION_LINES, placeholder=" ..."):
        page.text(x, y, line, size=7.2)
        y += 3.2
    page.text(x, y, f"{finding.state} ({finding.position})", size=6.8, colour=_state_colour(finding.state))
    return overlay


def _legend(page: _Page, report: CaseReport, overlay: AxesImage, y: float) -> None:
    page.text(_LEFT, y, f"{report.window}. Outlines in the organs' colours. Uncertainty:", size=6.8, colour=_GREY)
    axes = page.figure.add_axes(page.box(_LEFT + 90.0, y + 0.4, 36.0, 1.8))
    bar = Colorbar(axes, overlay, orientation="horizontal", ticks=[0, UNCERTAINTY_LOW, UNCERTAINTY_HIGH])
    bar.outline.set_visible(False)
    axes.tick_params(labelsize=5.5, length=1.5, pad=1, colors=_GREY)
    scale = f"not shown below {UNCERTAINTY_LOW}; entropy, 0 to 1"
    page.text(_LEFT + 129.0, y, scale, size=6.8, colour=_GREY)
