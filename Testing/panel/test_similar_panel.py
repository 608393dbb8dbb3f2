"""Similar voxels in the panel: place a point, see what is alike, drag, set the threshold, make a segment."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
import vtk
from DiffusionSegmentBackend.imaging.volume import Volume
from headless.slicer_picture import putVolume
from pythonqt.slicer_application import Application
from pythonqt.small_desk import SmallDesk

ENGINE = [sys.executable, "-u", str(Path(__file__).parent / "engine_process.py")]


@pytest.fixture
def recorded() -> list[Any]:
    return []


@pytest.fixture
def desk(application: Application, recorded: list[Any]) -> Iterator[SmallDesk]:
    created = SmallDesk(application, ENGINE)
    from DiffusionSegmentLib.panel.similar_panel import SimilarPanel

    created.part = SimilarPanel(created.ui, created.client, created, lambda name, before: recorded.append(name))
    yield created
    created.part.close()
    created.close()


@pytest.fixture
def ct(desk: SmallDesk) -> slicer.vtkMRMLScalarVolumeNode:
    array = np.zeros((16, 20, 24), np.int16)
    node = putVolume(slicer.mrmlScene, Volume(array, np.diag([-1.0, 1.5, 2.0, 1.0])), "CT")
    desk.parameters.inputVolume = node
    desk.update()
    return node


def point() -> Any:
    return slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLMarkupsFiducialNode")


def put(desk: SmallDesk, *ras: float) -> None:
    """Click "Place a point", then a voxel."""
    desk.click(desk.ui.similarPointButton)
    point().AddControlPointWorld(vtk.vtkVector3d(*ras))
    desk.rest()


def segments(desk: SmallDesk) -> list[str]:
    node = desk.parameters.segmentation
    found = node.GetSegmentation() if node is not None else None
    return [found.GetSegment(name).GetName() for name in found.GetSegmentIDs()] if found is not None else []


def test_without_a_scan_the_buttons_say_why(desk: SmallDesk) -> None:
    assert not desk.ui.similarPointButton.enabled
    assert desk.ui.similarSegmentButton.toolTip == "Choose an input volume first."


def test_without_a_point_there_is_nothing_to_make(desk: SmallDesk, ct: Any) -> None:
    assert desk.ui.similarPointButton.enabled
    assert not desk.ui.similarSegmentButton.enabled
    assert desk.ui.similarSegmentButton.toolTip == "Place a point first."


def test_a_point_lights_up_what_is_alike(desk: SmallDesk, ct: Any) -> None:
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    put(desk, 10.0, -9.0, 16.0)
    shown = slicer.mrmlScene.GetNodeByID(composite.GetForegroundVolumeID())
    assert shown.GetName() == "CT similarity"
    assert desk.said == []
    values = slicer.util.arrayFromVolume(shown)
    k, j, i = np.unravel_index(values.argmax(), values.shape)
    matrix = vtk.vtkMatrix4x4()
    shown.GetIJKToRASMatrix(matrix)
    np.testing.assert_allclose(matrix.MultiplyPoint((i, j, k, 1))[:3], (10.0, -9.0, 16.0), atol=2.0)
    assert desk.ui.similarSegmentButton.enabled
    assert "at least 0.60" in desk.ui.similarLabel.text


def test_while_the_point_is_dragged_the_last_place_alone_is_asked_for(desk: SmallDesk, ct: Any) -> None:
    put(desk, 10.0, -9.0, 16.0)
    asked = desk.begun
    for step in range(30):
        point().SetNthControlPointPositionWorld(0, 10.0 + 0.1 * step, -9.0, 16.0)
        desk.application.process()
    desk.rest()
    assert asked < desk.begun <= asked + 2
    assert desk.answers
    values = slicer.util.arrayFromVolume(slicer.mrmlScene.GetFirstNodeByName("CT similarity"))
    place = np.array([10.0 + 2.9, -9.0, 16.0])
    expected = 1 - 0.05 * np.linalg.norm(place - (12.0, -9.0, 16.0))
    assert values[4, 3, 6] == pytest.approx(expected, abs=1e-4)


def test_a_point_that_is_moved_during_another_run_is_asked_for_afterwards(desk: SmallDesk, ct: Any) -> None:
    put(desk, 10.0, -9.0, 16.0)
    asked = desk.begun
    array = slicer.util.arrayFromVolume(ct)
    desk.client.segment(array, np.eye(4), seed=1)
    desk.part.onAnswer = lambda answer: None
    point().SetNthControlPointPositionWorld(0, 12.0, -9.0, 16.0)
    desk.application.process()
    assert desk.begun == asked, "asked while the worker was busy"
    del desk.part.onAnswer
    desk.until(lambda: desk.begun == asked + 1)


def test_the_slider_is_the_threshold(desk: SmallDesk, ct: Any) -> None:
    put(desk, 10.0, -9.0, 16.0)
    desk.ui.similarSlider.value = 0.9
    display = slicer.mrmlScene.GetFirstNodeByName("CT similarity").GetDisplayNode()
    assert display.GetLowerThreshold() == pytest.approx(0.9)
    assert desk.parameters.similarity == pytest.approx(0.9)


def test_a_segment_needs_no_result(desk: SmallDesk, ct: Any, recorded: list[Any]) -> None:
    put(desk, 10.0, -9.0, 16.0)
    desk.click(desk.ui.similarSegmentButton)
    assert segments(desk) == ["Similar region 1"]
    assert desk.said[-1].startswith("Similar region 1: ")
    desk.click(desk.ui.similarSegmentButton)
    assert segments(desk) == ["Similar region 1", "Similar region 2"]
    assert recorded == [], "there is no history without a result"


def test_a_segment_beside_a_result_can_be_undone(desk: SmallDesk, ct: Any, recorded: list[Any]) -> None:
    from DiffusionSegmentLib.scene.history import StepName
    from DiffusionSegmentLib.scene.labelled_scan import LabelledScan
    from DiffusionSegmentLib.scene.similarity import segmentationFor

    desk.parameters.segmentation = segmentationFor(ct, None)
    desk.scan = LabelledScan(ct, desk.parameters.segmentation, ())
    put(desk, 10.0, -9.0, 16.0)
    desk.click(desk.ui.similarSegmentButton)
    assert recorded == [StepName.SIMILAR_REGION]
    assert segments(desk) == ["Similar region 1"]


def test_what_is_not_alike_is_told_in_words(desk: SmallDesk, ct: Any) -> None:
    put(desk, 10.0, -9.0, 16.0)
    point().SetNthControlPointPositionWorld(0, 900.0, -9.0, 16.0)
    desk.click(desk.ui.similarSegmentButton)
    assert desk.said[-1].startswith("OPTION: The point lies outside the region that was analysed.")
    assert segments(desk) == []


def test_a_cancelled_question_is_not_asked_again(desk: SmallDesk, ct: Any) -> None:
    put(desk, 10.0, -9.0, 16.0)
    point().SetNthControlPointPositionWorld(0, 12.0, -9.0, 16.0)
    desk.until(lambda: desk.client.running)
    asked = desk.begun
    desk.client.cancel()
    desk.rest()
    assert desk.said == ["cancelled"]
    assert desk.begun == asked


def test_an_answer_for_a_scan_that_was_removed_shows_nothing(desk: SmallDesk, ct: Any) -> None:
    desk.click(desk.ui.similarPointButton)
    point().AddControlPointWorld(vtk.vtkVector3d(10.0, -9.0, 16.0))
    desk.until(lambda: desk.client.running)
    slicer.mrmlScene.RemoveNode(ct)
    desk.rest()
    assert desk.said == ["INPUT_MISSING: The input volume is no longer in the scene. Choose another."]
    assert slicer.mrmlScene.GetFirstNodeByName("CT similarity") is None
