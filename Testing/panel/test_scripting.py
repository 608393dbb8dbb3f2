"""Scripts: segment with one call, follow and cancel a run, and get a one-line error for every failure."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import write_volume
from DiffusionSegmentBackend.phantom.phantom import make_phantom
from DiffusionSegmentLib import scripting
from DiffusionSegmentLib.worker.client import WorkerClient
from fixtures.segments import addSegment, segmentationOf
from panel.conftest import ENGINE, PanelUser
from panel.engine_process import KILLED, REFUSED, SLOW

SLOW_SECONDS = 10.0
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "SCRIPTING.md"


@pytest.fixture
def logic(user: PanelUser) -> Iterator[Any]:
    """The logic that `slicer.util.getModuleLogic` gives, with a quick engine behind it."""
    from DiffusionSegmentLib.worker.transport import QProcessTransport

    result = user.widget.logic
    result.scripting._createClient = lambda: WorkerClient(lambda: QProcessTransport(ENGINE))
    yield result
    result.close()


@pytest.fixture
def volume(user: PanelUser) -> Any:
    return user.addVolume()


def names(segmentation: Any) -> list[str]:
    segments = segmentation.GetSegmentation()
    return [segments.GetNthSegmentID(n) for n in range(segments.GetNumberOfSegments())]


def test_one_call_adds_a_segmentation_to_the_scene(user: PanelUser, logic: Any, volume: Any) -> None:
    segmentation = logic.segment(volume)
    assert names(segmentation) == ["spleen", "liver"]
    assert user.segmentations() == [segmentation]
    assert slicer.mrmlScene.GetFirstNodeByName("CT uncertainty") is not None


def test_progress_is_reported_while_waiting(logic: Any, volume: Any) -> None:
    caught: list[tuple[str, int, int]] = []
    logic.segment(volume, progress=lambda stage, done, total: caught.append((stage, done, total)))
    assert ("refine", 3, 4) in caught


def test_qt_events_are_processed_while_a_script_waits(user: PanelUser, logic: Any, volume: Any) -> None:
    ticks: list[int] = []
    timer = user.application.qt.QTimer()
    timer.timeout.connect(lambda: ticks.append(1))
    timer.start(5)
    logic.segment(volume)
    timer.stop()
    assert len(ticks) > 3


def test_an_asynchronous_run_reports_its_progress_and_can_be_awaited(logic: Any, volume: Any) -> None:
    run = logic.segmentAsync(volume, seed=3)
    assert not run.done
    assert run.progress is None
    segmentation = run.wait()
    assert run.done
    assert run.progress.stage in ("refine", "deliver")
    assert names(segmentation) == ["spleen", "liver"]


def test_a_cancelled_run_changes_nothing(user: PanelUser, logic: Any, volume: Any) -> None:
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    run = logic.segmentAsync(volume, seed=SLOW, progress=lambda *_: run.cancel())
    with pytest.raises(DiffusionSegmentError) as caught:
        run.wait()
    assert caught.value.code is ErrorCode.CANCELLED
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes
    assert names(logic.segment(volume)) == ["spleen", "liver"]


def test_every_call_creates_new_nodes(user: PanelUser, logic: Any, volume: Any) -> None:
    assert logic.segment(volume) is not logic.segment(volume)
    assert len(user.segmentations()) == 2


def test_a_script_and_the_panel_run_independently(user: PanelUser, logic: Any, volume: Any) -> None:
    run = logic.segmentAsync(volume, seed=SLOW)
    user.segment()
    assert "2 organs" in user.ui.messageLabel.text
    assert not run.done
    run.cancel()
    with pytest.raises(DiffusionSegmentError):
        run.wait()
    assert "2 organs" in user.ui.messageLabel.text


@pytest.mark.parametrize(("seed", "code"), [(REFUSED, ErrorCode.MODALITY), (KILLED, ErrorCode.WORKER_DIED)])
def test_an_error_in_the_worker_is_raised(logic: Any, volume: Any, seed: int, code: ErrorCode) -> None:
    with pytest.raises(DiffusionSegmentError) as caught:
        logic.segment(volume, seed=seed)
    assert caught.value.code is code
    assert caught.value.hint


@pytest.mark.parametrize(
    ("options", "code"),
    [({"model": "no-model"}, ErrorCode.MODEL_UNKNOWN), ({"quality": "best"}, ErrorCode.OPTION)],
)
def test_invalid_options_are_refused_before_a_worker_starts(
    logic: Any, volume: Any, options: dict[str, Any], code: ErrorCode
) -> None:
    with pytest.raises(DiffusionSegmentError) as caught:
        logic.segment(volume, **options)
    assert caught.value.code is code
    assert "abdomen-ct" in caught.value.hint or "samples" in caught.value.hint
    assert logic.scripting._client is None


def test_an_empty_volume_is_refused(logic: Any) -> None:
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "nothing")
    with pytest.raises(DiffusionSegmentError) as caught:
        logic.segment(empty)
    assert caught.value.code is ErrorCode.INPUT_SHAPE


def test_a_second_run_at_the_same_time_is_refused(logic: Any, volume: Any) -> None:
    run = logic.segmentAsync(volume, seed=SLOW)
    with pytest.raises(DiffusionSegmentError, match="in progress"):
        logic.segment(volume)
    run.cancel()
    with pytest.raises(DiffusionSegmentError):
        run.wait()


def test_a_volume_removed_during_the_run_is_reported(logic: Any, volume: Any) -> None:
    run = logic.segmentAsync(volume)
    slicer.mrmlScene.RemoveNode(volume)
    with pytest.raises(DiffusionSegmentError, match="no longer in the scene"):
        run.wait()


def test_an_exception_of_a_progress_callback_ends_the_run_and_is_raised(logic: Any, volume: Any) -> None:
    def stop(*_: object) -> None:
        raise ZeroDivisionError

    began = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        logic.segment(volume, seed=SLOW, progress=stop)
    assert time.monotonic() - began < SLOW_SECONDS / 2
    assert names(logic.segment(volume)) == ["spleen", "liver"]


def test_a_worker_that_cannot_be_started_is_reported(logic: Any, volume: Any) -> None:
    from DiffusionSegmentLib.worker.transport import QProcessTransport

    logic.scripting._createClient = lambda: WorkerClient(lambda: QProcessTransport(["no-such-program"]))
    with pytest.raises(DiffusionSegmentError) as caught:
        logic.segment(volume)
    assert caught.value.code is ErrorCode.WORKER_DIED


def test_a_script_installs_nothing(logic: Any, volume: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise DiffusionSegmentError(ErrorCode.NO_TORCH, "Not installed: torch.", hint="Click Segment.")

    monkeypatch.setattr(scripting, "requireInstalled", refuse)
    with pytest.raises(DiffusionSegmentError, match="Not installed"):
        logic.segment(volume)


def examples() -> tuple[list[str], list[str]]:
    """The document's examples for the application, and those for any Python."""
    inside, _, outside = DOCUMENT.read_text(encoding="utf-8").partition("## In PythonSlicer")
    block = re.compile(r"```python\n(.*?)```", re.DOTALL)
    return block.findall(inside), block.findall(outside)


def playedFrame(volume: Any) -> Any:
    """A volume that shows one of two frames, both as the given one."""
    scene = volume.GetScene()
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "Two frames")
    for index in ("0", "1"):
        sequence.SetDataNodeAtValue(volume, index)
    browser = scene.AddNode(slicer.vtkMRMLSequenceBrowserNode())
    browser.AddSynchronizedSequenceNodeID(sequence.GetID())
    return browser.AddProxyNode(sequence.GetNthDataNode(0), sequence, True)


def test_the_documents_examples_for_slicer_run_one_after_another(
    logic: Any, volume: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(slicer.util, "getModuleLogic", lambda name: logic, raising=False)
    theirs = segmentationOf(volume, "Theirs")
    addSegment(theirs, volume, "Milz", (slice(2, 6), slice(2, 7), slice(9, 13)))
    variables: dict[str, Any] = {"slicer": slicer, "frame": playedFrame(volume), "theirs": theirs}
    for example in examples()[0]:
        exec(compile(example, DOCUMENT.name, "exec"), variables)
    printed = capsys.readouterr().out
    assert names(variables["segmentation"]) == ["spleen", "liver"]
    assert "refine: 0 of 4" in printed
    assert "Spleen 212.4 (180.0, 240.0)" in printed
    assert "CANCELLED Cancelled. Nothing was changed." in printed
    assert "frame: 2 of 2" in printed
    assert "2 of 2 frames" in printed
    assert variables["phantom"].GetName() == "Phantom"
    assert variables["overlays"]
    assert names(variables["reviewed"]) == ["spleen"]
    assert "Spleen or stomach?" in printed


@pytest.mark.slow
def test_the_documents_example_for_plain_python_runs(tmp_path: Path) -> None:
    import subprocess

    phantom = make_phantom(seed=1, spacing_mm=(5.0, 5.0, 5.0), size_mm=(240.0, 180.0, 120.0))
    write_volume(Volume(phantom.image, phantom.index_to_lps), tmp_path / "ct.nii.gz")
    (example,) = examples()[1]
    outcome = subprocess.run(
        [sys.executable, "-c", example],
        cwd=tmp_path,
        env={"PYTHONPATH": str(DOCUMENT.parents[1] / "DiffusionSegment"), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.startswith(str(phantom.labels.shape))


def test_the_document_names_every_option() -> None:
    rows = re.findall(r"^\| (`.*?) \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == list(scripting.OPTIONS)
