"""The routes of the server: sessions, volumes in slabs, runs and their messages."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from .. import __version__
from ..errors import DiffusionSegmentError, ErrorCode
from ..models.folders import installed_descriptions
from ..protocol.messages import MAX_LINE_BYTES, PROTOCOL_VERSION, Task, decode
from ..protocol.slabs import MAX_ENCODED_BYTES, codec_named, installed_codecs
from .answers import bytes_answer, json_answer
from .body import read_body
from .metrics import Metrics
from .rate_window import RateWindow
from .run import Run
from .session import SERVED, Session
from .sessions import Sessions
from .volume_files import IDENTIFIER, VolumeFile, declare, read_slab, write_slab

_MAX_DECLARATION = 4096
_KEPT_BUFFERS = 4
_STREAM_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


class Routes:
    """The functions behind the routes.

    Args:
        sessions: The open sessions.
        metrics: What is counted.
        device: Where the networks run: auto, cpu or cuda.
        stopping: Set when the server stops, which ends every stream.
    """

    def __init__(self, sessions: Sessions, metrics: Metrics, device: str, stopping: asyncio.Event) -> None:
        self._sessions = sessions
        self._metrics = metrics
        self._device = device
        self._stopping = stopping
        self._openings = RateWindow(sessions.limits.openings_per_minute)
        self._bodies: Counter[str] = Counter()
        self._buffers: list[bytearray] = []

    def table(self) -> list[Route]:
        """All routes."""
        session, volume = "/v1/sessions/{session}", "/v1/sessions/{session}/volumes/{volume}"
        run = "/v1/sessions/{session}/runs/{run}"
        return [
            Route("/healthz", self.health),
            Route("/readyz", self.ready),
            Route("/metrics", self.metrics),
            Route("/v1/hello", self.hello),
            Route(session, self.open_session, methods=["PUT"]),
            Route(session, self.close_session, methods=["DELETE"]),
            Route(volume, self.declare_volume, methods=["PUT"]),
            Route(volume, self.remove_volume, methods=["DELETE"]),
            Route(volume + "/slabs/{slab:int}", self.put_slab, methods=["PUT"]),
            Route(volume + "/slabs/{slab:int}", self.get_slab, methods=["GET"]),
            Route(run, self.start_run, methods=["PUT"]),
            Route(run, self.cancel_run, methods=["DELETE"]),
            Route(run + "/messages", self.messages, methods=["GET"]),
        ]

    async def health(self, _: Request) -> Response:
        """Whether the process answers."""
        return PlainTextResponse("ok\n")

    async def ready(self, _: Request) -> Response:
        """Whether new work is accepted: not while stopping, not with a full disk."""
        try:
            self._sessions.check_disk(0)
        except DiffusionSegmentError:
            return PlainTextResponse("the disk is full\n", 503)
        stopping = self._stopping.is_set()
        return PlainTextResponse("stopping\n" if stopping else "ready\n", 503 if stopping else 200)

    async def metrics(self, _: Request) -> Response:
        """The metrics in Prometheus' text format."""
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    async def hello(self, _: Request) -> Response:
        """Versions, models, and the limits that a client has to know."""
        from ..worker.server import torch_version

        return json_answer(
            {
                "service": "diffusion-segment",
                "version": __version__,
                "protocol": PROTOCOL_VERSION,
                "device": self._device,
                "torch": torch_version(),
                "models": list(installed_descriptions()),
                "max_volume_bytes": self._sessions.limits.max_volume_bytes,
            }
        )

    async def open_session(self, request: Request) -> Response:
        """Open a session under an id that the client has drawn; again is the same. Answers the codecs for slabs."""
        user, identifier = request.scope["user"], request.path_params["session"]
        if identifier not in self._sessions.opened:
            self._count_opening(user)
        session = self._sessions.open(identifier, user)
        return json_answer({"session": session.id, "codecs": installed_codecs()})

    async def close_session(self, request: Request) -> Response:
        """End a session and everything of it."""
        await asyncio.shield(self._sessions.drop(self._session(request), "closed by its user"))
        return json_answer({})

    async def declare_volume(self, request: Request) -> Response:
        """Declare a volume before its slabs are sent; answers which of them are missing."""
        session, identifier = self._session(request), _identifier(request, "volume")
        shape, dtype = _declaration(bytes(await read_body(request, bytearray(_MAX_DECLARATION), self._sessions.limits)))
        limits, volume = self._sessions.limits, session.volumes.get(identifier)
        if volume is None:
            left = limits.max_session_bytes - session.volume_bytes
            if len(session.volumes) >= limits.max_volumes:
                raise DiffusionSegmentError(ErrorCode.SERVER_LIMIT, "The session has too many volumes.")
            volume = declare(session.folder, shape, dtype, max_bytes=min(limits.max_volume_bytes, left))
            session.volumes[identifier] = volume
            try:
                self._sessions.check_disk(volume.total)
            except DiffusionSegmentError:
                session.remove(identifier)
                raise
        elif (volume.shape, volume.dtype) != (shape, dtype):
            raise DiffusionSegmentError(ErrorCode.PROTOCOL, "The volume was declared with another shape or type.")
        return json_answer({"missing": sorted(volume.missing)})

    async def remove_volume(self, request: Request) -> Response:
        """Delete a volume that the client does not need any more."""
        session, name = self._session(request), request.path_params["volume"]
        if session.busy:
            raise DiffusionSegmentError(ErrorCode.BUSY, "A run is in progress.", hint="Wait for its end.")
        session.remove(name)
        return json_answer({})

    async def put_slab(self, request: Request) -> Response:
        """Receive a slab of a declared volume; the same slab again is no error."""
        session, volume = self._session(request), self._volume(request)
        if session.busy:
            raise DiffusionSegmentError(ErrorCode.BUSY, "A run is in progress.", hint="Wait for its end.")
        codec = codec_named(request.query_params.get("codec", ""))
        with self._receiving(session.user) as buffer:
            encoded = await read_body(request, buffer, self._sessions.limits)
            self._metrics.bytes_in.inc(len(encoded))
            await asyncio.to_thread(write_slab, volume, request.path_params["slab"], encoded, codec)
        session.used = time.monotonic()
        return json_answer({})

    async def get_slab(self, request: Request) -> Response:
        """Send a slab of a volume with the codec that the client asks for."""
        volume = self._volume(request)
        codec = codec_named(request.query_params.get("codec", ""))
        encoded = await asyncio.to_thread(read_slab, volume, request.path_params["slab"], codec)
        self._metrics.bytes_out.inc(len(encoded))
        return bytes_answer(encoded)

    async def start_run(self, request: Request) -> Response:
        """Start a run; the same run again is no error."""
        session, identifier = self._session(request), _identifier(request, "run")
        task = decode(bytes(await read_body(request, bytearray(MAX_LINE_BYTES), self._sessions.limits)))
        if not isinstance(task, SERVED) or task.id != identifier:
            raise DiffusionSegmentError(ErrorCode.PROTOCOL, "The server does not run this kind of request.")
        if session.run is None or session.run.id != identifier:
            self._count_opening(session.user)
            await self._sessions.free_memory()
        session.start(self._admissible(task), self._sessions.queue, self._metrics.run_ended, self._sessions.limits)
        return json_answer({})

    def _admissible(self, task: Task) -> Task:
        """The task on the server's device.

        Raises:
            DiffusionSegmentError: MODEL_UNKNOWN for any but the name of an installed model, such as a path.
        """
        model = getattr(task, "model", None)
        if model is not None and model not in installed_descriptions():
            raise DiffusionSegmentError(ErrorCode.MODEL_UNKNOWN, "The server does not have this model.")
        return replace(task, device=self._device)  # type: ignore[call-arg]

    async def cancel_run(self, request: Request) -> Response:
        """Cancel a run within one denoising step."""
        session, _ = self._run(request)
        session.cancel()
        return json_answer({})

    async def messages(self, request: Request) -> Response:
        """The lines of a run after the first `after`, until its end; empty ones show that the server is there."""
        _, run = self._run(request)
        after = request.query_params.get("after", "0")
        if not after.isdigit():
            raise DiffusionSegmentError(ErrorCode.PROTOCOL, "`after` is no number.")
        lines = self._follow(run, int(after))
        return StreamingResponse(lines, media_type="application/x-ndjson", headers=_STREAM_HEADERS)

    async def _follow(self, run: Run, count: int) -> AsyncIterator[bytes]:
        run.readers += 1
        try:
            while not self._stopping.is_set():
                lines = await run.after(count, self._sessions.limits.heartbeat_seconds)
                count += len(lines)
                yield b"".join(lines) or b"\n"
                if run.finished and count >= len(run.lines):
                    return
        finally:
            run.readers -= 1
            run.seen = time.monotonic()

    def _session(self, request: Request) -> Session:
        return self._sessions.of(request.path_params["session"], request.scope["user"])

    def _volume(self, request: Request) -> VolumeFile:
        volume = self._session(request).volumes.get(request.path_params["volume"])
        if volume is None:
            raise DiffusionSegmentError(ErrorCode.SESSION_LOST, "The server does not have this volume.")
        return volume

    def _run(self, request: Request) -> tuple[Session, Run]:
        session = self._session(request)
        if session.run is None or session.run.id != request.path_params["run"]:
            raise DiffusionSegmentError(ErrorCode.SESSION_LOST, "The server does not have this run.")
        return session, session.run

    def _count_opening(self, user: str) -> None:
        if self._openings.exceeded(user):
            raise DiffusionSegmentError(
                ErrorCode.SERVER_LIMIT, "Too many runs within a minute.", hint="Wait a minute, then try again."
            )
        self._openings.add(user)

    @contextmanager
    def _receiving(self, user: str) -> Iterator[bytearray]:
        """A buffer for an upload of a user, who may have some of them at once.

        Buffers are used again: a new one would cost a page fault for every 4 kB.
        """
        if self._bodies[user] >= self._sessions.limits.bodies_per_user:
            raise DiffusionSegmentError(ErrorCode.SERVER_LIMIT, "Too many uploads at once.")
        self._bodies[user] += 1
        buffer = self._buffers.pop() if self._buffers else bytearray(MAX_ENCODED_BYTES)
        try:
            yield buffer
            if len(self._buffers) < _KEPT_BUFFERS:
                self._buffers.append(buffer)
        finally:
            self._bodies[user] -= 1


def _identifier(request: Request, name: str) -> str:
    identifier = str(request.path_params[name])
    if not IDENTIFIER.fullmatch(identifier):
        raise DiffusionSegmentError(ErrorCode.PROTOCOL, f"This is no id of a {name}.")
    return identifier


def _declaration(body: bytes) -> tuple[tuple[int, ...], str]:
    """Shape and type that a client declares.

    Raises:
        DiffusionSegmentError: PROTOCOL.
    """
    try:
        declared: dict[str, Any] = json.loads(body)
        shape, dtype = declared["shape"], declared["dtype"]
        if not isinstance(dtype, str) or not all(type(n) is int for n in shape):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DiffusionSegmentError(ErrorCode.PROTOCOL, "A declaration has a shape and a dtype.") from error
    return tuple(shape), dtype
