"""The body of a request: never more than a limit, never slower than a rate."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request

from ..errors import DiffusionSegmentError, ErrorCode
from .limits import ServiceLimits


@dataclass
class _Body:
    """A buffer, and the bytes received in it so far."""

    buffer: memoryview
    size: int = 0

    async def read(self, request: Request) -> None:
        """Read to the end."""
        try:
            async for piece in request.stream():
                end = self.size + len(piece)
                if end > len(self.buffer):
                    raise _too_long()
                self.buffer[self.size : end] = piece
                self.size = end
        except ClientDisconnect as error:
            raise DiffusionSegmentError(ErrorCode.PROTOCOL, "The request ended too early.") from error


async def read_body(request: Request, buffer: bytearray, limits: ServiceLimits) -> memoryview:
    """The whole body, in the beginning of a buffer, which is as long as the longest body that is allowed.

    Raises:
        DiffusionSegmentError: SERVER_LIMIT for a body that is longer, whether it says so or not, or too slow;
            PROTOCOL for a client that is gone before its end.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > len(buffer):
        raise _too_long()
    body = _Body(memoryview(buffer))
    reading = asyncio.ensure_future(body.read(request))
    started, seen = time.monotonic(), -1
    try:
        while not reading.done():
            # One timer for many pieces, which are 64 kB each.
            await asyncio.wait((reading,), timeout=limits.body_seconds)
            seconds = time.monotonic() - started - limits.body_seconds
            if not reading.done() and (body.size == seen or body.size < seconds * limits.body_rate):
                raise DiffusionSegmentError(ErrorCode.SERVER_LIMIT, "The request arrives too slowly.")
            seen = body.size
        reading.result()
    finally:
        reading.cancel()
    return body.buffer[: body.size]


def _too_long() -> DiffusionSegmentError:
    return DiffusionSegmentError(ErrorCode.SERVER_LIMIT, "The request is longer than the server takes.")
