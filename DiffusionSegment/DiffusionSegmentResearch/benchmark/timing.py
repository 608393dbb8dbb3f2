"""One clock for all: seconds, peak memory of host and device, and how busy the machine was meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Generic, TypeVar

import torch
from DiffusionSegmentBackend.pipeline.report import peak_memory_mb

Value = TypeVar("Value")

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


@dataclass(frozen=True)
class Measured(Generic[Value]):
    """What `measure` saw of one call.

    `processor_s` sums the processor time of all threads of this process, which other programs on the machine hardly
    change. `host_mb` is the largest resident size of this process meanwhile, all that it held before included;
    `device_mb` the most that torch held on the device, None on a CPU; `load` the mean number of runnable processes of
    the whole machine over the last minute, None where the system does not tell.
    """

    value: Value
    seconds: float
    processor_s: float
    host_mb: float
    device_mb: float | None
    load: float | None


def measure(call: Callable[[], Value], device: torch.device) -> Measured[Value]:
    """Run `call` once, and wait for the device before the clock is read."""
    _forget_peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    _wait_for(device)
    began, worked = time.perf_counter(), time.process_time()
    value = call()
    _wait_for(device)
    seconds, processor_s = time.perf_counter() - began, time.process_time() - worked
    on_device = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    return Measured(value, seconds, processor_s, host_peak_mb(), on_device, load_average())


def measure_repeated(
    call: Callable[[], object], device: torch.device, *, repeats: int, warm_ups: int = 1
) -> Measured[list[float]]:
    """Median seconds of `repeats` calls after `warm_ups` that are not counted; the value holds the seconds of each.

    Raises:
        ValueError: for fewer than one repeat.
    """
    if repeats < 1:
        raise ValueError(f"{repeats} repeats measure nothing")

    runs = [measure(call, device) for _ in range(warm_ups + repeats)]
    counted = [run.seconds for run in runs[warm_ups:]]
    return Measured(
        counted,
        median(counted),
        median(run.processor_s for run in runs[warm_ups:]),
        max(run.host_mb for run in runs),
        max((run.device_mb for run in runs if run.device_mb is not None), default=None),
        runs[-1].load,
    )


def host_peak_mb() -> float:
    """Largest resident size in MB: since the last `measure` began on Linux, since the process began elsewhere."""
    try:
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return peak_memory_mb()
    told = [float(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return told[0] / 1024.0 if told else peak_memory_mb()


def load_average() -> float | None:
    """Runnable processes of the machine, mean of the last minute; None on Windows, which does not tell."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def _forget_peak() -> None:
    """Let the kernel count the peak anew, where it is Linux and allows that."""
    try:
        _CLEAR.write_text(_RESET_PEAK, encoding="utf-8")
    except OSError:
        return


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
