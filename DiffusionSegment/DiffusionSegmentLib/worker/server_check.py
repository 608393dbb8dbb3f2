"""Asks a server for its version without a session: the client process is started, and its first line is the answer."""

from __future__ import annotations

from collections.abc import Callable

from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol.line_buffer import LineBuffer
from DiffusionSegmentBackend.protocol.messages import Error, Hello, decode

from .transport_protocol import Transport, ignoreFinished, ignoreOutput

# Gets the hello of the server, or why there is none.
Checked = Callable[["Hello | DiffusionSegmentError"], None]


class ServerCheck:
    """One check; `checked` is called once."""

    def __init__(self, transport: Transport, checked: Checked) -> None:
        self._transport = transport
        self._checked = checked
        self._lines = LineBuffer()

    def start(self) -> None:
        """Start the client process."""
        self._transport.onOutput = self._onOutput
        self._transport.onFinished = self._onFinished
        self._transport.start()

    def close(self) -> None:
        """End the process without an answer."""
        self._transport.onOutput, self._transport.onFinished = ignoreOutput, ignoreFinished
        self._transport.closeInput()
        if not self._transport.waitForFinished(0.5):
            self._transport.kill()

    def _onOutput(self, chunk: bytes) -> None:
        try:
            messages = [decode(line) for line in self._lines.feed(chunk)]
        except DiffusionSegmentError as error:
            self._end(error)
            return
        for message in messages:
            if isinstance(message, Hello):
                self._end(message)
            elif isinstance(message, Error):
                self._end(message.as_exception())

    def _onFinished(self, exitCode: int) -> None:
        self._end(DiffusionSegmentError(ErrorCode.WORKER_DIED, f"The client process ended (exit status {exitCode})."))

    def _end(self, answer: Hello | DiffusionSegmentError) -> None:
        checked, self._checked = self._checked, _ignore
        self._transport.onOutput, self._transport.onFinished = ignoreOutput, ignoreFinished
        self._transport.closeInput()
        checked(answer)


def _ignore(_: Hello | DiffusionSegmentError) -> None:
    """After the answer."""
