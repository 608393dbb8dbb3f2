"""The end of a process together with all that it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress

import psutil


def end_tree(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that was started in a session of its own, with all that it started, and wait for its end."""
    if sys.platform != "win32":
        # The session has those too that outlived the process.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.kill()
    process.kill()
    process.wait()
