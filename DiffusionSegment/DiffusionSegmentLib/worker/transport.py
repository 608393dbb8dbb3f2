"""The worker as a QProcess with the Python of Slicer; events arrive through the Qt event loop."""

from __future__ import annotations

import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence

import qt
from DiffusionSegmentBackend.protocol.connection import write_connection

from .server_choice import ServerChoice
from .transport_protocol import LOG_LINES, REMOTE_ARGUMENTS, WORKER_ARGUMENTS, ignoreFinished, ignoreOutput

_SLEEP_SECONDS = 0.005


def processEvents() -> None:
    """Process pending Qt events, then sleep for a moment, so that a waiting script does not use a whole processor."""
    qt.QCoreApplication.processEvents()
    time.sleep(_SLEEP_SECONDS)


def slicerPython() -> str:
    """PythonSlicer where it is on the path, as in Slicer; else this interpreter."""
    return shutil.which("PythonSlicer") or sys.executable


def transportOf(server: ServerChoice) -> QProcessTransport:
    """The worker on this computer, or the client process of the chosen server."""
    if server.connection is None:
        return QProcessTransport()
    # By standard input, so that the token is in no argument or environment variable.
    return QProcessTransport([slicerPython(), *REMOTE_ARGUMENTS], firstInput=write_connection(server.connection))


class QProcessTransport:
    """Runs `command` (default: Slicer's Python with the bundled worker); its input begins with `firstInput`."""

    def __init__(self, command: Sequence[str] | None = None, *, firstInput: bytes = b"") -> None:
        self.onOutput: Callable[[bytes], None] = ignoreOutput
        self.onFinished: Callable[[int], None] = ignoreFinished
        self._command = list(command) if command else [slicerPython(), *WORKER_ARGUMENTS]
        self._firstInput = firstInput
        self._log: deque[str] = deque(maxlen=LOG_LINES)
        self._partialLine = b""
        self._process = qt.QProcess()
        environment = qt.QProcessEnvironment.systemEnvironment()
        for name, value in (
            ("PYTHONUTF8", "1"),
            ("PYTHONUNBUFFERED", "1"),
            ("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True"),
        ):
            environment.insert(name, value)
        self._process.setProcessEnvironment(environment)
        self._process.readyReadStandardOutput.connect(self._onReadyOutput)
        self._process.readyReadStandardError.connect(self._onReadyLog)
        self._process.finished.connect(self._onProcessFinished)

    def start(self) -> None:
        """Start the process; a failed start is reported as an exit."""
        self._process.start(self._command[0], self._command[1:])
        if not self._process.waitForStarted(5000):
            self._log.append(f"{self._command[0]} could not be started.")
            self.onFinished(-1)
        elif self._firstInput:
            self.write(self._firstInput)

    def _onReadyOutput(self) -> None:
        self.onOutput(self._process.readAllStandardOutput().data())

    def _onReadyLog(self) -> None:
        # Chunks may end anywhere, also within a character.
        *lines, self._partialLine = (self._partialLine + self._process.readAllStandardError().data()).split(b"\n")
        self._log.extend(line.decode(errors="replace").rstrip() for line in lines)

    def _onProcessFinished(self, exitCode: int) -> None:
        self._onReadyLog()
        self.onFinished(int(exitCode))

    def write(self, data: bytes) -> None:
        """Send bytes to standard input."""
        self._process.write(data)

    def closeInput(self) -> None:
        """Close standard input."""
        self._process.closeWriteChannel()

    def waitForFinished(self, seconds: float) -> bool:
        """Whether the process ended within that time."""
        if self._process.state() == qt.QProcess.NotRunning:
            return True
        return bool(self._process.waitForFinished(int(seconds * 1000)))

    def kill(self) -> None:
        """End the process."""
        self._process.kill()

    def log(self) -> str:
        """The last lines of standard error."""
        return "\n".join([*self._log, *([self._partialLine.decode(errors="replace")] if self._partialLine else [])])
