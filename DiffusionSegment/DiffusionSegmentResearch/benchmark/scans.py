"""Synthetic scans of clinical size: the phantom, mirrored along the z axis to the length of the scan."""

from __future__ import annotations

import numpy as np
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.phantom.phantom import make_phantom
from scipy import ndimage

IN_PLANE = 512
FIELD_MM = 360.0
_DRAWN_MM = 3.0
_DRAWN_HEIGHT_MM = 300.0


def slice_thickness_mm(slices: int) -> float:
    """Typical slice thickness: 3 mm below 200 slices, 1.5 mm below 600, else 1 mm."""
    if slices >= 600:
        return 1.0
    return 1.5 if slices >= 200 else 3.0


def benchmark_scan(slices: int, *, seed: int, in_plane: int = IN_PLANE) -> Volume:
    """A CT of `slices` x `in_plane` x `in_plane` voxels (k, j, i) in HU, int16, over a field of 360 mm.

    The phantom is drawn at 3 mm and interpolated linearly; a scan longer than its 300 mm is padded by its mirror image.
    Inference time does not depend on the anatomy, so such a scan serves for timing only.

    Raises:
        DiffusionSegmentError: OPTION for fewer than 2 slices or voxels.
    """
    if min(slices, in_plane) < 2:
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"A scan of {slices} slices of {in_plane} voxels is too small.", hint="Choose 2 or more."
        )
    phantom = make_phantom(seed=seed, spacing_mm=(_DRAWN_MM,) * 3, size_mm=(FIELD_MM, FIELD_MM, _DRAWN_HEIGHT_MM))
    thickness, step = slice_thickness_mm(slices), FIELD_MM / in_plane
    drawn = phantom.image
    length = int(np.ceil(slices * thickness / _DRAWN_MM))
    body = np.pad(drawn, ((0, max(0, length - len(drawn))), (0, 0), (0, 0)), mode="symmetric")[:length]
    factors = (slices / len(body), in_plane / body.shape[1], in_plane / body.shape[2])
    # Linear interpolation stays inside the range of the phantom, so int16 holds it.
    image = ndimage.zoom(body, factors, output=np.int16, order=1, grid_mode=True, mode="nearest")
    geometry = np.diag([step, step, thickness, 1.0])
    geometry[:3, 3] = phantom.index_to_lps[:3, 3]
    return Volume(image, geometry)
