"""Sessions on a Ray cluster: the same runs and refusals as with workers here, and computers that fail."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.service.cluster import require_encryption, require_token
from fixtures.ray_clusters import TOKEN, running_cluster
from fixtures.running_service import RunningService
from service.test_refusals import (  # noqa: F401
    call,
    ownCall,
    test_files_are_private,
    test_no_log_holds_a_header_a_token_or_a_text_of_a_scan,
    test_only_runs_on_volumes_that_are_there_are_taken,
)
from service.test_runs import (  # noqa: F401
    test_a_crash_of_the_worker_costs_one_run,
    test_a_refusal_of_the_worker_arrives_with_its_words,
    test_a_run_gives_its_result_and_the_scan_is_sent_once,
    test_an_ended_client_leaves_nothing_on_the_server,
    test_cancel_ends_the_run_within_a_step,
    test_runs_of_several_users_take_turns_and_are_told_their_position,
)

LIMITS = {"failures_per_minute": 10_000, "openings_per_minute": 10_000, "max_sessions": 100, "sessions_per_user": 50}


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A cluster with room for eight sessions, and its token in the environment."""
    with running_cluster(8) as address, pytest.MonkeyPatch.context() as patch:
        for name, value in TOKEN.items():
            patch.setenv(name, value)
        yield address


@pytest.fixture(scope="module")
def service(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A server of the whole module, whose sessions are on the cluster."""
    made = RunningService(tmp_path_factory.mktemp("service"), address=cluster, limits=LIMITS)
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared(service: RunningService) -> RunningService:
    return service


def actors() -> list[psutil.Process]:
    """The processes of all actors of sessions that were started by these tests."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[0].startswith("ray::SessionActor"):
                found.append(process)
        except (psutil.Error, IndexError):
            continue
    return found


def actor_folders(pids: list[int]) -> list[Path]:
    return [path for pid in pids for path in Path(tempfile.gettempdir()).glob(f"diffusionsegment-actor-{pid}-*")]


def until(done: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.05)
    assert done()


def test_a_computer_that_fails_costs_time_and_not_the_run(service: RunningService, openClient: Callable) -> None:
    until(lambda: not actors())
    client = openClient(service.connection())
    client.segment(steps=200)
    client.until(lambda: "refine" in client.stages())
    (first,) = actors()
    assert [stat.S_IMODE(path.stat().st_mode) for path in actor_folders([first.pid])] == [0o700]
    first.kill()
    assert np.array_equal(client.map("labels"), client.array > 0)
    (second,) = actors()
    assert second.pid != first.pid
    assert actor_folders([first.pid]) == []
    assert "repeated on another" in service.log()


def test_a_session_that_ends_leaves_nothing_on_its_computer(service: RunningService, openClient: Callable) -> None:
    until(lambda: not actors())
    client = openClient(service.connection())
    client.segment()
    client.first("finished")
    pids = [actor.pid for actor in actors()]
    (folder,) = actor_folders(pids)
    assert list(folder.glob("*.raw"))
    client.client.close()
    until(lambda: not actors() and not folder.exists())


def test_a_server_that_was_killed_leaves_no_actor_and_its_next_start_no_file(
    cluster: str, startService: Callable[..., RunningService], openClient: Callable
) -> None:
    until(lambda: not actors())
    own = startService(address=cluster)
    client = openClient(own.connection())
    client.segment()
    client.first("finished")
    pids = [actor.pid for actor in actors()]
    assert actor_folders(pids) != []
    own.kill()
    until(lambda: not actors())
    own.start()
    assert actor_folders(pids) == []
    client.events.clear()
    client.segment()
    assert np.array_equal(client.map("labels"), client.array > 0)


def test_where_the_cluster_is_full_the_session_that_is_idle_longest_makes_room(
    cluster: str, startService: Callable[..., RunningService], openClient: Callable
) -> None:
    until(lambda: not actors())
    own = startService(address=cluster, cpus_per_session=6, limits={"runs_at_once": 2})
    first, second = openClient(own.connection("alice")), openClient(own.connection("bob"))
    for client in (first, second, first):
        client.events.clear()
        client.segment()
        assert np.array_equal(client.map("labels"), client.array > 0)
        assert len(actors()) == 1
    assert own.log().count("its worker ends to make room") == 2
    # Cancelled while the cluster has no room, because the other session is busy.
    first.events.clear()
    second.events.clear()
    first.segment(steps=2000)
    first.until(lambda: "refine" in first.stages())
    second.segment()
    # No message says that it waits for room.
    time.sleep(1.0)
    second.client.cancel()
    second.first("cancelled", seconds=3.0)
    first.client.cancel()
    first.first("cancelled")


@pytest.mark.parametrize(
    ("options", "environment", "expected"),
    [
        (["--cpus-per-session", "1000"], {}, "NO_DEVICE: No computer of the Ray cluster has 1000 CPUs and 0 graphics"),
        (["--device", "cuda:1"], {}, "OPTION: --device cuda:1 is for one computer."),
        ([], {"RAY_AUTH_MODE": "disabled"}, "OPTION: A Ray cluster without a token runs programs of anybody"),
    ],
)
def test_what_does_not_fit_is_one_line(
    service: RunningService, cluster: str, options: list[str], environment: dict[str, str], expected: str
) -> None:
    command = [sys.executable, "-m", "DiffusionSegmentBackend", "serve", "--address", cluster, "--port", "0", *options]
    done = subprocess.run(
        [*command, "--token-file", str(service.token_file)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode != 0
    assert expected in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2, done.stderr
    assert done.stdout == ""


def test_other_computers_need_encryption() -> None:
    own = ["127.0.0.1", "192.0.2.1"]
    require_encryption(["192.0.2.1"], own, {})
    require_encryption(["192.0.2.1", "192.0.2.9"], own, {"RAY_USE_TLS": "1"})
    for environment in ({}, {"RAY_USE_TLS": "0"}):
        with pytest.raises(DiffusionSegmentError, match="unencrypted") as caught:
            require_encryption(["192.0.2.1", "192.0.2.9"], own, environment)
        assert caught.value.code is ErrorCode.OPTION


def test_a_cluster_needs_a_token() -> None:
    require_token(TOKEN)
    for environment in ({}, {"RAY_AUTH_MODE": "disabled"}):
        with pytest.raises(DiffusionSegmentError, match="without a token"):
            require_token(environment)
