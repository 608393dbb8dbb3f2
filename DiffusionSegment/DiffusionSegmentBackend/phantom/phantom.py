"""A synthetic portal-venous CT of the abdomen with 13 labelled organs: for tests, demonstrations and pretraining.

Nothing in it comes from a patient. Shapes are smooth implicit functions whose positions, sizes, densities and bends are
drawn from the seed; the same seed gives the same anatomy at every spacing and the same volume on every run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from . import anatomy as anatomy
from . import body as body
from .anatomy import Organ
from .canvas import Canvas, Field, Region, smooth_noise, union

__all__ = ["Organ", "Phantom", "make_phantom"]

_CENTRE_MM = (0.0, 4.0, 20.0)


@dataclass(frozen=True)
class Phantom:
    """One synthetic patient.

    `image`: (k, j, i) int16, Hounsfield units in -1024..3071. `labels`: (k, j, i) uint8, 0 or a value of `Organ`.
    `index_to_lps`: 4x4 float64 from the voxel index (i, j, k, 1) to LPS millimetres.
    """

    image: NDArray[np.int16]
    labels: NDArray[np.uint8]
    index_to_lps: NDArray[np.float64]


def make_phantom(
    *,
    seed: int,
    spacing_mm: tuple[float, float, float] = (1.5, 1.5, 3.0),
    size_mm: tuple[float, float, float] = (360.0, 270.0, 330.0),
) -> Phantom:
    """Draw the patient of `seed` on a grid of `spacing_mm` that covers `size_mm` (x, y, z) of the abdomen.

    Raises:
        ValueError: for spacings or sizes that are not positive, or a size below one voxel.
    """
    if min(spacing_mm) <= 0 or any(size < step for size, step in zip(size_mm, spacing_mm, strict=True)):
        raise ValueError(f"a phantom of {size_mm} mm with voxels of {spacing_mm} mm is not possible")
    shape_stream, noise_stream, table_stream = (np.random.default_rng((seed, n)) for n in range(3))
    counts = [round(size / step) for size, step in zip(size_mm, spacing_mm, strict=True)]
    offsets = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(counts, spacing_mm, strict=True)]
    stature = shape_stream.normal(1.0, (0.03, 0.03, 0.045)).clip(0.92, 1.08)
    axes = [(offset + centre) / scale for offset, centre, scale in zip(offsets, _CENTRE_MM, stature, strict=True)]
    canvas = Canvas((axes[0], axes[1], axes[2]), warp_mm=6.0, rng=shape_stream, noise=noise_stream)
    _draw(canvas, shape_stream)
    image = _scan(canvas.hu, spacing_mm, noise_stream)
    geometry = np.diag([*spacing_mm, 1.0])
    geometry[:3, 3] = [offset[0] for offset in offsets] + table_stream.uniform(-1, 1, 3) * (20, 20, 400)
    return Phantom(image=image, labels=canvas.labels, index_to_lps=geometry)


def _draw(canvas: Canvas, rng: np.random.Generator) -> None:
    """Paint the patient from the abdominal cavity outwards, then the organs that lie against the back."""
    tissues = body.Tissues.draw(rng)
    trunk = body.Trunk.draw(canvas, rng)
    canvas.paint(canvas.whole(), np.full(canvas.shape, -10.0, dtype=np.float32), tissues.fat, texture=5.0)
    anatomy.draw_bowel(canvas, tissues, rng)
    at, right_dome = anatomy.draw_liver(canvas, tissues, rng)
    anatomy.draw_stomach(canvas, rng)
    anatomy.draw_spleen(canvas, rng)
    body.draw_back(canvas, trunk, tissues)
    anatomy.draw_kidneys(canvas, tissues, rng)
    anatomy.draw_pancreas(canvas, rng)
    anatomy.draw_gallbladder(canvas, rng)
    above, dome = _diaphragm(canvas, at, right_dome)
    body.draw_chest(canvas, trunk, tissues, above, dome, rng)
    body.draw_wall(canvas, trunk, tissues)
    body.draw_back(canvas, trunk, tissues)
    body.draw_spine(canvas, tissues, rng)
    body.draw_ribs(canvas, trunk, tissues, rng)
    anatomy.draw_vessels(canvas, tissues, rng)
    anatomy.draw_esophagus(canvas, rng)
    anatomy.draw_adrenals(canvas, rng)
    if rng.random() < 0.8:
        body.draw_table(canvas, trunk)


def _diaphragm(canvas: Canvas, at: Region, right_dome: Field) -> tuple[Region, Field]:
    """Distance to the space below the diaphragm: the liver, given in the region `at`, and the left dome."""
    above = canvas.region((-400, -400, 15), (400, 400, 400))
    dome = body.left_dome(above)
    common = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(above.box, at.box, strict=True)]
    if any(part.start >= part.stop for part in common):
        return above, dome
    into = tuple(slice(c.start - a.start, c.stop - a.start) for c, a in zip(common, above.box, strict=True))
    source = tuple(slice(c.start - a.start, c.stop - a.start) for c, a in zip(common, at.box, strict=True))
    dome[into] = union(dome[into], right_dome[source], blend_mm=14)
    return above, dome


def _scan(
    hu: NDArray[np.float32], spacing_mm: tuple[float, float, float], rng: np.random.Generator
) -> NDArray[np.int16]:
    """Blur by the scanner's point spread and add correlated noise of 8-20 HU."""
    steps = np.array(spacing_mm[::-1])
    kernel_mm = rng.uniform(0.6, 1.0)
    blurred = ndimage.gaussian_filter(hu, kernel_mm / steps * (0.6, 1, 1), truncate=3)
    noise = smooth_noise(hu.shape, rng, sigma=list(kernel_mm / steps * (0.3, 1.0, 1.0)))
    image: NDArray[np.int16] = np.clip(np.rint(blurred + noise * rng.uniform(8, 20)), -1024, 3071).astype(np.int16)
    return image
