"""The lines of a stream that arrives in pieces; standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import DiffusionSegmentError, ErrorCode
from .messages import MAX_LINE_BYTES


@dataclass
class LineBuffer:
    """Joins the pieces in which a pipe delivers its bytes into whole lines."""

    _rest: bytes = field(default=b"")

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines completed by `chunk`, without their newline.

        Raises:
            DiffusionSegmentError: PROTOCOL when more than MAX_LINE_BYTES arrive without a newline.
        """
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            self._rest = b""
            raise DiffusionSegmentError(ErrorCode.PROTOCOL, "The other side sent an endless line.")
        return [line for line in lines if line.strip()]
