"""The log of the worker, for *Copy details*: the request, its outcome, and the traceback of an unexpected error."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .conftest import Session


def test_the_log_contains_the_request_and_its_outcome(session: Session) -> None:
    request = session.segment(organs=("refuse",))
    session.first("failed", seconds=20)
    session.until(lambda: f"{request} refused" in session.client.log())
    assert f"segment {request}" in session.client.log()


def test_an_unexpected_error_leaves_a_traceback_in_the_log(session: Session) -> None:
    session.segment(organs=("bug",))
    session.first("failed", seconds=20)
    session.until(lambda: "Traceback" in session.client.log())
    assert "a run failed" in session.client.log()
