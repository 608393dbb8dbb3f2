"""How much memory a run takes, told before it starts; and what to do where that is too much.

A run that fits goes in one piece. Else the body is worked on in parts along its axis and the maps are formed on disk;
that costs the features twice. What does not fit even so is refused, before the system would end the process.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from ..errors import DiffusionSegmentError, ErrorCode
from ..models.model import Model
from ..models.pre_segmenter import Footprint
from ..models.tile_shape import TILE_SIDE, TileShape
from .parts import parts_of
from .tiling import Tiling

_GB = 1e9
# Slices that a part sees when memory is short: two tiles of the usual depth, or more where there is room.
_DEPTHS = (400, 256, 208, 160, 112)
# Measured (docs/PERFORMANCE.md): copies of the probabilities while samples are drawn and while maps are formed; and
# bytes of a slab of the maps.
_COPIES = 5.0
_SLAB_BYTES = 100e6
# Bytes a voxel of the scan: labels, regions and two maps, and three coordinates.
_MAP_BYTES = 10
_COORDINATE_BYTES = 12

_GROUP_FILES = ("memory.max", "memory.current")

_log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Allocate = Callable[[tuple[int, ...], type[np.generic]], NDArray]


@dataclass(frozen=True, kw_only=True)
class RunSize:
    """What decides how much memory a run takes: voxels of scan and grid, the tiles' volume (z, y, x), and the tile."""

    scan_voxels: int
    grid_voxels: int
    box: tuple[int, int, int]
    classes: int
    samples: int
    bodypart: bool
    tile: TileShape
    footprint: Footprint
    keeps_features: bool


@dataclass(frozen=True)
class Way:
    """How to run: no more than `most_slices` at once, None for all; maps on disk or in memory; its bytes."""

    most_slices: int | None
    on_disk: bool
    bytes: int

    @property
    def notice(self) -> str:
        """What a reader is told of it."""
        if self.most_slices is not None:
            return "Little memory: the scan was processed in parts, which takes longer."
        return "Little memory: the maps were computed on disk." if self.on_disk else ""


AT_ONCE = Way(None, False, 0)


def needed_bytes(size: RunSize, *, most_slices: int | None, on_disk: bool) -> int:
    """Memory that a run takes beyond what the process has before it: the larger of drawing samples and of mapping."""
    depth, height, width = size.box
    plane = size.classes * height * width
    parts = parts_of(depth, most_slices, size.tile)
    part = max(part.seen.stop - part.seen.start for part in parts)
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
    maps = 0 if on_disk else size.scan_voxels * (_MAP_BYTES + _COORDINATE_BYTES * size.bodypart)
    return int(on_grid + max(work, kept + maps + _SLAB_BYTES))


def choose_way(size: RunSize, *, limit_gb: float | None) -> Way:
    """The quickest way to run within the limit, or within what the system has to give.

    Raises:
        DiffusionSegmentError: OUT_OF_MEMORY where no way is narrow enough; OPTION for a limit that is none.
    """
    if limit_gb is not None and not limit_gb > 0:
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"A memory limit of {limit_gb:g} GB is too low.", hint="Choose more, or no limit."
        )
    room = available_bytes() if limit_gb is None else int(limit_gb * _GB) - resident_bytes()
    ways = [(None, False), (None, True), *((depth, True) for depth in _depths(size.tile) if depth < size.box[0])]
    found = [Way(most, disk, needed_bytes(size, most_slices=most, on_disk=disk)) for most, disk in ways]
    for way in found:
        if room is None or way.bytes <= room:
            _log.info("needs %.2f GB of %s GB: %s", way.bytes / _GB, "?" if room is None else f"{room / _GB:.2f}", way)
            return way
    least = min(way.bytes for way in found) + resident_bytes()
    there = resident_bytes() + (room or 0)
    raise DiffusionSegmentError(
        ErrorCode.OUT_OF_MEMORY,
        f"This scan needs {least / _GB:.1f} GB of memory, but only {max(there, 0) / _GB:.1f} GB may be used.",
        hint="Close programs, raise the memory limit, or choose a region of interest.",
    )


def _depths(tile: TileShape) -> list[int]:
    """Slices that a part may see, deepest first."""
    return [depth * tile.voxels[0] // TILE_SIDE for depth in _DEPTHS]


def resident_bytes() -> int:
    """What the process holds in memory now.

    Pages of files, as of a scan that is mapped and not read, are left out where the system tells them apart (Linux): it
    takes them back when it needs to.
    """
    held = psutil.Process().memory_info()
    return int(held.rss - getattr(held, "shared", 0))


def available_bytes() -> int | None:
    """What the process may still take without being ended for it; None where nothing tells."""
    found = [_system_bytes(), _group_bytes(), _rlimit_bytes()]
    return min((n for n in found if n is not None), default=None)


def _system_bytes() -> int | None:
    # A container may hide /proc, which is where psutil looks on Linux.
    with suppress(OSError, RuntimeError, KeyError):
        return int(psutil.virtual_memory().available)
    return None


def _group_bytes(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """Of a container or a systemd unit: the least room in its groups (cgroup, version 2), what is cached being free."""
    found: list[int] = []
    with suppress(OSError, ValueError, StopIteration):
        lines = own.read_text(encoding="utf-8").splitlines()
        named = next(line.removeprefix("0::/") for line in lines if line.startswith("0::/"))
        for folder in (root / named, *(root / named).parents):
            with suppress(OSError, ValueError):
                limit, used = (int((folder / name).read_text(encoding="ascii")) for name in _GROUP_FILES)
                cached = dict(
                    line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines()
                )
                found.append(max(0, limit - used + int(cached.get("inactive_file", 0))))
            if folder == root:
                break
    return min(found, default=None)


def _rlimit_bytes() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
    return None if limit == resource.RLIM_INFINITY else max(0, limit - resident_bytes())


def in_memory(shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray:
    """Zeros."""
    return np.zeros(shape, dtype=dtype)


def on_disk(folder: Path | None = None) -> Allocate:
    """Zeros in a file of `folder` (default: the system's own) that has no name and goes with the array."""

    def allocate(shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.truncate(max(1, int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize))
            return np.memmap(file, dtype=dtype, mode="r+", shape=shape)

    return allocate


def with_fallback(
    model: Model, most_slices: int | None, run: Callable[[Model, int | None], Answer]
) -> tuple[Answer, str]:
    """Run on the model's device; a card that has too little memory gets shallow parts, then the processor runs.

    Tiles keep their side: the networks were trained with it. Returns the answer and a notice, empty when all went well.
    """
    ways: Sequence[tuple[Callable[[], Model], int | None, str]] = [(lambda: model, most_slices, "")]
    if model.device.type == "cuda":
        ways = [
            *ways,
            (
                lambda: model,
                _depths(model.tile)[-1],
                "Little memory on the graphics card: the scan was processed in parts.",
            ),
            (
                lambda: model.on("cpu"),
                most_slices,
                "Too little memory on the graphics card: the processor was used.",
            ),
        ]
    for prepare, most, notice in ways[:-1]:
        with suppress(torch.OutOfMemoryError):
            return run(prepare(), most), notice
        torch.cuda.empty_cache()
    prepare, most, notice = ways[-1]
    return run(prepare(), most), notice


@contextmanager
def memory_errors() -> Iterator[None]:
    """Tell a lack of memory in words.

    Raises:
        DiffusionSegmentError: OUT_OF_GPU_MEMORY or OUT_OF_MEMORY.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DiffusionSegmentError(
            ErrorCode.OUT_OF_GPU_MEMORY, "The graphics card has too little free memory.", hint="Choose the device cpu."
        ) from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "can't allocate memory" not in str(error):
            raise
        raise DiffusionSegmentError(
            ErrorCode.OUT_OF_MEMORY,
            "There is too little memory for this scan.",
            hint="Close programs, or crop the scan.",
        ) from error
