"""uvicorn's HTTP protocol with limits that it does not have: for the head of a request, and for who reads slowly."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

from .limits import ServiceLimits

_log = logging.getLogger(__name__)


class LimitedProtocol(H11Protocol):
    """Closes a connection that sends no complete request head, or does not read what is sent to it, in time."""

    limits: ClassVar[ServiceLimits]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection: its first head is expected."""
        self._head_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """A part of a head or body arrived."""
        super().data_received(data)
        if self._idle:
            self._expect_head()
        else:
            self._forget_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection ended."""
        self._forget_timer()
        self._forget_send_timer()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """uvicorn's own limit holds until the next head begins."""
        self._forget_timer()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """More than a little waits to be sent."""
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        """The client has read on."""
        self._forget_send_timer()
        super().resume_writing()

    def _watch_writing(self) -> None:
        waiting = self.transport.get_write_buffer_size()
        self._send_timer = self.loop.call_later(self.limits.send_seconds, self._check_writing, waiting)

    def _check_writing(self, before: int) -> None:
        """Not `close`, which would wait until everything was sent."""
        taken = before - self.transport.get_write_buffer_size()
        if taken < self.limits.send_seconds * self.limits.body_rate:
            _log.warning("a client reads too slowly")
            self.transport.abort()
        else:
            self._watch_writing()

    def _forget_send_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    @property
    def _idle(self) -> bool:
        """Whether no request is in progress."""
        return self.cycle is None or self.cycle.response_complete

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.limits.head_seconds, self._close_idle)

    def _forget_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _close_idle(self) -> None:
        self._head_timer = None
        if self._idle and not self.transport.is_closing():
            self.transport.close()


def connection_options(limits: ServiceLimits) -> dict[str, Any]:
    """Options of uvicorn for connections."""
    return {
        "http": type("ServiceProtocol", (LimitedProtocol,), {"limits": limits}),
        "ws": "none",
        "limit_concurrency": limits.max_connections,
        "timeout_keep_alive": 30,
        "h11_max_incomplete_event_size": 16 * 1024,
    }
