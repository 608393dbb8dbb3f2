"""Estimate of the memory of a run before it starts, and the plan that keeps it within the available memory.

The whole scan is processed at once where it fits. Otherwise the maps are memory-mapped files and, if needed, the scan
is processed in parts along its axis, which computes the features twice. A scan that fits under no plan is refused.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from ..errors import DiffusionSegmentError, ErrorCode, out_of_gpu_memory, out_of_memory
from ..models.model import Model
from ..models.pre_segmenter import Footprint
from ..models.tile_shape import TILE_SIDE, TileShape
from .parts import parts_of
from .tiling import Tiling

_GB = 1e9
# Input slices of a part, for tiles of the default depth: from two overlapping tiles upwards.
_PART_DEPTHS = (400, 256, 208, 160, 112)
# Measured (docs/PERFORMANCE.md): copies of the probabilities during sampling and restoring; bytes of a slab of a map.
_COPIES = 5.0
_SLAB_BYTES = 100e6
# Bytes per voxel of the scan: labels and regions; two float32 maps of uncertainty; three float32 coordinates.
_LABEL_BYTES = 2
_UNCERTAINTY_BYTES = 8
_COORDINATE_BYTES = 12

_CGROUP_FILES = ("memory.max", "memory.current")

_log = logging.getLogger(__name__)

T = TypeVar("T")
# Allocates zeros of a shape and type.
Allocate = Callable[[tuple[int, ...], type[np.generic]], NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class RunSize:
    """Quantities that determine the memory of a run.

    `scan_voxels` and `grid_voxels` count voxels of the scan and of the model's grid; `box` (z, y, x) is the shape of
    the volume that the tiles cover; with `maps_on_grid` the maps of uncertainty are not resampled to the scan.
    """

    scan_voxels: int
    grid_voxels: int
    box: tuple[int, int, int]
    classes: int
    samples: int
    bodypart: bool
    tile: TileShape
    footprint: Footprint
    keeps_features: bool
    maps_on_grid: bool = False

    @property
    def map_bytes(self) -> int:
        """Bytes of all maps in the scan's geometry."""
        uncertainty = _UNCERTAINTY_BYTES * (not self.maps_on_grid)
        return self.scan_voxels * (_LABEL_BYTES + uncertainty + _COORDINATE_BYTES * self.bodypart)


@dataclass(frozen=True)
class MemoryPlan:
    """Maximum number of slices processed at once (None: all), whether maps are files, and the estimated bytes."""

    max_slices: int | None
    on_disk: bool
    bytes: int

    @property
    def notice(self) -> str:
        """The warning of the report, empty for a run without restriction."""
        if self.max_slices is not None:
            return "Little memory: the scan was processed in parts, which takes longer."
        return "Little memory: the maps were computed on disk." if self.on_disk else ""


UNLIMITED = MemoryPlan(None, False, 0)


def needed_bytes(size: RunSize, *, max_slices: int | None, on_disk: bool) -> int:
    """Bytes that a run allocates beyond those of the process before it: the maximum over sampling and restoring."""
    depth, height, width = size.box
    plane = size.classes * height * width
    parts = parts_of(depth, max_slices, size.tile)
    part = max(part.input.stop - part.input.start for part in parts)
    tiles = (
        len(Tiling((part, height, width), size.tile.voxels, step=size.tile.stride).tiles) if size.keeps_features else 0
    )
    on_grid = size.grid_voxels * 4 * 4 + size.samples * depth * height * width
    if part == depth:
        drawing = kept = _COPIES * 4 * plane * depth
    else:
        # Half precision for the whole, float32 for the part.
        kept = _COPIES * 2 * plane * depth
        drawing = kept + _COPIES * 4 * plane * part
    work = drawing + tiles * size.footprint.tile_bytes + size.footprint.pass_bytes
    maps = 0 if on_disk else size.map_bytes
    return int(on_grid + max(work, kept + maps + _SLAB_BYTES))


def choose_memory_plan(size: RunSize, *, limit_gb: float | None) -> MemoryPlan:
    """The fastest plan whose estimate fits `limit_gb` (1e9 bytes), or the available memory without a limit.

    Raises:
        DiffusionSegmentError: OUT_OF_MEMORY where no plan fits; OPTION for a limit that is not positive.
    """
    if limit_gb is not None and not limit_gb > 0:
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"A memory limit of {limit_gb:g} GB is too low.", hint="Choose more, or no limit."
        )
    free = available_bytes() if limit_gb is None else int(limit_gb * _GB) - resident_bytes()
    plans = _plans(size)
    for plan in plans:
        if free is None or plan.bytes <= free:
            _log.info(
                "needs %.2f GB of %s GB: %s", plan.bytes / _GB, "?" if free is None else f"{free / _GB:.2f}", plan
            )
            return plan
    needed = min(plan.bytes for plan in plans) + resident_bytes()
    allowed = resident_bytes() + (free or 0)
    raise DiffusionSegmentError(
        ErrorCode.OUT_OF_MEMORY,
        f"This scan needs {needed / _GB:.1f} GB of memory, but only {max(allowed, 0) / _GB:.1f} GB may be used.",
        hint="Close programs, raise the memory limit, or choose a region of interest.",
    )


def _plans(size: RunSize) -> list[MemoryPlan]:
    """All plans for a run, fastest first."""
    restrictions = [
        *((None, False), (None, True)),
        *((depth, True) for depth in _part_depths(size.tile) if depth < size.box[0]),
    ]
    return [
        MemoryPlan(max_slices, disk, needed_bytes(size, max_slices=max_slices, on_disk=disk))
        for max_slices, disk in restrictions
    ]


def _part_depths(tile: TileShape) -> list[int]:
    """Possible numbers of input slices of a part, largest first."""
    return [depth * tile.voxels[0] // TILE_SIDE for depth in _PART_DEPTHS]


def resident_bytes() -> int:
    """Resident memory of the process, without shared pages where the system reports them (Linux).

    Shared pages include those of memory-mapped files, which the system reclaims when it needs to.
    """
    usage = psutil.Process().memory_info()
    return int(usage.rss - getattr(usage, "shared", 0))


def available_bytes() -> int | None:
    """Bytes that the process may still allocate: minimum over system, cgroup and rlimit; None if all are unknown."""
    limits = [_system_bytes(), _cgroup_bytes(), _rlimit_bytes()]
    return min((limit for limit in limits if limit is not None), default=None)


def _system_bytes() -> int | None:
    # A container may hide /proc, which psutil reads on Linux.
    with suppress(OSError, RuntimeError, KeyError):
        return int(psutil.virtual_memory().available)
    return None


def _cgroup_bytes(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """Free memory of a container or systemd unit: the minimum over its cgroups (version 2), inactive cache included.

    psutil does not know of cgroups.
    """
    free: list[int] = []
    with suppress(OSError, ValueError, StopIteration):
        lines = own.read_text(encoding="utf-8").splitlines()
        named = next(line.removeprefix("0::/") for line in lines if line.startswith("0::/"))
        for folder in (root / named, *(root / named).parents):
            with suppress(OSError, ValueError):
                limit, used = (int((folder / name).read_text(encoding="ascii")) for name in _CGROUP_FILES)
                cached = dict(
                    line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines()
                )
                free.append(max(0, limit - used + int(cached.get("inactive_file", 0))))
            if folder == root:
                break
    return min(free, default=None)


def _rlimit_bytes() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
    return None if limit == resource.RLIM_INFINITY else max(0, limit - resident_bytes())


def in_memory(shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    """Allocate zeros in memory."""
    return np.zeros(shape, dtype=dtype)


def on_disk(folder: Path | None = None) -> Allocate:
    """An allocator of zeros in unnamed temporary files of `folder` (default: the system's), deleted with the array."""

    def allocate(shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.truncate(max(1, int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize))
            return np.memmap(file, dtype=dtype, mode="r+", shape=shape)

    return allocate


def with_fallback(model: Model, max_slices: int | None, run: Callable[[Model, int | None], T]) -> tuple[T, str]:
    """Call `run(model, max_slices)`; out of CUDA memory, retry in the smallest parts, then on the CPU.

    The tile shape never changes, because the networks were trained with it. Returns the result and a notice, which is
    empty if the first attempt succeeded.
    """
    if model.device.type == "cuda":
        attempts = (
            (max_slices, ""),
            (_part_depths(model.tile)[-1], "Little memory on the graphics card: the scan was processed in parts."),
        )
        for slices, notice in attempts:
            with suppress(torch.OutOfMemoryError):
                return run(model, slices), notice
            torch.cuda.empty_cache()
        return run(model.on("cpu"), max_slices), "Too little memory on the graphics card: the processor was used."
    return run(model, max_slices), ""


@contextmanager
def memory_errors() -> Iterator[None]:
    """Convert failed allocations of Python, numpy and PyTorch.

    Raises:
        DiffusionSegmentError: OUT_OF_GPU_MEMORY or OUT_OF_MEMORY.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise out_of_gpu_memory() from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "can't allocate memory" not in str(error):
            raise
        raise out_of_memory("this scan") from error
