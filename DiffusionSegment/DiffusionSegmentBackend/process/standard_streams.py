"""Robust standard streams: closed ones, broken pipes, consoles with a limited character set.

Failed printing must not end a run whose result is already written.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast


class TolerantStream:
    """A text stream that never fails: unencodable characters become '?', and output to a broken pipe is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._gone = False

    def write(self, text: str) -> int:
        """Write as far as possible; returns the length of `text`."""
        try:
            if not self._gone:
                self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding or "ascii"
            self.write(text.encode(encoding, errors="replace").decode(encoding))
        except (OSError, ValueError):
            self._give_up()
        return len(text)

    def flush(self) -> None:
        """Flush the buffer."""
        try:
            if not self._gone:
                self._stream.flush()
        except (OSError, ValueError):
            self._give_up()

    def _give_up(self) -> None:
        """Redirect the stream to the null device, because its buffer would fail again at exit."""
        self._gone = True
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def reserve_descriptors() -> None:
    """Open the null device for closed descriptors 0 to 2, which the next opened files would get otherwise."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free descriptor is used, which is this one.
            os.open(os.devnull, os.O_RDWR)


@contextmanager
def tolerant_streams() -> Iterator[None]:
    """Replace standard output and error by streams that never fail."""
    before = sys.stdout, sys.stderr
    # Without a console (pythonw) and where a descriptor was closed, Python has None.
    with open(os.devnull, "w", encoding="utf-8") as null:
        out, err = (TolerantStream(stream or null) for stream in before)
        sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
        try:
            yield
        finally:
            out.flush()
            err.flush()
            sys.stdout, sys.stderr = before
