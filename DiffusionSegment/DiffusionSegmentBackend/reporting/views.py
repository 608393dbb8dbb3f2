"""Axial views of regions to review: a plane of scan, labels and uncertainty in radiological orientation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.image import AxesImage
from matplotlib.patheffects import AbstractPathEffect, withStroke
from numpy.typing import NDArray

from ..imaging.interpolated_plane import interpolated_plane
from ..imaging.volume import Volume, canonical
from ..schema.uncertainty_colours import UNCERTAINTY_HIGH, UNCERTAINTY_LOW, UNCERTAINTY_STOPS

SOFT_TISSUE_HU = (-160.0, 240.0)
_UNCERTAINTY_ALPHA = 0.45
# Separates the outlines from the overlay.
_DARK_EDGE: list[AbstractPathEffect] = [withStroke(linewidth=2.0, foreground="black")]
_CROSS_GAP = 0.06
_MARGIN = 0.035
_SCALE_BARS_MM = (50, 20, 10, 5, 2, 1)
UNCERTAINTY_COLOURS = LinearSegmentedColormap.from_list(
    "uncertainty", [(position, rgb) for position, *rgb in UNCERTAINTY_STOPS]
)

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class AxialView:
    """One axial plane: arrays are (y, x), rows run from anterior to posterior, columns to the patient's left.

    `spacing_mm` and `centre_mm` are (x, y), measured in the plane from the first pixel's centre; `height_mm` is the
    plane's position along the body axis (superior is positive); `window` are the scan's values shown black and white.
    """

    scan: NDArray[Any]
    labels: NDArray[Any]
    uncertainty: NDArray[Any]
    spacing_mm: tuple[float, float]
    centre_mm: tuple[float, float]
    height_mm: float
    window: tuple[float, float]


def axial_view(
    scan: Volume,
    labels: Volume,
    uncertainty: Volume,
    *,
    centre_lps_mm: tuple[float, float, float],
    window: tuple[float, float] | None = SOFT_TISSUE_HU,
) -> AxialView:
    """The plane nearest to a point, of scan and labels of one geometry in any orientation.

    `uncertainty` may have another geometry: it is interpolated at the voxels of the plane.

    Without a `window` (MR) the plane's own 1st and 99th percentiles are black and white.
    """
    turned, order = canonical(scan)
    x, y, z = np.linalg.solve(turned.index_to_lps, [*centre_lps_mm, 1.0])[:3]
    k = int(np.clip(np.round(z), 0, turned.array.shape[0] - 1))
    plane = turned.array[k]
    if window is None:
        low, high = np.percentile(plane, (1, 99))
        window = (float(low), float(high if high > low else low + 1.0))
    spacing = turned.spacing
    return AxialView(
        scan=plane,
        labels=order.apply(labels.array)[k],
        uncertainty=interpolated_plane(canonical(uncertainty)[0], turned, k),
        spacing_mm=(float(spacing[0]), float(spacing[1])),
        centre_mm=(float(x * spacing[0]), float(y * spacing[1])),
        height_mm=centre_lps_mm[2],
        window=window,
    )


def draw_view(
    axes: Axes, view: AxialView, colours: Mapping[int, Colour], *, field_mm: tuple[float, float], font_size: float = 7
) -> AxesImage:
    """Draw the view into axes: `field_mm` (width, height) around its centre, `colours` 0..1 by label value.

    Returns the overlay, for a colour bar.
    """
    (rows, columns), (dx, dy) = view.scan.shape, view.spacing_mm
    extent = (-0.5 * dx, (columns - 0.5) * dx, (rows - 0.5) * dy, -0.5 * dy)
    low, high = view.window
    axes.imshow(view.scan, cmap="gray", vmin=low, vmax=high, extent=extent, interpolation="bilinear")
    uncertainty = np.ma.masked_less(view.uncertainty, UNCERTAINTY_LOW)
    overlay = axes.imshow(
        uncertainty,
        cmap=UNCERTAINTY_COLOURS,
        vmin=0.0,
        vmax=UNCERTAINTY_HIGH,
        alpha=_UNCERTAINTY_ALPHA,
        extent=extent,
        interpolation="nearest",
    )
    _outline(axes, view, colours)
    left, right = _window_of(view.centre_mm[0], field_mm[0], extent[0], extent[1])
    top, bottom = _window_of(view.centre_mm[1], field_mm[1], extent[3], extent[2])
    _cross_hair(axes, view.centre_mm, left, right, top, bottom)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_facecolor("black")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    _mark_sides(axes, font_size)
    _scale_bar(axes, right - left, font_size)
    return overlay


def _window_of(centre: float, size: float, first: float, last: float) -> tuple[float, float]:
    """An interval of `size` around `centre`, moved to stay inside first..last; around their middle where too large."""
    if size >= last - first:
        middle = 0.5 * (first + last)
        return middle - 0.5 * size, middle + 0.5 * size
    start = min(max(centre - 0.5 * size, first), last - size)
    return start, start + size


def _outline(axes: Axes, view: AxialView, colours: Mapping[int, Colour]) -> None:
    """The outlines of the organs. A rim of zeros closes those at the plane's border."""
    x = (np.arange(view.labels.shape[1] + 2) - 1) * view.spacing_mm[0]
    y = (np.arange(view.labels.shape[0] + 2) - 1) * view.spacing_mm[1]
    for value in np.unique(view.labels[view.labels > 0]):
        mask = np.pad((view.labels == value).astype(np.float32), 1)
        line = axes.contour(x, y, mask, levels=[0.5], colors=[colours.get(int(value), (1.0, 1.0, 1.0))], linewidths=1.1)
        line.set_path_effects(_DARK_EDGE)


def _cross_hair(axes: Axes, centre: tuple[float, float], left: float, right: float, top: float, bottom: float) -> None:
    """Thin lines with a gap around the centre."""
    x, y = centre
    gap = _CROSS_GAP * min(right - left, bottom - top)
    style: dict[str, Any] = {"colors": "white", "linewidth": 0.6, "alpha": 0.8}
    axes.hlines([y, y], [left, x + gap], [x - gap, right], **style)
    axes.vlines([x, x], [top, y + gap], [y - gap, bottom], **style)


def _mark_sides(axes: Axes, font_size: float) -> None:
    style: dict[str, Any] = {"transform": axes.transAxes, "color": "white", "fontsize": font_size, "fontweight": "bold"}
    axes.text(_MARGIN, 0.5, "R", ha="left", va="bottom", **style)
    axes.text(1 - _MARGIN, 0.5, "L", ha="right", va="bottom", **style)
    axes.text(0.5, 1 - _MARGIN, " A", ha="left", va="top", **style)
    axes.text(0.5, _MARGIN, " P", ha="left", va="bottom", **style)


def _scale_bar(axes: Axes, width_mm: float, font_size: float) -> None:
    """A bar of a round length, at most a third of the width."""
    length = next((mm for mm in _SCALE_BARS_MM if mm <= width_mm / 3), _SCALE_BARS_MM[-1])
    share = length / width_mm
    axes.plot([_MARGIN, _MARGIN + share], [_MARGIN, _MARGIN], transform=axes.transAxes, color="white", linewidth=1.2)
    corner = (_MARGIN, 1.4 * _MARGIN)
    axes.text(*corner, f"{length} mm", transform=axes.transAxes, color="white", fontsize=font_size, va="bottom")
