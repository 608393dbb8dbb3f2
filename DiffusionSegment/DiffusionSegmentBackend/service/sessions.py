"""All sessions of the server: opened by users, dropped when idle, and nothing of them left on disk."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from pathlib import Path

import psutil

from ..errors import DiffusionSegmentError, ErrorCode
from .fair_queue import FairQueue
from .limits import ServiceLimits
from .private_folder import SESSION_PREFIX
from .session import Session
from .volume_files import IDENTIFIER
from .worker import MakeWorker

_MIN_FREE_MEMORY = 2 * 1024**3

_log = logging.getLogger(__name__)


class Sessions:
    """The open sessions, in `root`.

    Args:
        root: Private folder of the server.
        make_worker: Makes the worker of a session.
        limits: What is granted.
    """

    def __init__(self, root: Path, make_worker: MakeWorker, limits: ServiceLimits) -> None:
        self.limits = limits
        self.queue = FairQueue(limits.runs_at_once)
        self.opened: dict[str, Session] = {}
        self.dropped = 0
        self._root = root
        self._make_worker = make_worker
        self._closing: set[asyncio.Task[None]] = set()

    def open(self, session_id: str, user: str) -> Session:
        """A new session, or that of this user with this id.

        Raises:
            DiffusionSegmentError: PROTOCOL for an id that is none; SESSION_LOST for another user's; SERVER_FULL;
                SERVER_LIMIT for more sessions than a user may have; DISK_FULL.
        """
        if not IDENTIFIER.fullmatch(session_id):
            raise DiffusionSegmentError(ErrorCode.PROTOCOL, "This is no id of a session.")
        if session_id in self.opened:
            return self.of(session_id, user)
        if sum(session.user == user for session in self.opened.values()) >= self.limits.sessions_per_user:
            raise DiffusionSegmentError(
                ErrorCode.SERVER_LIMIT,
                "You have as many sessions on the server as it grants.",
                hint="Close another Slicer, or wait until its session ends.",
            )
        if len(self.opened) + len(self._closing) >= self.limits.max_sessions:
            raise DiffusionSegmentError(
                ErrorCode.SERVER_FULL, "The server has no free session.", hint="Try again in a few minutes."
            )
        self.check_disk(0)
        folder = Path(tempfile.mkdtemp(prefix=SESSION_PREFIX, dir=self._root))
        self.opened[session_id] = Session(session_id, user, folder, self._make_worker(folder, self.end_idle_worker))
        _log.info("session %s of %s opened", session_id[:8], user)
        return self.opened[session_id]

    def of(self, session_id: str, user: str) -> Session:
        """A user's session.

        Raises:
            DiffusionSegmentError: SESSION_LOST for one that does not exist, and for one of another user alike.
        """
        session = self.opened.get(session_id)
        if session is None or session.user != user:
            raise DiffusionSegmentError(ErrorCode.SESSION_LOST, "The server does not have this session.")
        session.used = time.monotonic()
        return session

    def check_disk(self, wanted: int) -> None:
        """Refuse what would leave too little of the disk.

        Raises:
            DiffusionSegmentError: DISK_FULL.
        """
        if psutil.disk_usage(str(self._root)).free - wanted < self.limits.min_free_disk_bytes:
            raise DiffusionSegmentError(
                ErrorCode.DISK_FULL, "The disk of the server is full.", hint="Tell the administrator of the server."
            )

    def drop(self, session: Session, reason: str) -> asyncio.Task[None]:
        """End a session; its id is unknown at once."""
        self.opened.pop(session.id, None)
        task = asyncio.create_task(session.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        _log.info("session %s of %s ended: %s", session.id[:8], session.user, reason)
        return task

    async def drop_all(self) -> None:
        """End all sessions."""
        for session in list(self.opened.values()):
            self.drop(session, "the server stops")
        await asyncio.gather(*self._closing, return_exceptions=True)

    async def keep(self, interval: float) -> None:
        """Drop idle sessions, cancel runs that nobody waits for, and free memory, again and again."""
        while True:
            await asyncio.sleep(interval)
            now = time.monotonic()
            for session in list(self.opened.values()):
                run = session.run
                if run is not None and not run.finished:
                    if not run.readers and now - run.seen > self.limits.detached_seconds:
                        session.cancel()
                elif now - session.used > self.limits.idle_seconds:
                    self.drop(session, "idle")
                    self.dropped += 1
            await self.free_memory()

    async def free_memory(self) -> None:
        """End the worker that has been idle longest, where memory runs short."""
        if psutil.virtual_memory().available < _MIN_FREE_MEMORY:
            await self.end_idle_worker()

    async def end_idle_worker(self) -> None:
        """End the worker that has been idle longest; its session is computed again by its next correction."""
        idle = [session for session in self.opened.values() if not session.busy and session.worker.running]
        if idle:
            session = min(idle, key=lambda session: session.used)
            _log.info("session %s: its worker ends to make room", session.id[:8])
            await session.worker.stop()
