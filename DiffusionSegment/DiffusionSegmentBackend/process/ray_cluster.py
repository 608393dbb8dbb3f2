"""Connection to Ray: a private cluster on this computer, which leaves nothing behind, or an existing one."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import DiffusionSegmentError, ErrorCode
from .process_folder import process_folder

_PACKAGE_FOLDER = Path(__file__).resolve().parents[2]
# Short: names of sockets have at most 107 bytes.
_FOLDER_PREFIX = "dsray-"
# In the own cluster only paths and rows travel, never voxels.
_OBJECT_STORE_BYTES = 100 * 1024 * 1024
_ATTEMPTS = 3
_PROBE_SECONDS = 60.0
# Before ray is imported. No statistics are sent, processes keep this environment, and a loaded computer has time to
# start Ray's agents, without which its raylet aborts.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_worker_register_timeout_seconds": "300",
}


def require_version(version: str, *, hint: str) -> None:
    """Refuse a computer of a cluster that has another version of this package; `hint` says what all of them need.

    Raises:
        DiffusionSegmentError: OPTION.
    """
    if version != __version__:
        raise unfit_computer(f"has version {version} of this package, and this computer {__version__}", hint=hint)


def unfit_computer(what: str, *, hint: str) -> DiffusionSegmentError:
    """The refusal of a computer of a cluster."""
    return DiffusionSegmentError(ErrorCode.OPTION, f"A computer of the Ray cluster {what}.", hint=hint)


def unable_computer(error: BaseException, *, hint: str) -> DiffusionSegmentError:
    """The refusal of a computer on which Ray could not run this package."""
    return unfit_computer(f"cannot run this package ({type(error).__name__})", hint=hint)


def import_ray() -> Any:
    """The package ray, with its environment prepared."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    return ray


@contextmanager
def ray_cluster(address: str | None, *, cpus: int = 0) -> Iterator[Any]:
    """The package ray, connected to the cluster at `address`, or without one to one of this process alone with `cpus`.

    The own cluster asks for a token that nobody else knows, and its folder, with its logs, is deleted at the end.

    Raises:
        DiffusionSegmentError: OPTION for an address without a cluster, WORKER_DIED where Ray does not start.
    """
    # Ray opens its own folder to all users, so that it lies within this one.
    folder = None if address is not None else process_folder(_FOLDER_PREFIX)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if folder is not None:
            os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
            os.environ["PYTHONPATH"] = os.pathsep.join(
                filter(None, (str(_PACKAGE_FOLDER), os.environ.get("PYTHONPATH")))
            )
        ray = import_ray()
        if folder is not None:
            _start(ray, cpus, folder)
        else:
            _connect(ray, str(address))
        # Ray replaces it.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
        yield ray
    finally:
        if (loaded := sys.modules.get("ray")) is not None:
            loaded.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _start(ray: Any, cpus: int, folder: Path) -> None:
    """Start a cluster of this process; Ray's start can fail while the computer is busy, and is tried again."""
    reason: BaseException | None = None
    for attempt in range(_ATTEMPTS):
        try:
            with _silent():
                ray.init(
                    address="local",
                    num_cpus=cpus,
                    include_dashboard=False,
                    log_to_driver=False,
                    configure_logging=False,
                    object_store_memory=_OBJECT_STORE_BYTES,
                    _temp_dir=str(folder / f"r{attempt}"),
                    _node_ip_address="127.0.0.1",
                )
            return
        except (Exception, SystemExit) as error:
            reason = error
            ray.shutdown()
    raise DiffusionSegmentError(
        ErrorCode.WORKER_DIED,
        f"Ray did not start in {_ATTEMPTS} attempts ({type(reason).__name__}: {str(reason)[:200]}).",
        hint="Add --executor processes, which does the same on one computer without Ray.",
    ) from reason


def _connect(ray: Any, address: str) -> None:
    """Connect to a cluster, after another process has: at an address without one Ray tries for many minutes."""
    try:
        _probe(address)
        with _silent():
            ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (Exception, SystemExit) as error:
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"There is no Ray cluster at {address} ({type(error).__name__}).",
            hint="Give HOST:PORT of its head, as `ray start --head` prints it, and its token in RAY_AUTH_TOKEN.",
        ) from error


def _probe(address: str) -> None:
    """Connect to a cluster in a process of its own, which can be ended.

    Raises:
        subprocess.SubprocessError: it failed, or did not end in time.
    """
    code = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False)"
    subprocess.run(
        [sys.executable, "-c", code, address],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=_PROBE_SECONDS,
        check=True,
    )


@contextmanager
def _silent() -> Iterator[None]:
    """Keep Ray's own messages, which name paths and ports, off the streams."""
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        yield
