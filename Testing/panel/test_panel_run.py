"""What the panel shows during a run: stage, time left and preview, which are removed when the run ends."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import numpy as np
import pytest
import slicer
import vtk
from DiffusionSegmentBackend.protocol.messages import Progress

if TYPE_CHECKING:
    from .conftest import PanelUser

SLOW, REFUSED = 99, 13


def names(user: PanelUser) -> list[str]:
    return [node.GetName() for node in user.segmentations()]


def sceneNodes() -> list[str]:
    """The scene's nodes, by class and name; without the subject hierarchy, which the first segmentation adds."""
    nodes = [slicer.mrmlScene.GetNthNode(n) for n in range(slicer.mrmlScene.GetNumberOfNodes())]
    kept = [node for node in nodes if not node.IsA("vtkMRMLSubjectHierarchyNode")]
    return sorted(f"{node.GetClassName()} {node.GetName()}" for node in kept)


def start(user: PanelUser, *, seed: int = SLOW) -> None:
    user.widget._parameterNode.seed = seed
    user.click(user.ui.segmentButton)


def startAndSeePreview(user: PanelUser) -> slicer.vtkMRMLSegmentationNode:
    start(user)
    user.until(lambda: "CT preview" in names(user))
    return next(node for node in user.segmentations() if node.GetName() == "CT preview")


class TestPreview:
    def test_it_is_shown_during_the_run_and_replaced_by_the_result(self, user: PanelUser) -> None:
        user.addVolume()
        seen: list[list[str]] = []
        user.widget.logic.client.previewed.connect(lambda _: seen.append(names(user)))
        user.segment()
        assert seen == [["CT preview"]]
        assert names(user) == ["CT segmentation"]

    def test_it_shows_the_pre_segmentation(self, user: PanelUser) -> None:
        user.addVolume()
        node = startAndSeePreview(user)
        assert list(node.GetSegmentation().GetSegmentIDs()) == ["spleen"]
        assert node.GetDisplayNode().GetVisibility()

    def test_without_its_tick_there_is_no_preview(self, user: PanelUser) -> None:
        user.addVolume()
        user.ui.advancedButton.collapsed = False
        user.click(user.ui.previewBox)
        seen: list[object] = []
        user.widget.logic.client.previewed.connect(seen.append)
        user.segment()
        assert seen == []

    def test_cancelling_removes_it(self, user: PanelUser) -> None:
        user.addVolume()
        nodes = sceneNodes()
        startAndSeePreview(user)
        user.click(user.ui.segmentButton)
        user.until(lambda: user.ui.segmentButton.text == "Segment")
        assert sceneNodes() == nodes

    def test_a_refusal_and_a_crash_remove_it(self, user: PanelUser) -> None:
        user.addVolume()
        start(user, seed=REFUSED)
        user.until(lambda: user.ui.segmentButton.text == "Segment")
        assert names(user) == []
        startAndSeePreview(user)
        os.kill(user.widget.logic.client.hello.pid, signal.SIGKILL)
        user.until(lambda: "stopped unexpectedly" in user.ui.messageLabel.text)
        assert names(user) == []

    def test_closing_the_scene_removes_it(self, user: PanelUser) -> None:
        user.addVolume()
        startAndSeePreview(user)
        slicer.mrmlScene.Clear(False)
        user.until(lambda: not user.widget.logic.client.running)
        assert names(user) == []

    def test_the_previous_result_is_unchanged_and_undo_restores_it(self, user: PanelUser) -> None:
        user.addVolume()
        user.segment()
        (result,) = user.segmentations()
        time = result.GetSegmentation().GetMTime()
        startAndSeePreview(user)
        assert result.GetSegmentation().GetMTime() == time
        assert user.widget._parameterNode.segmentation is result
        user.click(user.ui.segmentButton)
        user.until(lambda: user.ui.segmentButton.text == "Segment")
        assert result.GetSegmentation().GetMTime() == time
        assert user.ui.undoButton.text == "Undo Segment"
        user.click(user.ui.undoButton)
        assert names(user) == ["CT segmentation"]

    def test_a_preview_that_cannot_be_shown_is_reported_and_the_run_goes_on(self, user: PanelUser) -> None:
        volume = user.addVolume()
        client = user.widget.logic.client
        shown: list[str] = []
        client.previewed.connect(lambda _: shown.append(user.ui.messageLabel.text))
        user.click(user.ui.segmentButton)
        smaller = vtk.vtkImageData()
        smaller.SetDimensions(3, 3, 3)
        smaller.AllocateScalars(vtk.VTK_SHORT, 1)
        volume.SetAndObserveImageData(smaller)
        user.until(lambda: bool(shown))
        assert "has changed since the click" in shown[0]
        assert client.running
        assert names(user) == []


class TestTimeLeft:
    def test_stage_count_and_time_are_on_the_screen(self, user: PanelUser) -> None:
        user.addVolume()
        start(user)
        user.until(lambda: user.ui.stageLabel.text == "Drawing samples")
        user.until(lambda: "left" in user.ui.timeLabel.text)
        count, left = user.ui.timeLabel.text.split(" · ")
        assert count.endswith(" of 500")
        seconds = int(left.removeprefix("about ").removesuffix(" s left"))
        assert 5 <= seconds <= 40
        assert user.grab(user.ui.timeLabel).std() > 5
        user.click(user.ui.segmentButton)
        user.until(lambda: not user.ui.timeLabel.visible)

    def test_the_time_of_a_second_run_is_known_from_its_first_unit(self, user: PanelUser) -> None:
        user.addVolume()
        reported: list[str] = []
        user.widget.logic.client.progress.connect(lambda _: reported.append(user.ui.timeLabel.text))
        user.segment()
        assert reported[0] == "0 of 4"
        reported.clear()
        user.segment()
        assert reported[0] == "0 of 4 · about 1 s left"

    @pytest.mark.parametrize(
        ("seconds", "text"), [(12.0, "5 of 10 · about 10 s left"), (300.0, "5 of 10 · about 5 min left")]
    )
    def test_long_times_are_shown_in_minutes(self, user: PanelUser, seconds: float, text: str) -> None:
        from DiffusionSegmentLib.panel.run_progress import RunProgress
        from DiffusionSegmentLib.panel.time_left import TimeLeft

        now = [0.0]
        progress = RunProgress(user.ui, TimeLeft(lambda: now[0]))
        progress.begin("Starting")
        progress.show(Progress(id="1", stage="refine", done=0, total=10))
        assert user.ui.timeLabel.text == "0 of 10"
        now[0] = seconds
        progress.show(Progress(id="1", stage="refine", done=5, total=10))
        assert user.ui.timeLabel.text == text
        assert np.isclose(user.ui.progressBar.value, 5)

    def test_a_stage_of_one_unit_is_not_counted(self, user: PanelUser) -> None:
        from DiffusionSegmentLib.panel.run_progress import RunProgress

        progress = RunProgress(user.ui)
        progress.begin("Starting")
        progress.show(Progress(id="1", stage="load", done=0, total=1))
        assert user.ui.stageLabel.text == "Loading the model"
        assert user.ui.timeLabel.text == ""


def test_every_disabled_button_shows_the_reason(user: PanelUser) -> None:
    """In an empty scene, with a result, and during a run."""

    def silent() -> list[str]:
        buttons = [widget for widget in vars(user.ui).values() if widget.inherits("QPushButton")]
        return [button.objectName for button in buttons if not button.enabled and not button.toolTip]

    assert silent() == []
    user.addVolume()
    assert silent() == []
    user.segment()
    assert silent() == []
    start(user)
    assert silent() == []
