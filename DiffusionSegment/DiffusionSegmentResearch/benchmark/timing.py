"""Wall time, processor time, peak memory of host and device, and load average of a call."""

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
    """The result and the costs of one call.

    Attributes:
        value: what the call returned.
        seconds: wall time.
        processor_s: processor time of all threads of this process.
        host_mb: peak resident memory of this process during the call, including what it held before.
        device_mb: peak memory allocated by torch on the device, None on a CPU.
        load: load average of the machine over the last minute, None where the system does not provide it.
    """

    value: Value
    seconds: float
    processor_s: float
    host_mb: float
    device_mb: float | None
    load: float | None


def measure(call: Callable[[], Value], device: torch.device) -> Measured[Value]:
    """Run `call` once, synchronizing the device before each reading of the clock."""
    _reset_host_peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    _synchronize(device)
    began, worked = time.perf_counter(), time.process_time()
    value = call()
    _synchronize(device)
    seconds, processor_s = time.perf_counter() - began, time.process_time() - worked
    on_device = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    return Measured(value, seconds, processor_s, host_peak_mb(), on_device, load_average())


def measure_repeated(
    call: Callable[[], object], device: torch.device, *, repeats: int, warm_ups: int = 1
) -> Measured[list[float]]:
    """Median seconds of `repeats` calls after `warm_ups` uncounted ones; `value` holds the seconds of each call.

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
    """Peak resident memory in MB: since the last `measure` on Linux, else since the start of the process."""
    try:
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return peak_memory_mb()
    peaks_kb = [float(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return peaks_kb[0] / 1024.0 if peaks_kb else peak_memory_mb()


def load_average() -> float | None:
    """Load average of the machine over the last minute; None on Windows."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def _reset_host_peak() -> None:
    """Reset the peak resident memory of this process, where Linux permits it."""
    try:
        _CLEAR.write_text(_RESET_PEAK, encoding="utf-8")
    except OSError:
        return


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
