"""The choice of an executor: Ray where it is installed, otherwise worker processes of this computer."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from ..errors import DiffusionSegmentError, ErrorCode
from .executor import Executor, ProcessExecutor, StartExecutor
from .resources import Resources
from .worker_process import WorkerSettings

_INSTALL = "pip install 'diffusion-segment[cohort]'"


def executor_starter(kind: str, address: str | None) -> StartExecutor:
    """The function that starts an executor of a `kind`, "auto", "ray" or "processes", for Ray at an `address`.

    Raises:
        DiffusionSegmentError: PACKAGE_MISSING where Ray is asked for and not installed, OPTION for an address without
            Ray.
    """
    if kind == "processes":
        if address is not None:
            raise DiffusionSegmentError(
                ErrorCode.OPTION, "--address is that of a Ray cluster.", hint="Leave out --executor processes."
            )
        return _start_processes
    if find_spec("ray") is None:
        if kind == "ray" or address is not None:
            raise DiffusionSegmentError(
                ErrorCode.PACKAGE_MISSING, "Ray is not installed.", hint=f"Install it: {_INSTALL}."
            )
        print(f"Ray is not installed ({_INSTALL}): worker processes are used instead.", file=sys.stderr)
        return _start_processes

    def start_ray(resources: Resources, settings: WorkerSettings, folder: Path) -> Executor:
        from .ray_executor import RayExecutor

        executor: Executor = RayExecutor(resources, settings, folder, address=address)
        return executor

    return start_ray


def _start_processes(resources: Resources, settings: WorkerSettings, folder: Path) -> Executor:
    return ProcessExecutor(resources, settings)
