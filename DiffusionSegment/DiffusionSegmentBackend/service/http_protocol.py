"""uvicorn's HTTP protocol with a time limit for the head of a request, which uvicorn itself does not have."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol


class HeadLimitProtocol(H11Protocol):
    """Closes a connection that sends no complete request head within `head_seconds`."""

    head_seconds: ClassVar[float]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection: its first head is expected."""
        self._head_timer: asyncio.TimerHandle | None = None
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
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """uvicorn's own limit holds until the next head begins."""
        self._forget_timer()
        super().on_response_complete()

    @property
    def _idle(self) -> bool:
        """Whether no request is in progress."""
        return self.cycle is None or self.cycle.response_complete

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_seconds, self._close_idle)

    def _forget_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _close_idle(self) -> None:
        self._head_timer = None
        if self._idle and not self.transport.is_closing():
            self.transport.close()


def connection_options(seconds: float, max_connections: int) -> dict[str, Any]:
    """Options of uvicorn for connections."""
    return {
        "http": type("ServiceProtocol", (HeadLimitProtocol,), {"head_seconds": seconds}),
        "ws": "none",
        "limit_concurrency": max_connections,
        "timeout_keep_alive": 30,
        "h11_max_incomplete_event_size": 16 * 1024,
    }
