"""The worker's log reaches the panel's *Copy details*: what was asked, how it ended, and the trace of a bug."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .conftest import Session


def test_the_log_tells_what_was_asked_and_how_it_ended(session: Session) -> None:
    request = session.segment(organs=("refuse",))
    session.first("failed", seconds=20)
    session.until(lambda: f"{request} refused" in session.client.log())
    assert f"segment {request}" in session.client.log()


def test_a_bug_leaves_its_trace_in_the_log(session: Session) -> None:
    session.segment(organs=("bug",))
    session.first("failed", seconds=20)
    session.until(lambda: "Traceback" in session.client.log())
    assert "a run failed" in session.client.log()
