"""What the self-test of the worker found; standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SelfTestFindings:
    """One look at the computer.

    `torch` is its version and `build` what it was built for ("CPU", "CUDA 12.6"), both empty without torch; `device` is
    what ran, by its name; `driver` that of an NVIDIA card, empty without one; `free_memory_bytes` that of the device,
    None where it is unknown; `gflops` the speed of 3D convolutions in 1e9 operations per second over `seconds`;
    `advice` holds sentences on what to do, none when all is well.
    """

    software: str
    python: str
    missing: tuple[str, ...]
    torch: str
    build: str
    device: str
    driver: str
    free_memory_bytes: int | None
    gflops: float
    seconds: float
    advice: tuple[str, ...]
