"""The process between Slicer and a server: a worker's JSON lines on standard input and output, HTTPS on the other side.

Slicer starts it instead of a worker and sees no difference. The first line names the server, see
`protocol.connection`. Standard library and numpy alone.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from typing import BinaryIO

from ..errors import DiffusionSegmentError, ErrorCode, from_os_error
from ..process.logs import configure_logging
from ..process.standard_streams import reserve_descriptors
from ..protocol.connection import read_connection
from ..protocol.messages import (
    MAX_LINE_BYTES,
    PROTOCOL_VERSION,
    Cancel,
    CancelledNotice,
    Error,
    ExportDicom,
    FineTune,
    Hello,
    ImportModel,
    Message,
    Presegment,
    Task,
    WriteReport,
)
from ..worker.message_stream import Outbox, messages_of, refuse_busy
from .http_client import ServerClient
from .local_worker import LocalWorker
from .remote_session import RemoteSession

# What reads or writes files of this computer, its DICOM files and models, or runs its programs.
LOCAL = (WriteReport, ExportDicom, ImportModel, FineTune, Presegment)

_log = logging.getLogger(__name__)


class Bridge:
    """Passes the requests of one Slicer on, one at a time."""

    def __init__(self, client: ServerClient, outbox: Outbox) -> None:
        self._outbox = outbox
        self._session = RemoteSession(client, outbox.send)
        self._local = LocalWorker(outbox.send)
        self._task: Task | None = None
        self._stopped = threading.Event()
        self._lock = threading.Lock()

    def run(self, stream: BinaryIO) -> None:
        """Read messages until the stream ends or `shutdown` comes; then end the session on the server."""
        for message in messages_of(stream, self._outbox):
            self._take(message)
        self._stopped.set()
        self._session.close()
        self._local.close()

    def _take(self, message: Message) -> None:
        if isinstance(message, Cancel):
            self._cancel(message)
        elif isinstance(message, Task):
            with self._lock:
                free = self._task is None
                if free:
                    self._task = message
                    self._stopped.clear()
            if free:
                threading.Thread(target=self._serve, args=(message,), daemon=True).start()
            else:
                refuse_busy(message, self._outbox)

    def _cancel(self, message: Cancel) -> None:
        with self._lock:
            task = self._task
        if task is None or task.id != message.id:
            return
        self._stopped.set()
        if isinstance(task, LOCAL):
            self._local.write(message)
        else:
            # On a thread of its own, because the server may be away and messages have to be read on.
            threading.Thread(target=self._session.cancel, daemon=True).start()

    def _serve(self, task: Task) -> None:
        """Run a task; whatever happens, its last message is sent once the next task may come."""
        last = self._last_message(task)
        with self._lock:
            self._task = None
        self._outbox.send(last)

    def _last_message(self, task: Task) -> Message:
        try:
            if isinstance(task, LOCAL):
                return self._local.run(task)
            return self._session.run(task, self._stopped.is_set)
        except DiffusionSegmentError as error:
            cancelled = error.code is ErrorCode.CANCELLED
            return CancelledNotice(id=task.id) if cancelled else Error.of(error, task.id)
        except OSError as error:
            return Error.of(from_os_error(error, task.output_folder), task.id)
        except Exception as error:
            _log.error("a request failed: %s", type(error).__name__)
            unknown = DiffusionSegmentError(ErrorCode.INTERNAL, f"The request failed ({type(error).__name__}).")
            return Error.of(unknown, task.id)


def greeting(client: ServerClient) -> Hello:
    """The server's versions and models as the first line of a worker.

    Raises:
        DiffusionSegmentError: As `ServerClient.ask_once`; SERVER_ANSWER for another service or version.
    """
    try:
        values = json.loads(client.ask_once("GET", "/v1/hello"))
        protocol, version = int(values["protocol"]), str(values["version"])
        hello = Hello(
            pid=os.getpid(),
            protocol=PROTOCOL_VERSION,
            version=version,
            device=str(values["device"]),
            torch=str(values["torch"]),
            models=tuple(str(name) for name in values["models"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DiffusionSegmentError(
            ErrorCode.SERVER_ANSWER, "Another service answered.", hint="Check the address of the server."
        ) from error
    if protocol != PROTOCOL_VERSION:
        raise DiffusionSegmentError(
            ErrorCode.SERVER_ANSWER,
            f"The server has version {version}, which does not fit this one.",
            hint="Install the same version on both.",
        )
    return hello


def main() -> None:
    """Serve on stdin and stdout until stdin closes; an error without an id says why there is no connection."""
    reserve_descriptors()
    configure_logging(show=True)
    outbox = Outbox(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    stream = sys.stdin.buffer
    try:
        client = ServerClient(read_connection(stream.readline(MAX_LINE_BYTES)))
        outbox.send(greeting(client))
    except DiffusionSegmentError as error:
        outbox.send(Error.of(error))
        os._exit(0)
    Bridge(client, outbox).run(stream)
    os._exit(0)
