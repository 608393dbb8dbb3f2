"""A session on the server: its volumes, and the runs of one after the other."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

from ..errors import Cancelled, DiffusionSegmentError, ErrorCode
from ..protocol.messages import (
    ANSWERS,
    CancelledNotice,
    Error,
    Message,
    Progress,
    Request,
    Task,
    VolumeReference,
    decode,
    encode,
)
from ..protocol.slabs import Codec, installed_codecs
from .http_client import ServerClient
from .transfer import Transfer, TransferWatch

_ENDS = (*ANSWERS, Error, CancelledNotice)


@dataclass(frozen=True)
class _Sent:
    """A volume on the server, and what its local file was when it was sent."""

    name: str
    size: int
    modified_ns: int


class RemoteSession:
    """Runs tasks on the server; `send` gets their messages but the last."""

    def __init__(self, client: ServerClient, send: Callable[[Message], None]) -> None:
        self._client = client
        self._send = send
        self._transfer = Transfer(client, (Codec.RAW,))
        self._id = ""
        self._sent: dict[str, _Sent] = {}
        self._current = ""

    def run(self, task: Task, stopped: Callable[[], bool]) -> Message:
        """Run a task and return its last message; where the session was lost, once more from its beginning.

        Raises:
            DiffusionSegmentError: CANCELLED when `stopped` became true; as `ServerClient.ask` and `Transfer`.
        """
        try:
            return self._run(task, stopped)
        except DiffusionSegmentError as error:
            if error.code is not ErrorCode.SESSION_LOST:
                raise
            self._id, self._sent = "", {}
            return self._run(task, stopped)

    def cancel(self) -> None:
        """Ask the server to stop the current run; called from another thread after `stopped` has become true."""
        path = self._current
        if path:
            try:
                self._client.ask_once("DELETE", path)
            except DiffusionSegmentError:
                self._client.interrupt()

    def close(self) -> None:
        """End the session on the server, if it can be reached."""
        if self._id:
            with contextlib.suppress(DiffusionSegmentError):
                self._client.ask_once("DELETE", self._path)
            self._id, self._sent = "", {}

    @property
    def _path(self) -> str:
        return f"/v1/sessions/{self._id}"

    def _run(self, task: Task, stopped: Callable[[], bool]) -> Message:
        def retrying(attempt: int) -> None:
            if stopped():
                raise Cancelled
            self._send(Progress(id=task.id, stage="reconnect", done=attempt, total=0))

        def watch(stage: str) -> TransferWatch:
            def moved(done: int, total: int) -> None:
                if stopped():
                    raise Cancelled
                self._send(Progress(id=task.id, stage=stage, done=done, total=total))

            return TransferWatch(moved, retrying)

        if not self._id:
            identifier = uuid.uuid4().hex
            opened = json.loads(self._client.ask("PUT", f"/v1/sessions/{identifier}", retrying=retrying))
            common = [codec for codec in installed_codecs() if codec in opened["codecs"]]
            self._id, self._transfer = identifier, Transfer(self._client, common)
        volumes = {name: self._upload(ref, watch("upload")) for name, ref in _references(task).items()}
        run = uuid.uuid4().hex
        path = f"{self._path}/runs/{run}"
        try:
            body = encode(replace(task, id=run, output_folder="", **volumes))
            self._client.ask("PUT", path, body, retrying=retrying)
            self._current = path
            if stopped():
                raise Cancelled
            answer = self._follow(task, path, watch("download"))
        except BaseException:
            with contextlib.suppress(DiffusionSegmentError):
                self._client.ask_once("DELETE", path)
            raise
        finally:
            self._current = ""
        self._forget_all_but(task.volume.path if isinstance(task, Request) else "")
        return answer

    def _upload(self, reference: VolumeReference, watch: TransferWatch) -> VolumeReference:
        """The reference to a volume on the server; its voxels are sent unless they are there."""
        try:
            state = os.stat(reference.path)
        except OSError as error:
            raise DiffusionSegmentError(ErrorCode.INPUT_MISSING, "The volume buffer is gone.") from error
        sent = self._sent.get(reference.path)
        if sent is None or (sent.size, sent.modified_ns) != (state.st_size, state.st_mtime_ns):
            sent = _Sent(uuid.uuid4().hex, state.st_size, state.st_mtime_ns)
            self._transfer.upload(reference, f"{self._path}/volumes/{sent.name}", watch)
            self._sent[reference.path] = sent
        return replace(reference, path=sent.name)

    def _forget_all_but(self, kept: str) -> None:
        """Delete the volumes of a run on the server but its scan, on which more requests may follow."""
        for path in [path for path in self._sent if path != kept]:
            with contextlib.suppress(DiffusionSegmentError):
                self._client.ask_once("DELETE", f"{self._path}/volumes/{self._sent.pop(path).name}")

    def _follow(self, task: Task, path: str, watch: TransferWatch) -> Message:
        """Pass the messages of a run on and return the last; reads on after a loss of the connection."""
        count, patience = 0, self._client.patience(watch.retrying)
        while True:
            try:
                for line in self._client.lines(f"{path}/messages?after={count}"):
                    patience.reset()
                    if not line.strip():
                        continue
                    count += 1
                    message = self._received(task, decode(line), watch)
                    if isinstance(message, _ENDS):
                        return message
                    self._send(message)
            except DiffusionSegmentError as error:
                if error.code is not ErrorCode.SERVER_UNREACHABLE:
                    raise
            # The connection was lost, or the server has ended the stream, because it stops.
            if not patience.wait():
                raise _lost()

    def _received(self, task: Task, message: Message, watch: TransferWatch) -> Message:
        """A message as a local worker would have sent it, its volumes in local files."""
        volumes = {
            name: self._transfer.download(
                reference,
                f"{self._path}/volumes/{reference.path}",
                Path(task.output_folder) / f"{Path(task.id).name}-{message.type}-{name}.raw",
                watch,
            )
            for name, reference in _references(message).items()
        }
        return replace(message, id=task.id, **volumes)  # type: ignore[call-arg]


def _references(message: Message) -> dict[str, VolumeReference]:
    """The volumes of a message by field."""
    values = {item.name: getattr(message, item.name) for item in fields(message)}
    return {name: value for name, value in values.items() if isinstance(value, VolumeReference)}


def _lost() -> DiffusionSegmentError:
    return DiffusionSegmentError(
        ErrorCode.SERVER_UNREACHABLE,
        "The connection to the server was lost during the run.",
        hint="Nothing was changed. Try again, or run on this computer.",
    )
