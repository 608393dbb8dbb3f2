"""How many workers a computer can run: by its processors, memory and graphics cards."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from ..errors import DiffusionSegmentError, ErrorCode

# What a scan of 512 x 512 x 300 voxels takes in parts, with the networks.
WORKER_BYTES = 3_000_000_000
_MAX_WORKERS = 256


@dataclass(frozen=True, kw_only=True)
class Resources:
    """How many workers run, the CPU threads of each, and its share of a graphics card, 0 for none."""

    workers: int
    threads: int
    gpus_per_worker: float = 0.0


def choose_resources(*, workers: int | None, threads: int, gpus_per_worker: float | None) -> Resources:
    """Fill in what is not given for this computer.

    On graphics cards there is one worker for each share of a card; otherwise one for each processor, as far as the free
    memory allows: several workers of one thread segment more scans an hour than one of several threads.

    Args:
        workers: how many, None for as many as fit.
        threads: CPU threads of each worker, 0 for an equal share of the processors.
        gpus_per_worker: share of a card, None for one card each where there are any.

    Raises:
        DiffusionSegmentError: OPTION for a number out of its range.
    """
    if workers is not None and not 1 <= workers <= _MAX_WORKERS:
        raise _out_of_range("--workers", workers, f"1 to {_MAX_WORKERS}")
    if gpus_per_worker is not None and not 0 <= gpus_per_worker <= 64:
        raise _out_of_range("--gpus-per-worker", gpus_per_worker, "0 to 64")
    cards = len(visible_cards())
    share = gpus_per_worker if gpus_per_worker is not None else float(bool(cards))
    cores = cpu_count()
    if workers is None:
        fit = int(cards / share) if share > 0 and cards else cores // max(threads, 1)
        workers = max(1, min(fit, free_bytes() // WORKER_BYTES, _MAX_WORKERS))
    return Resources(workers=workers, threads=threads or max(1, cores // workers), gpus_per_worker=share)


def cpu_count(root: Path = Path("/sys/fs/cgroup")) -> int:
    """The processors that this process may use, with the quota of a container (cgroup version 2)."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = (root / "cpu.max").read_text(encoding="ascii").split()
        count = min(count, max(1, int(quota) // int(period)))
    return count


def free_bytes(root: Path = Path("/sys/fs/cgroup")) -> int:
    """The memory that programs may still take, of the system and of a container (cgroup version 2)."""
    free = int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):
        limit, used = (int((root / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        free = min(free, max(0, limit - used))
    return free


def gpu_count() -> int:
    """The CUDA devices that the driver lists, without the seconds that the import of PyTorch takes."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0
    try:
        done = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in done.stdout.splitlines())


def visible_cards() -> list[str]:
    """The names by which CUDA_VISIBLE_DEVICES selects the cards that this process may use."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [str(n) for n in range(gpu_count())] if listed is None else [name for name in listed.split(",") if name]


def _out_of_range(option: str, value: float, allowed: str) -> DiffusionSegmentError:
    return DiffusionSegmentError(ErrorCode.OPTION, f"{option} is {value:g}.", hint=f"Choose {allowed}.")
