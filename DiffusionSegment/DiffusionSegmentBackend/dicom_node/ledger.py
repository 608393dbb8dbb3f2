"""The durable record of a node: every image that it has accepted, and every series with its state, in SQLite.

Each change is one transaction, so that a process that ends at any moment continues where it was.
"""

from __future__ import annotations

import errno
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, StrEnum
from pathlib import Path

from ..errors import DiffusionSegmentError, ErrorCode
from .completeness import Transfer
from .instance import Instance

# One process at a time; a change is on the disk before it counts; what is deleted is overwritten.
_PRAGMAS = ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL", "secure_delete=ON")
_TABLES = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, series_uid TEXT NOT NULL, study_uid TEXT NOT NULL, origin TEXT NOT NULL,
    state TEXT NOT NULL, transfer TEXT NOT NULL, expected INTEGER, listed INTEGER NOT NULL DEFAULT 0,
    arrived REAL NOT NULL, changed REAL NOT NULL, due REAL NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0, code TEXT NOT NULL DEFAULT '',
    incomplete INTEGER NOT NULL DEFAULT 0, verified INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state);
CREATE INDEX IF NOT EXISTS jobs_by_series ON jobs (series_uid);
CREATE TABLE IF NOT EXISTS instances (
    sop_uid TEXT PRIMARY KEY, series_uid TEXT NOT NULL, digest TEXT NOT NULL, position REAL, frames INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS instances_by_series ON instances (series_uid);
"""


class JobState(StrEnum):
    """Where a series is. An ended process continues `RUNNING` from `READY`, every other state from itself."""

    RECEIVING = "receiving"
    READY = "ready"
    RUNNING = "running"
    PRODUCED = "produced"
    SENT = "sent"
    DONE = "done"
    REJECTED = "rejected"
    FAILED = "failed"


SUPERSEDED = "SUPERSEDED"
FINAL = (JobState.DONE, JobState.REJECTED, JobState.FAILED)
UNFINISHED = tuple(state for state in JobState if state not in FINAL)


class Receipt(Enum):
    """What an accepted image is to the ledger."""

    NEW = "new"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


class Origin(StrEnum):
    """How a series came to the node."""

    DIMSE = "dimse"
    DICOMWEB = "dicomweb"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A series to be segmented, or a later version of it with more images.

    `arrived`, `changed` and `due` are times in s since 1970: of the last image, of the last change of the state, and
    before which it is not tried again. `code` is that of the last error, `expected` the number of images that the
    archive has of the series, `listed` the number of those that a search found when they were fetched.
    """

    id: str
    series_uid: str
    study_uid: str
    origin: Origin
    state: JobState
    transfer: Transfer
    expected: int | None
    listed: int
    arrived: float
    changed: float
    due: float
    attempts: int
    code: str
    incomplete: bool
    verified: bool


class Ledger:
    """The record in a file, for all threads of one process. `clock` gives the time in s since 1970.

    Raises:
        DiffusionSegmentError: BUSY if another process uses the file, INPUT_UNREADABLE for a file of another kind.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._lock = threading.RLock()
        self._clock = clock
        self._database = sqlite3.connect(path, timeout=0, check_same_thread=False, isolation_level=None)
        self._database.row_factory = sqlite3.Row
        try:
            for pragma in _PRAGMAS:
                self._database.execute(f"PRAGMA {pragma}")
            self._database.executescript(_TABLES)
        except sqlite3.OperationalError as error:
            raise DiffusionSegmentError(
                ErrorCode.BUSY, f"{path.parent} is in use by another node.", hint="Give each node its own --folder."
            ) from error
        except sqlite3.DatabaseError as error:
            raise DiffusionSegmentError(
                ErrorCode.INPUT_UNREADABLE, f"{path} is no ledger of a node, or is damaged.", hint="Move it away."
            ) from error

    @property
    def now(self) -> float:
        """The time in s since 1970."""
        return self._clock()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def recover(self) -> None:
        """After a restart: interrupted runs are ready again, and open associations are interrupted ones."""
        with self._transaction() as database:
            database.execute(
                "UPDATE jobs SET state = ? WHERE state = ?", (JobState.READY.value, JobState.RUNNING.value)
            )
            database.execute(
                "UPDATE jobs SET transfer = ? WHERE transfer = ?", (Transfer.INTERRUPTED.value, Transfer.OPEN.value)
            )

    def digest_of(self, sop_uid: str) -> str | None:
        """The digest of a recorded image, None for an unknown one."""
        with self._lock:
            row = self._database.execute("SELECT digest FROM instances WHERE sop_uid = ?", (sop_uid,)).fetchone()
        return None if row is None else str(row["digest"])

    def receive(self, instance: Instance, digest: str, origin: Origin, *, file: Path) -> Receipt:
        """Record an image; a new one, which is stored in `file`, opens a job unless one of its series still waits.

        An image that is known changes nothing, except that a failed job of its series starts again.

        Raises:
            FileNotFoundError: the series was deleted after the file was written.
        """
        with self._transaction() as database:
            known = database.execute("SELECT digest FROM instances WHERE sop_uid = ?", (instance.sop_uid,)).fetchone()
            if known is None:
                if not file.exists():
                    raise FileNotFoundError(errno.ENOENT, "deleted with the series")
                database.execute(
                    "INSERT INTO instances VALUES (?, ?, ?, ?, ?)",
                    (instance.sop_uid, instance.series_uid, digest, instance.position_mm, instance.frames),
                )
            self._open_job(instance, origin, is_new=known is None)
        if known is None:
            return Receipt.NEW
        return Receipt.DUPLICATE if known["digest"] == digest else Receipt.CONFLICT

    def _open_job(self, instance: Instance, origin: Origin, *, is_new: bool) -> None:
        now = self._clock()
        job = self.latest_job(instance.series_uid)
        waiting = job is not None and job.state in (JobState.RECEIVING, JobState.READY)
        if job is not None and (waiting or (job.state is JobState.FAILED and not is_new)):
            if job.state is JobState.READY and not is_new:
                return
            self._database.execute(
                "UPDATE jobs SET state = ?, transfer = ?, arrived = ?, changed = ?, due = 0, attempts = 0 WHERE id = ?",
                (JobState.RECEIVING.value, Transfer.OPEN.value, now, now, job.id),
            )
        elif is_new:
            self._database.execute(
                "INSERT INTO jobs (id, series_uid, study_uid, origin, state, transfer, arrived, changed) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(uuid.uuid4().hex, instance.series_uid, instance.study_uid, origin.value),
                    *(JobState.RECEIVING.value, Transfer.OPEN.value, now, now),
                ),
            )

    def end_transfer(self, series_uid: str, transfer: Transfer) -> None:
        """Record how the last open association of a series ended."""
        with self._transaction() as database:
            database.execute(
                "UPDATE jobs SET transfer = ? WHERE series_uid = ? AND state = ?",
                (transfer.value, series_uid, JobState.RECEIVING.value),
            )

    def expect(self, job: Job, images: int | None) -> None:
        """Record how many images the archive has of the series."""
        with self._transaction() as database:
            database.execute("UPDATE jobs SET expected = ? WHERE id = ?", (images, job.id))

    def fetched(self, job: Job, *, listed: int) -> None:
        """Record that all `listed` images of a series were fetched."""
        with self._transaction() as database:
            database.execute(
                "UPDATE jobs SET listed = ?, expected = ?, transfer = ? WHERE id = ?",
                (listed, len(self.images(job.series_uid)), Transfer.RELEASED.value, job.id),
            )

    def complete(self, job: Job, *, incomplete: bool) -> bool:
        """Set a receiving job ready; False if an image arrived since `job` was read."""
        return self._change(
            "UPDATE jobs SET state = ?, incomplete = ?, changed = ? WHERE id = ? AND state = ? AND arrived = ?",
            (JobState.READY.value, incomplete, self._clock(), job.id, JobState.RECEIVING.value, job.arrived),
        )

    def start(self, job: Job) -> list[str] | None:
        """Set a ready job running; returns its SOP instance UIDs, None if an image arrived since `job` was read.

        A job of which there is a later version is ended instead, with the code SUPERSEDED.
        """
        with self._transaction():
            if self._superseded(job) or not self._set_running(job):
                return None
            return [sop_uid for sop_uid, _, _ in self.images(job.series_uid)]

    def _set_running(self, job: Job) -> bool:
        changed = self._database.execute(
            "UPDATE jobs SET state = ?, changed = ? WHERE id = ? AND state = ?",
            (JobState.RUNNING.value, self._clock(), job.id, JobState.READY.value),
        )
        return changed.rowcount == 1

    def superseded(self, job: Job) -> bool:
        """Whether there is a later version of a job, which is then ended with the code SUPERSEDED."""
        with self._transaction():
            return self._superseded(job)

    def _superseded(self, job: Job) -> bool:
        latest = self.latest_job(job.series_uid)
        if latest is None or latest.id == job.id:
            return False
        self._database.execute(
            "UPDATE jobs SET state = ?, code = ?, changed = ? WHERE id = ?",
            (JobState.REJECTED.value, SUPERSEDED, self._clock(), job.id),
        )
        return True

    def advance(self, job: Job, state: JobState, *, code: str = "", verified: bool = False) -> None:
        """Set the next state; attempts count from 0 again."""
        self._change(
            "UPDATE jobs SET state = ?, code = ?, verified = ?, changed = ?, due = 0, attempts = 0 WHERE id = ?",
            (state.value, code, verified, self._clock(), job.id),
        )

    def sent(self, job: Job) -> None:
        """Set a produced job sent; the time of its change stays that of its production."""
        self._change(
            "UPDATE jobs SET state = ?, code = '', due = 0, attempts = 0 WHERE id = ?", (JobState.SENT.value, job.id)
        )

    def postpone(self, job: Job, state: JobState, *, code: str, seconds: float) -> None:
        """Set the state from which a failed attempt is repeated after `seconds`."""
        self._change(
            "UPDATE jobs SET state = ?, code = ?, due = ?, attempts = attempts + 1 WHERE id = ?",
            (state.value, code, self._clock() + seconds, job.id),
        )

    def _change(self, statement: str, values: Sequence[object]) -> bool:
        with self._transaction() as database:
            return database.execute(statement, tuple(values)).rowcount == 1

    def jobs(self, *states: JobState, due: bool = False) -> list[Job]:
        """The jobs in these states, the first changed first; with `due` only those whose time has come."""
        marks = ", ".join("?" * len(states))
        with self._lock:
            rows = self._database.execute(
                f"SELECT * FROM jobs WHERE state IN ({marks}) AND due <= ? ORDER BY changed, id",
                (*(state.value for state in states), self._clock() if due else float("inf")),
            ).fetchall()
        return [_job(row) for row in rows]

    def latest_job(self, series_uid: str) -> Job | None:
        """The newest job of a series."""
        with self._lock:
            row = self._database.execute(
                "SELECT * FROM jobs WHERE series_uid = ? ORDER BY rowid DESC LIMIT 1", (series_uid,)
            ).fetchone()
        return None if row is None else _job(row)

    def has_earlier_result(self, job: Job) -> bool:
        """Whether a result of fewer images of the series was sent before."""
        with self._lock:
            row = self._database.execute(
                "SELECT 1 FROM jobs WHERE series_uid = ? AND id != ? AND state IN (?, ?)",
                (job.series_uid, job.id, JobState.SENT.value, JobState.DONE.value),
            ).fetchone()
        return row is not None

    def images(self, series_uid: str) -> list[tuple[str, float | None, int]]:
        """SOP instance UID, position along the normal in mm, and frames of every image of a series."""
        with self._lock:
            rows = self._database.execute(
                "SELECT sop_uid, position, frames FROM instances WHERE series_uid = ? ORDER BY position, sop_uid",
                (series_uid,),
            ).fetchall()
        return [(row["sop_uid"], row["position"], row["frames"]) for row in rows]

    def set_aside(self, series_uid: str, study_uid: str, *, listed: int, code: str) -> None:
        """Record a fetched series that is not segmented, so that it is not fetched again until it has more images."""
        now = self._clock()
        with self._transaction() as database:
            database.execute(
                "INSERT INTO jobs (id, series_uid, study_uid, origin, state, transfer, listed, arrived, changed, code)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(uuid.uuid4().hex, series_uid, study_uid, Origin.DICOMWEB.value, JobState.REJECTED.value),
                    *(Transfer.RELEASED.value, listed, now, now, code),
                ),
            )

    def counts(self) -> dict[JobState, int]:
        """The number of jobs in each state."""
        with self._lock:
            rows = self._database.execute("SELECT state, COUNT(*) AS n FROM jobs GROUP BY state").fetchall()
        found = {JobState(row["state"]): int(row["n"]) for row in rows}
        return {state: found.get(state, 0) for state in JobState}

    def unfinished(self) -> int:
        """The number of jobs that have not ended."""
        counts = self.counts()
        return sum(counts[state] for state in UNFINISHED)

    def forget(self, job: Job, *, remove_images: Callable[[], None]) -> bool:
        """Delete the record of a job that has ended; False if it was opened again since `job` was read.

        With the last job of a series, the record of its images is deleted, and `remove_images` is called.
        """
        with self._transaction() as database:
            gone = database.execute("DELETE FROM jobs WHERE id = ? AND state = ?", (job.id, job.state.value))
            if gone.rowcount != 1:
                return False
            if self.latest_job(job.series_uid) is None:
                database.execute("DELETE FROM instances WHERE series_uid = ?", (job.series_uid,))
                remove_images()
        return True


def _job(row: sqlite3.Row) -> Job:
    values = dict(row)
    values |= {"origin": Origin(row["origin"]), "state": JobState(row["state"]), "transfer": Transfer(row["transfer"])}
    return Job(**{**values, "incomplete": bool(row["incomplete"]), "verified": bool(row["verified"])})
