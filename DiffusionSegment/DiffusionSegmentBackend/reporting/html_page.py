"""The case report as one self-contained HTML file with embedded pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..schema.uncertainty_colours import UNCERTAINTY_HIGH, UNCERTAINTY_LOW
from .content import NOT_FOR_DIAGNOSIS, TITLE, CaseReport, Finding
from .views import UNCERTAINTY_COLOURS, Colour, draw_view

_TEMPLATE = "case_report.html.jinja"
_FIELD_MM = (180.0, 135.0)
_PAIR_FIELD_MM = (100.0, 135.0)
_PANE_INCHES = 3.0
_DOTS_PER_INCH = 160
_GRADIENT_STOPS = 13


def html_page(report: CaseReport) -> str:
    """The whole page; all text is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(_TEMPLATE).render(
        title=TITLE,
        report=report,
        pictures=[picture_url(finding, report.colours) for finding in report.findings],
        uncertainty_colours=_gradient(),
        uncertainty_low=UNCERTAINTY_LOW,
        uncertainty_high=UNCERTAINTY_HIGH,
        not_for_diagnosis=NOT_FOR_DIAGNOSIS,
    )


def picture_url(finding: Finding, colours: Mapping[int, Colour]) -> str:
    """The finding's views side by side as PNG in a data URL."""
    width, height = _PAIR_FIELD_MM if len(finding.views) > 1 else _FIELD_MM
    figure = Figure(figsize=(_PANE_INCHES * width / height * len(finding.views), _PANE_INCHES))
    FigureCanvasAgg(figure)
    share = 1.0 / len(finding.views)
    for n, (heading, view) in enumerate(finding.views):
        axes = figure.add_axes((n * share + 0.004 * n, 0.0, share - 0.004 * n, 1.0))
        draw_view(axes, view, colours, field_mm=(width, height))
        axes.text(0.035, 0.965, heading, transform=axes.transAxes, color="white", fontsize=8, va="top")
    file = io.BytesIO()
    # Without the program's version, for reproducible bytes.
    figure.savefig(file, dpi=_DOTS_PER_INCH, format="png", metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _gradient() -> str:
    """The overlay's colours from low to high as CSS colours."""
    stops = UNCERTAINTY_COLOURS(np.linspace(UNCERTAINTY_LOW / UNCERTAINTY_HIGH, 1, _GRADIENT_STOPS))
    return ", ".join("#" + "".join(f"{round(255 * v):02x}" for v in stop[:3]) for stop in stops)
