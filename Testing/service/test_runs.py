"""Runs on a server through the client of the panel: the same answers as of a local worker."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from DiffusionSegmentBackend.errors import ErrorCode
from DiffusionSegmentBackend.protocol.messages import ImportModel
from DiffusionSegmentBackend.remote.bridge import LOCAL
from DiffusionSegmentBackend.service.session import SERVED
from DiffusionSegmentBackend.worker.handlers import HANDLERS
from fixtures.running_service import RunningService


def test_a_run_gives_its_result_and_the_scan_is_sent_once(service: RunningService, openClient: Callable) -> None:
    client = openClient(service.connection())
    client.segment(steps=3)
    assert np.array_equal(client.map("labels"), client.array > 0)
    assert np.all(client.map("uncertainty") == 0.5)
    assert {"upload", "refine", "download"} <= set(client.stages())
    client.events.clear()
    client.segment(steps=3)
    client.first("finished")
    assert "upload" not in client.stages()


def test_cancel_ends_the_run_within_a_step(service: RunningService, openClient: Callable) -> None:
    client = openClient(service.connection())
    client.segment(steps=2000)
    client.until(lambda: "refine" in client.stages())
    started = time.monotonic()
    client.client.cancel()
    client.first("cancelled")
    # A step takes 0.02 s; the run would take 40 s.
    assert time.monotonic() - started < 3.0
    client.events.clear()
    client.segment()
    client.first("finished")


def test_runs_of_several_users_take_turns_and_are_told_their_position(
    service: RunningService, openClient: Callable
) -> None:
    first, second = openClient(service.connection("alice")), openClient(service.connection("bob"))
    second.segment()
    second.first("finished")
    second.events.clear()
    first.segment(steps=2000)
    first.until(lambda: "refine" in first.stages())
    second.segment()
    second.until(lambda: "queue" in second.stages())
    first.client.cancel()
    first.first("cancelled")
    waiting = next(value for kind, value in second.events if kind == "progress" and value.stage == "queue")
    assert (waiting.done, waiting.total) == (0, 1)
    second.first("finished")


def test_a_waiting_run_is_cancelled(service: RunningService, openClient: Callable) -> None:
    first, second = openClient(service.connection("alice")), openClient(service.connection("bob"))
    first.segment(steps=2000)
    first.until(lambda: "refine" in first.stages())
    second.segment()
    second.until(lambda: "queue" in second.stages())
    second.client.cancel()
    second.first("cancelled", seconds=5.0)
    assert "refine" not in second.stages()
    first.client.cancel()
    first.first("cancelled")


def test_a_refusal_of_the_worker_arrives_with_its_words(service: RunningService, openClient: Callable) -> None:
    client = openClient(service.connection())
    client.segment(organs=("refuse",))
    error = client.first("failed")
    assert (error.code, error.message, error.hint) == (ErrorCode.MODALITY, "This is MR.", "Use a CT.")


def test_a_crash_of_the_worker_costs_one_run(service: RunningService, openClient: Callable) -> None:
    client = openClient(service.connection())
    client.segment(organs=("crash",))
    assert client.first("failed").code is ErrorCode.WORKER_DIED
    client.events.clear()
    client.segment()
    client.first("finished")


def test_every_request_runs_on_the_server_or_here() -> None:
    assert not set(SERVED) & set(LOCAL)
    assert {*SERVED, *LOCAL} == set(HANDLERS)


def test_a_request_on_files_of_this_computer_runs_here(service: RunningService, openClient: Callable) -> None:
    client = openClient(service.connection())
    client.client.ask(ImportModel, path="no such file")
    client.until(lambda: client.has("failed"), seconds=60)
    assert not list(service.work_dir.glob("session-*"))


def test_an_ended_client_leaves_nothing_on_the_server(service: RunningService, openClient: Callable) -> None:
    client = openClient(service.connection())
    client.segment()
    client.first("finished")
    assert list(service.work_dir.glob("session-*/*.raw"))
    client.client.close()
    end = time.monotonic() + 5
    while list(service.work_dir.glob("session-*")) and time.monotonic() < end:
        time.sleep(0.05)
    assert [path.name for path in service.work_dir.iterdir()] == ["lock"]
