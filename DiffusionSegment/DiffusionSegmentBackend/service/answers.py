"""HTTP answers: the status of an error's code, and a body that is the worker's error message."""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.responses import Response

from ..errors import DiffusionSegmentError, ErrorCode
from ..protocol.messages import Error, encode
from ..protocol.slabs import Bytes

_STATUS = {
    ErrorCode.SERVER_TOKEN: 401,
    ErrorCode.SESSION_LOST: 404,
    ErrorCode.BUSY: 409,
    ErrorCode.SERVER_LIMIT: 413,
    ErrorCode.SERVER_FULL: 503,
    ErrorCode.DISK_FULL: 507,
    ErrorCode.INTERNAL: 500,
}
_NO_CACHE = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


def json_answer(content: object, status: int = 200) -> Response:
    """An answer in JSON."""
    return Response(json.dumps(content), status, media_type="application/json", headers=_NO_CACHE)


def error_answer(
    error: DiffusionSegmentError, *, status: int = 0, headers: Mapping[str, str] | None = None
) -> Response:
    """A refusal; the connection ends with it, because the rest of the request was not read."""
    status = status or _STATUS.get(error.code, 400)
    all_headers = {**_NO_CACHE, "connection": "close", **(headers or {})}
    return Response(encode(Error.of(error)), status, media_type="application/json", headers=all_headers)


def bytes_answer(content: Bytes) -> Response:
    """A slab."""
    return Response(content, media_type="application/octet-stream", headers=_NO_CACHE)
