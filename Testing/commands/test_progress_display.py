"""Progress of a run: a bar on a terminal, one line per stage elsewhere, and no output with --quiet."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.commands import progress_display
from DiffusionSegmentBackend.commands.progress_display import ProgressBar, time_left
from DiffusionSegmentBackend.commands.run_estimate import SEGMENT_STAGES
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import read_volume, write_volume
from fixtures.command_line import Workspace, make_workspace

LINES = [
    "Loading PyTorch",
    "Loading the model",
    "Reading the scan",
    "Preparing the scan",
    "Computing body coordinates",
    "Computing features",
    "Drawing samples",
    "Resampling to the scan's grid",
    "Writing files",
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(autouse=True)
def own_models(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUSION_SEGMENT_MODELS", str(workspace.model.parent))


@contextmanager
def terminal() -> Iterator[list[str]]:
    """A terminal of 100 columns as standard error; afterwards the list holds the successive contents of its line."""
    frames: list[str] = []
    written: list[bytes] = []
    controller, device = pty.openpty()
    fcntl.ioctl(device, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))

    def read() -> None:
        # The other end is closed: an error on Linux, no bytes elsewhere.
        with suppress(OSError):
            while part := os.read(controller, 65536):
                written.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    with pytest.MonkeyPatch.context() as patch, os.fdopen(device, "w", encoding="utf-8") as stream:
        patch.setenv("TERM", "xterm")
        patch.setattr(sys, "stderr", stream)
        yield frames
    reader.join()
    os.close(controller)
    frames += b"".join(written).decode().split("\r")


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def stages_of(frames: list[str]) -> list[str]:
    """The stages in the order in which they were shown first."""
    return list(dict.fromkeys(stage for frame in frames for stage in LINES if stage in frame))


def test_a_terminal_shows_every_stage_in_one_bar_that_is_cleared_at_the_end(
    workspace: Workspace, tmp_path: Path
) -> None:
    with terminal() as frames:
        assert main(workspace.segment(output=tmp_path / "out")) == 0
    assert stages_of(frames) == LINES
    assert all(re.search(r"\d+%\|.*\| \d\d:\d\d", frame) for frame in frames if frame.strip())
    assert not any("\n" in frame for frame in frames)
    assert frames[-1].strip() == ""


def test_a_terminal_shows_the_time_left_of_the_whole_run() -> None:
    clock = Clock()
    with terminal() as frames, ProgressBar(SEGMENT_STAGES, clock=clock) as bar:
        for stage in ("start", "load", "read", "prepare", "bodypart"):
            bar(stage, 0, 1)
            clock.now += 1.0
        for done in range(11):
            bar("features", done, 10)
            clock.now += 10.0
        bar("refine", 0, 8)
    shown = [frame for frame in frames if frame.strip()]
    assert not any("left" in frame for frame in shown if "features" not in frame and "samples" not in frame)
    assert re.search(r"Drawing samples .* about \d+ min left", shown[-1])


def test_the_clock_of_the_bar_runs_while_a_stage_reports_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress_display, "_TICK_SECONDS", 0.02)
    with terminal() as frames, ProgressBar(SEGMENT_STAGES) as bar:
        bar("start", 0, 1)
        time.sleep(1.2)
    assert any("Loading PyTorch" in frame and "00:01" in frame for frame in frames)


def test_without_a_terminal_each_stage_has_one_line(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(workspace.segment(output=tmp_path / "out")) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [re.sub(r"^\[\d\d:\d\d\] |, about .* left$", "", line) for line in lines] == LINES


def test_a_terminal_with_a_verbose_log_shows_lines_instead_of_a_bar(workspace: Workspace, tmp_path: Path) -> None:
    with terminal() as frames:
        assert main(["--verbose", *workspace.segment(output=tmp_path / "out")]) == 0
    assert not any("%|" in frame for frame in frames)
    assert any("Reading the scan" in frame for frame in frames)


@pytest.mark.parametrize("option", ["-q", "--quiet"])
def test_quiet_shows_no_progress_and_still_prints_the_result(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert main(workspace.segment(output=tmp_path / "out", more=(option,))) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "Written to" in printed.out


def test_an_error_is_alone_on_its_line(workspace: Workspace, tmp_path: Path) -> None:
    with terminal() as frames:
        assert main(workspace.segment(workspace.damaged, output=tmp_path / "out")) == 2
    assert frames[-2].startswith("INPUT_UNREADABLE: ")


def test_the_reported_time_is_that_of_the_whole_run(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = time.monotonic()
    assert main(workspace.segment(output=tmp_path / "out")) == 0
    passed = time.monotonic() - before
    timings = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["timings_s"]
    assert list(timings) == [*SEGMENT_STAGES, "total"]
    assert sum(timings.values()) - timings["total"] <= timings["total"] <= passed
    assert timings["total"] > 0.8 * passed
    assert f"Written to {tmp_path / 'out'} in {timings['total']:.1f} s." in capsys.readouterr().out


def test_a_correction_shows_its_stages_and_reports_its_total_time(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result, scribbles = tmp_path / "result", tmp_path / "scribbles.nii.gz"
    assert main(workspace.segment(output=result)) == 0
    labels = read_volume(result / "segmentation.nii.gz")
    array = np.zeros_like(labels.array)
    array[tuple(np.argwhere(labels.array > 0)[0])] = 1
    write_volume(Volume(array, labels.index_to_lps), scribbles)
    capsys.readouterr()
    assert main(["correct", str(result), "--corrections", str(scribbles), "-o", str(tmp_path / "corrected")]) == 0
    printed = capsys.readouterr()
    for stage in ("Loading PyTorch", "Reading the scan", "Applying corrections", "Writing files"):
        assert stage in printed.err
    timings = json.loads((tmp_path / "corrected" / "report.json").read_text(encoding="utf-8"))["timings_s"]
    assert {"start", "read", "load", "correct", "write", "total"} <= set(timings)
    assert f"in {timings['total']:.1f} s." in printed.out


def test_several_runs_share_a_clock_and_show_the_remaining_time_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    bar = ProgressBar(("start", "load", "read", "features", "write"), clock=clock)

    def run(title: str, waiting: int) -> None:
        bar.next_run(title, waiting=waiting)
        for stage, seconds in (("read", 2.0), ("features", 10.0), ("write", 3.0)):
            bar(stage, 0, 1)
            clock.now += seconds
        bar("write", 1, 1)

    bar("start", 0, 1)
    clock.now += 100.0
    run("1/3 a", 2)
    run("2/3 b", 1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == "[01:40] 1/3 a: Reading the scan"
    assert lines[4] == "[01:55] 2/3 b: Reading the scan"
    # The third takes about as long as the first did without loading PyTorch: 15 s, beside the rest of this one.
    assert re.fullmatch(r"\[02:07\] 2/3 b: Writing files, about (2|3)\d s left", lines[6])
    assert bar.timings({})["total"] == pytest.approx(15.0)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "about 1 s left"),
        (7.6, "about 8 s left"),
        (13.0, "about 15 s left"),
        (94.0, "about 90 s left"),
        (130.0, "about 2 min left"),
        (1000.0, "about 17 min left"),
    ],
)
def test_the_remaining_time_is_rounded_for_display(seconds: float, words: str) -> None:
    assert time_left(seconds) == words


def test_a_stage_is_shown_once_however_often_it_reports(capsys: pytest.CaptureFixture[str]) -> None:
    report: Callable[[str, int, int], None] = ProgressBar(SEGMENT_STAGES)
    for done in range(5):
        report("features", done, 4)
    assert len(capsys.readouterr().err.splitlines()) == 1
