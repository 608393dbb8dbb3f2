"""Running a presegmenter in a process of its own, which may crash, hang or take all memory without harm."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.volume import Volume
from ..imaging.volume_io import write_map
from ..process.process_tree import end_tree
from .plugin import DEFAULT_LIMIT_MIN, PresegmenterModel

_MINUTE = 60.0
_POLL_S = 0.2
_MAX_LOG_BYTES = 65536
_REVIEW_A_FILE = "Run the model in its own program, and review its label map with --segmentation."
_PACKAGE_FOLDER = Path(__file__).resolve().parents[2]
# nnU-Net warns of these where they are missing; no data of them is used. Compiling takes longer than one scan.
_ENVIRONMENT = {"nnUNet_compile": "f", "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8:replace"}
_NNUNET_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


@dataclass(frozen=True, kw_only=True)
class RunLimits:
    """Where and how long a presegmenter runs: the device, and minutes after which it is stopped."""

    device: str = "auto"
    minutes: float = DEFAULT_LIMIT_MIN


def _keep_running() -> None:
    """Nobody stops the run."""


def run_presegmenter(
    model: PresegmenterModel,
    volume: Volume,
    folder: Path,
    limits: RunLimits,
    *,
    check_cancelled: Callable[[], None] = _keep_running,
) -> Path:
    """Segment a scan with a model of another program; returns the label map, a file in `folder`.

    Args:
        model: the model.
        volume: the scan (k, j, i), in HU for a CT.
        folder: an empty folder for the files of the run, which the caller deletes.
        limits: device and time.
        check_cancelled: called several times a second; what it raises stops the process.

    Raises:
        DiffusionSegmentError: PRESEGMENTER_FAILED, with the last line that the process printed, for one that fails, is
            stopped, does not end in time, or writes no label map; what writing the scan raises.
    """
    scan, output = folder / f"scan{model.suffix}", folder / "segmentation.nii.gz"
    write_map(volume, scan)
    request = {"kind": model.kind, "folder": str(model.folder), "scan": str(scan), "output": str(output)}
    (folder / "request.json").write_text(json.dumps({**request, "device": limits.device}), encoding="utf-8")
    log = folder / "log.txt"
    status = run_in_child(
        child_command(folder / "request.json"),
        log,
        folder,
        seconds=limits.minutes * _MINUTE,
        check_cancelled=check_cancelled,
    )
    if status is None:
        raise _failure(
            model,
            f"did not end within {limits.minutes:g} min",
            log,
            hint="Give it more minutes (--time-limit, or limitMinutes in a script), or run it in its own program.",
        )
    if status < 0:
        raise _failure(model, f"was stopped by the system (signal {-status}), perhaps for lack of memory", log)
    if status > 0:
        raise _failure(model, f"failed with status {status}", log)
    if not output.is_file():
        raise _failure(model, "wrote no label map", log)
    return output


def child_command(request: Path) -> list[str]:
    """The command line of the child process that carries out a request."""
    return [sys.executable, "-m", f"{__package__}.child", str(request)]


def run_in_child(
    command: Sequence[str],
    log: Path,
    folder: Path,
    *,
    seconds: float,
    check_cancelled: Callable[[], None] = _keep_running,
) -> int | None:
    """Run a command in a process of its own; returns its exit status, None if it was ended after `seconds`.

    What `check_cancelled` raises, several times a second, ends it too. Whatever happens, the process and those that it
    started are gone afterwards. What it prints is in `log`.
    """
    environment = {**os.environ, **_ENVIRONMENT}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_PACKAGE_FOLDER), os.environ.get("PYTHONPATH"))))
    for name in _NNUNET_FOLDERS:
        environment.setdefault(name, str(folder))
    deadline = time.monotonic() + seconds
    with open(log, "wb") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
        try:
            while process.poll() is None and time.monotonic() < deadline:
                check_cancelled()
                time.sleep(_POLL_S)
            return process.poll()
        finally:
            end_tree(process)


def last_line(log: Path) -> str:
    """The last line with text that a process printed; empty if there is none."""
    with suppress(OSError), open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - _MAX_LOG_BYTES))
        lines = re.split(r"[\r\n]+", file.read().decode(encoding="utf-8", errors="replace"))
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    return ""


def _failure(model: PresegmenterModel, what: str, log: Path, *, hint: str = _REVIEW_A_FILE) -> DiffusionSegmentError:
    line = last_line(log)
    printed = f"; it printed last: {line.rstrip('. ')}" if line else ""
    return DiffusionSegmentError(ErrorCode.PRESEGMENTER_FAILED, f"{model.title} {what}{printed}.", hint=hint)
