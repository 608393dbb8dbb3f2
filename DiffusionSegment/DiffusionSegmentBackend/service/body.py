"""The body of a request: never more than a limit, never slower than a rate."""

from __future__ import annotations

import asyncio
import time

from starlette.requests import ClientDisconnect, Request

from ..errors import DiffusionSegmentError, ErrorCode
from .limits import ServiceLimits


async def read_body(request: Request, max_bytes: int, limits: ServiceLimits) -> bytes:
    """The whole body, which may have `max_bytes`.

    Raises:
        DiffusionSegmentError: SERVER_LIMIT for a body that is longer, whether it says so or not, or too slow;
            PROTOCOL for a client that is gone before its end.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise _too_long()
    body, started = bytearray(), time.monotonic()
    stream = request.stream().__aiter__()
    while True:
        try:
            body += await asyncio.wait_for(stream.__anext__(), limits.body_seconds)
        except StopAsyncIteration:
            return bytes(body)
        except asyncio.TimeoutError as error:
            raise _too_slow() from error
        except ClientDisconnect as error:
            raise DiffusionSegmentError(ErrorCode.PROTOCOL, "The request ended too early.") from error
        if len(body) > max_bytes:
            raise _too_long()
        seconds = time.monotonic() - started - limits.body_seconds
        if seconds > 0 and len(body) < seconds * limits.body_rate:
            raise _too_slow()


def _too_long() -> DiffusionSegmentError:
    return DiffusionSegmentError(ErrorCode.SERVER_LIMIT, "The request is longer than the server takes.")


def _too_slow() -> DiffusionSegmentError:
    return DiffusionSegmentError(ErrorCode.SERVER_LIMIT, "The request arrives too slowly.")
