"""Accepted scans as read by ITK, and by nibabel where ITK refuses a NIfTI file.

ITK may crash or hang at a damaged header, so it reads in a child process.
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
from DiffusionSegmentBackend.imaging.volume import Volume

from .target import demand

_SECONDS = 5
# Quaternions, and the products of a large index with a rounded direction, in single precision.
_NEAR_VOXELS = 0.02
_NEAR_MM = 0.01


def check_against_itk(path: Path, volume: Volume, reader: str) -> None:
    """Check that voxels and geometry are equal to those that ITK reads with `reader`, if it can read the file.

    Raises:
        Broken: they differ.
    """
    if reader == "MetaImageIO" and _without_size(path.read_bytes()):
        # ITK reads wrong voxels from such a file without an error.
        return
    verdict = _compare_in_child(path, volume, reader)
    demand(not verdict.startswith("differs"), f"ITK reads something else: {verdict}")
    if reader == "NiftiImageIO" and verdict == "refused" and not volume.notes:
        affine = nibabel.load(path).affine
        difference = _apart(volume, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)
        demand(difference <= 1.0, f"nibabel reads another geometry, by {difference:.3g} of the tolerance")


def _without_size(data: bytes) -> bool:
    """Whether a compressed MetaImage lacks the size of its data in bytes, or has a wrong one."""
    header, local, voxels = data.partition(b"\nElementDataFile = LOCAL\n")
    compressed = re.search(rb"CompressedData = *[Tt1]", header)
    size = re.search(rb"\nCompressedDataSize = *(\d+)\n", header + b"\n")
    return bool(local and compressed) and (size is None or int(size[1]) != len(voxels))


def _compare_in_child(path: Path, volume: Volume, reader: str) -> str:
    """The verdict of a child process: equal, refused, or how it differs; a crash counts as refused."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(_SECONDS)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.write(write, _compared(path, volume, reader).encode()[:1000])
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        verdict = stream.read().decode()
    os.waitpid(child, 0)
    return verdict or "refused"


def _compared(path: Path, volume: Volume, reader: str) -> str:
    try:
        file = sitk.ImageFileReader()
        file.SetFileName(str(path))
        file.SetImageIO(reader)
        image = file.Execute()
        array = np.squeeze(sitk.GetArrayFromImage(image))
    except (RuntimeError, ValueError, MemoryError):
        return "refused"
    if array.shape != volume.array.shape:
        return f"differs: shape {array.shape}, ours {volume.array.shape}"
    if not np.allclose(array.astype(np.float64), volume.array.astype(np.float64), rtol=1e-4, atol=1e-6):
        return "differs: values"
    more = (0.0,) * (image.GetDimension() - 3)
    points = [image.TransformContinuousIndexToPhysicalPoint((*p, *more))[:3] for p in np.eye(4, 3, -1)]
    matrix = np.eye(4)
    matrix[:3, 3] = points[0]
    matrix[:3, :3] = np.transpose(np.subtract(points[1:], points[0]))
    difference = _apart(volume, matrix)
    return "equal" if difference <= 1.0 else f"differs: geometry, by {difference:.3g} of the tolerance; {volume.notes}"


def _apart(volume: Volume, matrix: np.ndarray) -> float:
    """The largest distance between corresponding corners, relative to the tolerance for rounding."""
    corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=float)
    corners[:, :3] *= np.array(volume.shape_ijk) - 1
    apart = np.linalg.norm((corners @ (volume.index_to_lps - matrix).T)[:, :3], axis=1).max()
    reach = np.abs(matrix[:3, 3]).max() * 1e-5
    return float(apart / max(_NEAR_MM, _NEAR_VOXELS * volume.spacing.max(), reach))
