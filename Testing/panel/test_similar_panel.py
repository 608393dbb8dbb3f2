"""Similar voxels in the panel: set a point, show the similarity map, drag, set the threshold, make a segment."""

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
from pythonqt.panel_stub import PanelStub
from pythonqt.slicer_application import Application

ENGINE = [sys.executable, "-u", str(Path(__file__).parent / "engine_process.py")]


@pytest.fixture
def recorded() -> list[Any]:
    return []


@pytest.fixture
def stub(application: Application, recorded: list[Any]) -> Iterator[PanelStub]:
    created = PanelStub(application, ENGINE)
    from DiffusionSegmentLib.panel.similar_panel import SimilarPanel

    created.part = SimilarPanel(created.ui, created.client, created, lambda name, before: recorded.append(name))
    yield created
    created.part.close()
    created.close()


@pytest.fixture
def ct(stub: PanelStub) -> slicer.vtkMRMLScalarVolumeNode:
    array = np.zeros((16, 20, 24), np.int16)
    node = putVolume(slicer.mrmlScene, Volume(array, np.diag([-1.0, 1.5, 2.0, 1.0])), "CT")
    stub.parameters.inputVolume = node
    stub.update()
    return node


def point() -> Any:
    return slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLMarkupsFiducialNode")


def put(stub: PanelStub, *ras: float) -> None:
    """Click "Place a point", then a voxel."""
    stub.click(stub.ui.similarPointButton)
    point().AddControlPointWorld(vtk.vtkVector3d(*ras))
    stub.rest()


def segments(stub: PanelStub) -> list[str]:
    node = stub.parameters.segmentation
    result = node.GetSegmentation() if node is not None else None
    return [result.GetSegment(name).GetName() for name in result.GetSegmentIDs()] if result is not None else []


def test_without_a_scan_the_disabled_buttons_show_the_reason(stub: PanelStub) -> None:
    assert not stub.ui.similarPointButton.enabled
    assert stub.ui.similarSegmentButton.toolTip == "Choose an input volume first."


def test_without_a_point_no_segment_can_be_made(stub: PanelStub, ct: Any) -> None:
    assert stub.ui.similarPointButton.enabled
    assert not stub.ui.similarSegmentButton.enabled
    assert stub.ui.similarSegmentButton.toolTip == "Place a point first."


def test_a_point_shows_the_similarity_map(stub: PanelStub, ct: Any) -> None:
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    put(stub, 10.0, -9.0, 16.0)
    shown = slicer.mrmlScene.GetNodeByID(composite.GetForegroundVolumeID())
    assert shown.GetName() == "CT similarity"
    assert stub.messages == []
    values = slicer.util.arrayFromVolume(shown)
    k, j, i = np.unravel_index(values.argmax(), values.shape)
    matrix = vtk.vtkMatrix4x4()
    shown.GetIJKToRASMatrix(matrix)
    np.testing.assert_allclose(matrix.MultiplyPoint((i, j, k, 1))[:3], (10.0, -9.0, 16.0), atol=2.0)
    assert stub.ui.similarSegmentButton.enabled
    assert "at least 0.60" in stub.ui.similarLabel.text


def test_dragging_the_point_requests_only_its_last_position(stub: PanelStub, ct: Any) -> None:
    put(stub, 10.0, -9.0, 16.0)
    requests = stub.begun
    for step in range(30):
        point().SetNthControlPointPositionWorld(0, 10.0 + 0.1 * step, -9.0, 16.0)
        stub.application.process()
    stub.rest()
    assert requests < stub.begun <= requests + 2
    assert stub.answers
    values = slicer.util.arrayFromVolume(slicer.mrmlScene.GetFirstNodeByName("CT similarity"))
    position = np.array([10.0 + 2.9, -9.0, 16.0])
    expected = 1 - 0.05 * np.linalg.norm(position - (12.0, -9.0, 16.0))
    assert values[4, 3, 6] == pytest.approx(expected, abs=1e-4)


def test_a_point_moved_during_another_run_is_requested_afterwards(stub: PanelStub, ct: Any) -> None:
    put(stub, 10.0, -9.0, 16.0)
    requests = stub.begun
    array = slicer.util.arrayFromVolume(ct)
    stub.client.segment(array, np.eye(4), seed=1)
    stub.part.onAnswer = lambda answer: None
    point().SetNthControlPointPositionWorld(0, 12.0, -9.0, 16.0)
    stub.application.process()
    assert stub.begun == requests, "a request was sent while the worker was busy"
    del stub.part.onAnswer
    stub.until(lambda: stub.begun == requests + 1)


def test_the_slider_sets_the_threshold(stub: PanelStub, ct: Any) -> None:
    put(stub, 10.0, -9.0, 16.0)
    stub.ui.similarSlider.value = 0.9
    display = slicer.mrmlScene.GetFirstNodeByName("CT similarity").GetDisplayNode()
    assert display.GetLowerThreshold() == pytest.approx(0.9)
    assert stub.parameters.similarity == pytest.approx(0.9)


def test_a_segment_needs_no_result(stub: PanelStub, ct: Any, recorded: list[Any]) -> None:
    put(stub, 10.0, -9.0, 16.0)
    stub.click(stub.ui.similarSegmentButton)
    assert segments(stub) == ["Similar region 1"]
    assert stub.messages[-1].startswith("Similar region 1: ")
    stub.click(stub.ui.similarSegmentButton)
    assert segments(stub) == ["Similar region 1", "Similar region 2"]
    assert recorded == [], "there is no history without a result"


def test_a_segment_beside_a_result_can_be_undone(stub: PanelStub, ct: Any, recorded: list[Any]) -> None:
    from DiffusionSegmentLib.scene.history import StepName
    from DiffusionSegmentLib.scene.segmented_scan import SegmentedScan
    from DiffusionSegmentLib.scene.similarity import segmentationFor

    stub.parameters.segmentation = segmentationFor(ct, None)
    stub.scan = SegmentedScan(ct, stub.parameters.segmentation, ())
    put(stub, 10.0, -9.0, 16.0)
    stub.click(stub.ui.similarSegmentButton)
    assert recorded == [StepName.SIMILAR_REGION]
    assert segments(stub) == ["Similar region 1"]


def test_a_point_outside_the_analysed_region_is_reported(stub: PanelStub, ct: Any) -> None:
    put(stub, 10.0, -9.0, 16.0)
    point().SetNthControlPointPositionWorld(0, 900.0, -9.0, 16.0)
    stub.click(stub.ui.similarSegmentButton)
    assert stub.messages[-1].startswith("OPTION: The point lies outside the region that was analysed.")
    assert segments(stub) == []


def test_a_cancelled_request_is_not_repeated(stub: PanelStub, ct: Any) -> None:
    put(stub, 10.0, -9.0, 16.0)
    point().SetNthControlPointPositionWorld(0, 12.0, -9.0, 16.0)
    stub.until(lambda: stub.client.running)
    requests = stub.begun
    stub.client.cancel()
    stub.rest()
    assert stub.messages == ["cancelled"]
    assert stub.begun == requests


def test_an_answer_for_a_scan_that_was_removed_shows_nothing(stub: PanelStub, ct: Any) -> None:
    stub.click(stub.ui.similarPointButton)
    point().AddControlPointWorld(vtk.vtkVector3d(10.0, -9.0, 16.0))
    stub.until(lambda: stub.client.running)
    slicer.mrmlScene.RemoveNode(ct)
    stub.rest()
    assert stub.messages == ["INPUT_MISSING: The input volume is no longer in the scene. Choose another."]
    assert slicer.mrmlScene.GetFirstNodeByName("CT similarity") is None
