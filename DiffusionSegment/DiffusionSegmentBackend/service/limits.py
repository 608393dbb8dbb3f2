"""What the server grants: sessions, sizes, rates and times."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ServiceLimits:
    """Limits of the server; times in seconds.

    `sessions_per_user`, `openings_per_minute` (sessions and runs together) and `bodies_per_user` (uploads at once) are
    those of one user; `failures_per_minute` are refused tokens from one address. A session without a request for
    `idle_seconds` is dropped, and so is a run whose messages nobody has read for `detached_seconds`. A request's head
    has to arrive within `head_seconds`, each piece of its body within `body_seconds`, and the body at `body_rate`
    bytes per second or faster after these seconds; an answer has to be read as fast, looked at every `send_seconds`.
    """

    max_sessions: int = 8
    sessions_per_user: int = 2
    runs_at_once: int = 1
    max_connections: int = 256
    max_volume_bytes: int = 2 * 1024**3
    max_session_bytes: int = 8 * 1024**3
    max_volumes: int = 64
    min_free_disk_bytes: int = 1024**3
    openings_per_minute: int = 120
    failures_per_minute: int = 10
    bodies_per_user: int = 4
    idle_seconds: float = 600.0
    detached_seconds: float = 60.0
    run_seconds: float = 3600.0
    head_seconds: float = 10.0
    body_seconds: float = 10.0
    body_rate: float = 64_000.0
    send_seconds: float = 60.0
    heartbeat_seconds: float = 10.0
