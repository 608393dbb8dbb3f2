"""One picture of a result: axial, coronal, sagittal and 3D, outlines, uncertainty, legend.

Drawn by Slicer's own views where off-screen OpenGL works, by matplotlib (slices only) where it does not.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from DiffusionSegmentBackend.imaging.volume import canonical
from DiffusionSegmentBackend.imaging.volume_io import read_volume
from matplotlib.patches import Patch

from .offscreen import offscreenWindow
from .slice_selection import selectSlices

MODEL = Path(__file__).resolve().parents[2] / "DiffusionSegment" / "Resources" / "Models" / "abdomen-ct" / "model.json"
_PANEL = (800, 560)
_WINDOW = (-125, 275)
_NO_GL = "Note: off-screen OpenGL is missing, so matplotlib draws the picture. On Debian: make system-packages"


def drawResult(ct: Path, result: Path, picture: Path) -> None:
    """Draw the scan `ct` with the maps of the folder `result` into the PNG file `picture`."""
    views = _slicerViews(ct, result) if offscreenWindow() else None
    if views is None:
        print(_NO_GL, file=sys.stderr)
        views = _plainViews(ct, result)
    _compose(views, result, picture)


def _slicerViews(ct: Path, result: Path) -> dict[str, np.ndarray]:
    from .slicer_picture import slicerViews

    return slicerViews(ct, result, MODEL, size=_PANEL, window=_WINDOW)


def _plainViews(ct: Path, result: Path) -> dict[str, np.ndarray]:
    """Slices with outlines and uncertainty as RGB arrays, voxels made square."""
    scan, order = canonical(read_volume(ct))
    labels, uncertainty = (
        order.apply(read_volume(result / f"{n}.nii.gz").array) for n in ("segmentation", "uncertainty")
    )
    colours = np.array([(0, 0, 0), *(item["colour"] for item in _definitions())]) / 255.0
    step_mm = scan.spacing.min()
    views = {}
    for axis, (name, index) in enumerate(zip(("Axial", "Coronal", "Sagittal"), selectSlices(labels), strict=True)):
        across, up = ((0, 1), (0, 2), (1, 2))[axis]
        zoom = (scan.spacing[up] / step_mm, scan.spacing[across] / step_mm)
        grey, organ, uncertain = (
            _stretched(np.take(a, index, axis=axis), zoom) for a in (scan.array, labels, uncertainty)
        )
        rgb = np.repeat(np.clip((grey - _WINDOW[0]) / (_WINDOW[1] - _WINDOW[0]), 0, 1)[..., None], 3, axis=-1)
        rgb[uncertain > 0.2] = 0.5 * rgb[uncertain > 0.2] + 0.5 * np.array([0.93, 0.41, 0.22])
        edge = (organ != np.roll(organ, 1, 0)) | (organ != np.roll(organ, 1, 1))
        rgb[edge & (organ > 0)] = colours[organ[edge & (organ > 0)]]
        views[name] = rgb if axis == 0 else rgb[::-1]
    return views


def _stretched(image: np.ndarray, zoom: tuple[float, float]) -> np.ndarray:
    rows, columns = (np.arange(int(n * z)) // z for n, z in zip(image.shape, zoom, strict=True))
    return image[rows.astype(int)][:, columns.astype(int)]


def _definitions() -> list[dict[str, Any]]:
    return json.loads(MODEL.read_text(encoding="utf-8"))["labels"]


def _compose(views: dict[str, np.ndarray], result: Path, picture: Path) -> None:
    report = json.loads((result / "report.json").read_text(encoding="utf-8"))
    figure, axes = plt.subplots(2, 2, figsize=(16, 12.2), dpi=100, facecolor="black")
    figure.subplots_adjust(left=0.005, right=0.995, top=0.945, bottom=0.10, wspace=0.01, hspace=0.01)
    for ax, name in zip(axes.ravel(), ("Axial", "3D", "Coronal", "Sagittal"), strict=True):
        ax.set_axis_off()
        if name in views:
            ax.imshow(views[name])
            ax.text(0.012, 0.975, name, transform=ax.transAxes, color="white", fontsize=13, va="top")
    provenance = report["provenance"]
    figure.text(
        0.01,
        0.965,
        f"{provenance['model']} {provenance['version']}, {provenance['samples']} samples of "
        f"{provenance['steps']} steps, seed {provenance['seed']}. Not for diagnosis.",
        color="white",
        fontsize=14,
    )
    if "3D" not in views:
        figure.text(0.75, 0.7, "Orange: uncertainty above 0.2", color=(0.93, 0.41, 0.22), fontsize=14, ha="center")
    colours = {item["name"]: np.array(item["colour"]) / 255 for item in _definitions()}
    patches = [
        Patch(
            color=colours[o["name"]],
            label=f"{o['title']} {o['volume_ml']:.0f} mL"
            if o["volume_ml"] >= 10
            else f"{o['title']} {o['volume_ml']:.1f} mL",
        )
        for o in report["organs"]
        if o["volume_ml"] > 0
    ]
    if patches:
        figure.legend(
            handles=patches,
            loc="lower center",
            ncols=5,
            frameon=False,
            labelcolor="white",
            fontsize=12,
            bbox_to_anchor=(0.5, 0.005),
        )
    figure.savefig(picture, facecolor="black")
    plt.close(figure)


def main() -> None:
    """`python -m headless.picture CT RESULT -o PNG`."""
    parser = argparse.ArgumentParser(description="Draw a result.")
    parser.add_argument("ct", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    drawResult(options.ct, options.result, options.output)


if __name__ == "__main__":
    main()
