"""A presegmenter runs in a process of its own: what it does wrong is one line, and nothing of it is left."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import psutil
import pytest
from DiffusionSegmentBackend.errors import Cancelled
from DiffusionSegmentBackend.presegmenters.run import last_line, run_in_child

SLEEP = "import time; time.sleep(60)"


def run(script: str, folder: Path, *, seconds: float = 60.0) -> int | None:
    return run_in_child([sys.executable, "-c", script], folder / "log.txt", folder, seconds=seconds)


@pytest.mark.parametrize(
    ("script", "status", "line"),
    [
        ("print('one\\ntwo\\r50 %\\r\\n')", 0, "50 %"),
        ("raise RuntimeError('wrong plans')", 1, "RuntimeError: wrong plans"),
        ("import sys; sys.exit(3)", 3, ""),
        ("import os, signal; print('begun', flush=True); os.kill(os.getpid(), signal.SIGKILL)", -9, "begun"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_the_status_and_the_last_line_of_the_process_are_known(
    tmp_path: Path, script: str, status: int, line: str
) -> None:
    assert run(script, tmp_path) == status
    assert last_line(tmp_path / "log.txt") == line


def test_a_process_that_hangs_is_ended_with_those_that_it_started(tmp_path: Path) -> None:
    script = f"""
import subprocess, sys, pathlib
child = subprocess.Popen([sys.executable, "-c", {SLEEP!r}])
pathlib.Path("child.txt").write_text(str(child.pid))
print("waiting", flush=True)
child.wait()
"""
    begun = time.monotonic()
    assert run(script, tmp_path, seconds=5.0) is None
    assert time.monotonic() - begun < 30
    assert last_line(tmp_path / "log.txt") == "waiting"
    pid = int((tmp_path / "child.txt").read_text(encoding="utf-8"))
    assert _is_gone(pid)


def test_a_process_that_ends_leaves_none_behind(tmp_path: Path) -> None:
    script = f"""
import subprocess, sys, pathlib
child = subprocess.Popen([sys.executable, "-c", {SLEEP!r}])
pathlib.Path("child.txt").write_text(str(child.pid))
"""
    assert run(script, tmp_path) == 0
    assert _is_gone(int((tmp_path / "child.txt").read_text(encoding="utf-8")))


def test_a_cancelled_run_ends_its_process_at_once(tmp_path: Path) -> None:
    calls = 0

    def cancelled_at_the_third_call() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Cancelled

    script = f"import os, pathlib; pathlib.Path('child.txt').write_text(str(os.getpid())); {SLEEP}"
    begun = time.monotonic()
    with pytest.raises(Cancelled):
        run_in_child(
            [sys.executable, "-c", script],
            tmp_path / "log.txt",
            tmp_path,
            seconds=60.0,
            check_cancelled=cancelled_at_the_third_call,
        )
    assert time.monotonic() - begun < 20
    started = tmp_path / "child.txt"
    assert not started.exists() or _is_gone(int(started.read_text(encoding="utf-8")))


def _is_gone(pid: int, *, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


def test_the_last_line_of_a_missing_log_is_empty(tmp_path: Path) -> None:
    assert last_line(tmp_path / "none.txt") == ""
