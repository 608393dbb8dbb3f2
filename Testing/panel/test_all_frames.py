"""All frames of a sequence: one segmentation sequence that plays in step; cancelled and failing frames are reported."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import slicer
import vtk
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentLib.scene.nodes import nodesOfClass
from DiffusionSegmentLib.scene.segmented_scan import readReport
from DiffusionSegmentLib.scene.sequence import FrameSource, findFrames
from headless.slicer_picture import putVolume
from panel.conftest import ENGINE, PanelUser
from panel.engine_process import REFUSED, SLOW
from slicer.util import arrayFromVolume

BRIGHT, MIDDLE = 1000, 500
# Which organ each frame shows, and its index; the engine finds spleen in bright voxels, liver in middling ones.
FRAMES = [(BRIGHT, "0", ["spleen"]), (MIDDLE, "2.5", ["liver"]), (BRIGHT, "5", ["spleen"])]


@pytest.fixture
def player(user: PanelUser) -> Iterator[Any]:
    """Slicer's sequences logic, which updates the proxy node to the chosen frame."""
    logic = slicer.vtkSlicerSequencesLogic()
    logic.SetMRMLApplicationLogic(user.application.host.logic)
    logic.SetMRMLScene(slicer.mrmlScene)
    yield logic
    logic.SetMRMLScene(None)


@pytest.fixture
def frames(user: PanelUser, player: Any) -> FrameSource:
    """Three frames, played by a browser; the input is their proxy."""
    scene = slicer.mrmlScene
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "Perfusion")
    sequence.SetIndexName("time")
    sequence.SetIndexUnit("s")
    for value, index, _ in FRAMES:
        array = np.full((4, 5, 6), -1000, np.int16)
        array[1:3, 1:4, 2:5] = value
        node = putVolume(scene, Volume(array, np.diag([-1.0, 1.5, 2.0, 1.0])), "frame")
        sequence.SetDataNodeAtValue(node, index)
        scene.RemoveNode(node)
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "Browser")
    browser.AddSynchronizedSequenceNodeID(sequence.GetID())
    player.UpdateProxyNodesFromSequences(browser)
    browser.SetSelectedItemNumber(0)
    proxy = browser.GetProxyNode(sequence)
    user.ui.inputSelector.setCurrentNode(proxy)
    user.application.process()
    result = findFrames(proxy)
    assert result is not None
    return result


@pytest.fixture
def logic(user: PanelUser) -> Iterator[Any]:
    from DiffusionSegmentLib.worker.client import WorkerClient
    from DiffusionSegmentLib.worker.transport import QProcessTransport

    result = user.widget.logic
    result.scripting._createClient = lambda: WorkerClient(lambda: QProcessTransport(ENGINE))
    yield result
    result.close()


def results() -> list[Any]:
    return [node for node in nodesOfClass(slicer.mrmlScene, "vtkMRMLSequenceNode") if "segmentation" in node.GetName()]


def organs(node: Any) -> list[str]:
    return list(node.GetSegmentation().GetSegmentIDs())


def startAll(user: PanelUser) -> None:
    user.ui.allFramesBox.setChecked(True)
    user.click(user.ui.segmentButton)


def waitForEnd(user: PanelUser) -> None:
    user.until(lambda: user.ui.segmentButton.text == "Segment")


def test_the_box_shows_only_for_a_frame_of_a_sequence(user: PanelUser, frames: FrameSource) -> None:
    assert user.ui.allFramesBox.isVisible()
    assert user.ui.allFramesBox.text == "All 3 frames"
    user.addVolume()
    assert not user.ui.allFramesBox.isVisible()


def test_every_frame_is_in_one_sequence_with_the_same_index(user: PanelUser, frames: FrameSource) -> None:
    startAll(user)
    waitForEnd(user)
    (made,) = results()
    assert [made.GetNthIndexValue(n) for n in range(3)] == [index for _, index, _ in FRAMES]
    assert (made.GetIndexName(), made.GetIndexUnit()) == ("time", "s")
    assert made.GetDataNodeClassName() == "vtkMRMLSegmentationNode"
    assert [organs(made.GetNthDataNode(n)) for n in range(3)] == [result for _, _, result in FRAMES]
    assert user.ui.messageLabel.text == "3 of 3 frames segmented. Not for diagnosis."
    assert not user.ui.progressBar.visible


def test_the_result_plays_in_step_with_the_scan(user: PanelUser, frames: FrameSource, player: Any) -> None:
    startAll(user)
    waitForEnd(user)
    (made,) = results()
    shown = frames.browser.GetProxyNode(made)
    for number in (2, 0, 1):
        frames.browser.SetSelectedItemNumber(number)
        player.UpdateProxyNodesFromSequences(frames.browser)
        assert arrayFromVolume(frames.volume).max() == FRAMES[number][0]
        assert organs(shown) == FRAMES[number][2]


def test_each_frame_keeps_its_report_colours_and_codes(user: PanelUser, frames: FrameSource) -> None:
    startAll(user)
    waitForEnd(user)
    frame = results()[0].GetNthDataNode(1)
    assert readReport(frame)["provenance"]["model"] == "abdomen-ct"
    assert frame.GetSegmentation().GetSegment("liver").GetName() == "Liver"
    np.testing.assert_allclose(frame.GetSegmentation().GetSegment("liver").GetColor(), np.array((221, 130, 101)) / 255)


def test_the_shown_frame_stays_while_other_frames_are_segmented(user: PanelUser, frames: FrameSource) -> None:
    frames.browser.SetSelectedItemNumber(1)
    startAll(user)
    waitForEnd(user)
    assert frames.browser.GetSelectedItemNumber() == 1
    assert user.segmentations() == [frames.browser.GetProxyNode(results()[0])]


def test_the_panel_shows_the_frame_in_progress(user: PanelUser, frames: FrameSource) -> None:
    startAll(user)
    user.until(lambda: user.ui.messageLabel.text == "Frame 2 of 3 (time 2.5 s)")
    assert user.ui.segmentButton.text == "Cancel"
    assert user.ui.progressBar.visible
    waitForEnd(user)


def test_cancel_keeps_the_finished_frames_and_says_so(user: PanelUser, frames: FrameSource) -> None:
    startAll(user)
    user.until(lambda: user.ui.messageLabel.text.startswith("Frame 2"))
    user.until(lambda: user.widget.logic.client.state.value == "Busy")
    user.click(user.ui.segmentButton)
    waitForEnd(user)
    assert user.ui.messageLabel.text == "Cancelled. 1 of 3 frames were finished and are kept."
    (made,) = results()
    assert [organs(made.GetNthDataNode(n)) for n in range(3)] == [["spleen"], [], []]


def test_a_frame_without_a_result_shows_no_organs(user: PanelUser, frames: FrameSource, player: Any) -> None:
    startAll(user)
    user.until(lambda: user.ui.messageLabel.text.startswith("Frame 2"))
    user.click(user.ui.segmentButton)
    waitForEnd(user)
    shown = frames.browser.GetProxyNode(results()[0])
    assert organs(shown) == ["spleen"]
    frames.browser.SetSelectedItemNumber(2)
    player.UpdateProxyNodesFromSequences(frames.browser)
    assert organs(shown) == [], "another frame's organs lie over this one"


def test_a_second_run_uses_the_sequence_of_the_first(user: PanelUser, frames: FrameSource) -> None:
    startAll(user)
    waitForEnd(user)
    (made,) = results()
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    user.click(user.ui.segmentButton)
    user.until(lambda: user.ui.messageLabel.text.startswith("Frame 2"))
    assert [organs(made.GetNthDataNode(n)) for n in range(3)] == [["spleen"], [], []], "two runs are mixed"
    waitForEnd(user)
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes
    assert [organs(made.GetNthDataNode(n)) for n in range(3)] == [result for _, _, result in FRAMES]


def test_cancel_before_the_first_frame_adds_nothing(user: PanelUser, frames: FrameSource) -> None:
    user.widget._parameterNode.seed = SLOW
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    startAll(user)
    user.until(lambda: user.ui.stageLabel.text == "Drawing samples")
    user.click(user.ui.segmentButton)
    waitForEnd(user)
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes
    assert "0 of 3" in user.ui.messageLabel.text


def test_a_failing_frame_is_reported_by_its_index_and_the_others_go_on(user: PanelUser, frames: FrameSource) -> None:
    frames.frame(1).SetAndObserveImageData(None)
    startAll(user)
    waitForEnd(user)
    (made,) = results()
    assert [organs(made.GetNthDataNode(n)) for n in range(3)] == [["spleen"], [], ["spleen"]]
    first, second = user.ui.messageLabel.text.splitlines()
    assert first.startswith("2 of 3 frames")
    assert second.startswith("⚠ Frame 2 (time 2.5 s): ")
    assert second.endswith("[INPUT_SHAPE]")


def test_frames_that_the_model_refuses_are_all_reported(user: PanelUser, frames: FrameSource) -> None:
    user.widget._parameterNode.seed = REFUSED
    startAll(user)
    waitForEnd(user)
    assert results() == []
    assert user.ui.messageLabel.text.count("This is MR. Choose a CT. [MODALITY]") == 3
    user.widget._parameterNode.seed = 0
    user.click(user.ui.segmentButton)
    waitForEnd(user)
    assert "3 of 3" in user.ui.messageLabel.text


def test_a_worker_that_cannot_be_started_is_reported_once(user: PanelUser, frames: FrameSource) -> None:
    user.useWorker(["/nonexistent/python"])
    startAll(user)
    waitForEnd(user)
    assert user.ui.messageLabel.text.count("could not be started") == 1


def test_closing_the_scene_ends_the_run_and_the_next_click_works(user: PanelUser, frames: FrameSource) -> None:
    startAll(user)
    user.until(lambda: user.ui.messageLabel.text.startswith("Frame 2"))
    slicer.mrmlScene.Clear(False)
    user.until(lambda: user.widget.logic.client.state.value == "Ready")
    assert results() == []
    assert user.ui.messageLabel.text == ""
    user.addVolume()
    user.segment()
    assert len(user.segmentations()) == 1


def test_removing_the_sequence_ends_the_run(user: PanelUser, frames: FrameSource) -> None:
    startAll(user)
    user.until(lambda: user.ui.messageLabel.text.startswith("Frame 2"))
    slicer.mrmlScene.RemoveNode(frames.sequence)
    waitForEnd(user)
    assert not user.ui.progressBar.visible
    assert user.widget.logic.client.state.value == "Ready"


def test_frames_under_a_transform_are_shown_where_the_scan_lies(user: PanelUser, frames: FrameSource) -> None:
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(0, 3, 40.0)
    transform.SetMatrixTransformToParent(matrix)
    frames.volume.SetAndObserveTransformNodeID(transform.GetID())
    assert frames.buffer(2)[1][0, 3] == pytest.approx(-40.0)
    startAll(user)
    waitForEnd(user)
    shown = frames.browser.GetProxyNode(results()[0])
    scan, organ = [0.0] * 6, [0.0] * 6
    frames.volume.GetRASBounds(scan)
    shown.GetRASBounds(organ)
    assert scan[0] <= organ[0] < organ[1] <= scan[1]


def test_a_script_gets_the_sequence_and_the_progress_of_each_frame(frames: FrameSource, logic: Any) -> None:
    caught: list[tuple[str, int, int]] = []
    outcome = logic.segmentSequence(frames.volume, progress=lambda *now: caught.append(now), samples=2)
    assert [now for now in caught if now[0] == "frame"] == [("frame", n, 3) for n in (1, 2, 3)]
    assert ("refine", 3, 4) in caught
    assert outcome.done == [0, 1, 2]
    assert [organs(outcome.sequence.GetNthDataNode(n)) for n in range(3)] == [result for _, _, result in FRAMES]


def test_an_exception_of_a_callback_ends_the_run_and_keeps_finished_frames(frames: FrameSource, logic: Any) -> None:
    def stop(stage: str, done: int, _: int) -> None:
        if (stage, done) == ("frame", 2):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        logic.segmentSequence(frames.volume, progress=stop)
    assert [organs(results()[0].GetNthDataNode(n)) for n in range(3)] == [["spleen"], [], []]
    assert logic.segmentSequence(frames.volume).done == [0, 1, 2]


def test_a_volume_outside_a_sequence_has_no_frames(user: PanelUser, logic: Any) -> None:
    with pytest.raises(DiffusionSegmentError, match="no frame of a sequence") as caught:
        logic.segmentSequence(user.addVolume())
    assert caught.value.code is ErrorCode.INPUT_SHAPE


def test_a_script_gets_an_error_when_no_frame_succeeds(frames: FrameSource, logic: Any) -> None:
    with pytest.raises(DiffusionSegmentError, match="This is MR"):
        logic.segmentSequence(frames.volume, seed=REFUSED)
