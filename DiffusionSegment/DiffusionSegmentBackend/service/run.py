"""A run of a session: its messages, kept until they were read, so that a client may read on after a lost connection."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from ..protocol.messages import ANSWERS, CancelledNotice, Error, Message, Progress, encode


@dataclass
class Run:
    """The lines of a run so far; `seen` is the monotonic time at which a client last read or wrote about it."""

    id: str
    lines: list[bytes] = field(default_factory=list)
    finished: bool = False
    outcome: str = ""
    readers: int = 0
    seen: float = field(default_factory=time.monotonic)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, message: Message) -> None:
        """Keep a message for the readers."""
        if isinstance(message, ANSWERS):
            self.outcome = "result"
        elif isinstance(message, (Error, CancelledNotice)):
            self.outcome = message.code if isinstance(message, Error) else "cancelled"
        self.lines.append(encode(message))
        self._wake()

    @property
    def cancelled(self) -> bool:
        """Whether it is to stop."""
        return self.stopped.is_set()

    def finish(self) -> None:
        """No message follows."""
        self.finished = True
        self._wake()

    def queued(self, ahead: int) -> None:
        """Tell how many runs are ahead."""
        self.add(Progress(id=self.id, stage="queue", done=0, total=ahead))

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def after(self, count: int, seconds: float) -> list[bytes]:
        """The lines after the first `count`; waits up to so many seconds for one."""
        if len(self.lines) <= count and not self.finished:
            try:
                await asyncio.wait_for(self._news.wait(), seconds)
            except TimeoutError:
                return []
        return self.lines[count:]
