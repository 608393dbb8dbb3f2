"""Standard input, output and error as a program may find them: closed, a pipe nobody reads, a console of few letters.

Nothing that is only printed may end a run whose result is already written.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast


class TolerantStream:
    """A text stream that never fails: letters that it cannot encode become '?', and what nobody reads is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._gone = False

    def write(self, text: str) -> int:
        """Write what can be written; the length of `text`."""
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
        """Hand over what is buffered."""
        try:
            if not self._gone:
                self._stream.flush()
        except (OSError, ValueError):
            self._give_up()

    def _give_up(self) -> None:
        """What is still buffered would fail again when the interpreter ends: let it go nowhere."""
        self._gone = True
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def reserve_descriptors() -> None:
    """Fill descriptors 0 to 2 where they are closed: else the next file that is opened would be standard error."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is taken, which is this one.
            os.open(os.devnull, os.O_RDWR)


@contextmanager
def tolerant_streams() -> Iterator[None]:
    """Standard output and error that never fail; before and after, they are what they were."""
    before = sys.stdout, sys.stderr
    # Without a console (pythonw) and where a descriptor was closed, Python has None.
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        out, err = (TolerantStream(stream or nowhere) for stream in before)
        sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
        try:
            yield
        finally:
            out.flush()
            err.flush()
            sys.stdout, sys.stderr = before
