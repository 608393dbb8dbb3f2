"""Run nnU-Net or MONAI: a MONAI bundle segments the scan, and its segmentation is chosen for a review."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import slicer
import vtk
from DiffusionSegmentBackend.errors import Cancelled, DiffusionSegmentError, ErrorCode
from DiffusionSegmentLib.worker.client import WorkerClient
from fixtures.presegmenter_models import RIB_HU, SPLEEN_HU, write_bundle
from vtk.util.numpy_support import vtk_to_numpy

if TYPE_CHECKING:
    from .conftest import PanelUser

WORKER = [sys.executable, "-u", "-m", "DiffusionSegmentBackend", "worker"]
SLOW_START = 60.0
CT = np.arange(-500, 1300, dtype=np.int16).reshape(10, 12, 15)


@pytest.fixture
def ct(user: PanelUser) -> Any:
    user.useWorker(WORKER)
    return user.addVolume(CT)


def presegment(user: PanelUser, folder: Path | str) -> None:
    user.widget.panel.presegmentation.chooseFolder = lambda: str(folder)
    user.click(user.ui.presegmentButton)
    user.until(lambda: not user.widget.logic.client.running, seconds=SLOW_START)
    user.application.process()


def masksOf(segmentation: Any) -> dict[str, Any]:
    """The mask of each segment by its name; every segment of an answer has the voxels of the scan."""
    masks = {}
    for name in segmentation.GetSegmentation().GetSegmentIDs():
        segment = segmentation.GetSegmentation().GetSegment(name)
        image = segment.GetRepresentation("Binary labelmap")
        voxels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(CT.shape)
        masks[segment.GetName()] = voxels == segment.GetLabelValue()
    return masks


def test_the_segmentation_of_a_bundle_is_put_into_the_scene_and_chosen_for_a_review(
    user: PanelUser, ct: Any, tmp_path: Path
) -> None:
    assert user.ui.presegmentButton.enabled
    presegment(user, write_bundle(tmp_path / "bundle"))
    (node,) = user.segmentations()
    assert node.GetName() == "CT (bundle)"
    assert user.ui.givenSelector.currentNode() is node
    assert user.ui.reviewGivenButton.enabled
    assert "CT (bundle) is in the scene" in user.ui.messageLabel.text
    masks = masksOf(node)
    np.testing.assert_array_equal(masks["spleen"], (CT > SPLEEN_HU) & (CT < RIB_HU))
    np.testing.assert_array_equal(masks["rib"], CT > RIB_HU)
    table = user.ui.matchTable
    shown = {table.item(row, 0).text(): table.cellWidget(row, 1).currentText for row in range(table.rowCount)}
    assert shown == {"spleen": "Spleen", "rib": "leave as it is"}


def test_a_segment_with_the_name_of_an_organ_has_its_colour_and_code(
    user: PanelUser, ct: Any, tmp_path: Path
) -> None:
    presegment(user, write_bundle(tmp_path / "bundle"))
    (node,) = user.segmentations()
    segment = node.GetSegmentation().GetNthSegment(0)
    entry = slicer.vtkSegment.GetTerminologyEntryTagName()
    tag = vtk.reference("")
    assert segment.GetTag(entry, tag)
    assert "78961009" in str(tag)
    assert np.allclose(segment.GetColor(), [157 / 255, 108 / 255, 162 / 255])


@pytest.mark.parametrize(
    ("modality", "exists", "words"),
    [("MRI", True, "Hounsfield units"), ("CT", False, "no model folder of nnU-Net v2 and no MONAI bundle")],
)
def test_what_cannot_be_run_is_one_line_and_the_scene_is_unchanged(
    user: PanelUser, ct: Any, tmp_path: Path, modality: str, exists: bool, words: str
) -> None:
    folder = write_bundle(tmp_path / "bundle", modality=modality) if exists else tmp_path
    before = slicer.mrmlScene.GetNumberOfNodes()
    presegment(user, folder)
    assert words in user.ui.messageLabel.text
    assert user.segmentations() == []
    assert slicer.mrmlScene.GetNumberOfNodes() == before


def test_no_folder_is_no_request(user: PanelUser, ct: Any) -> None:
    presegment(user, "")
    assert user.segmentations() == []
    assert user.ui.messageLabel.text == ""


def test_the_button_needs_a_scan(user: PanelUser) -> None:
    user.ui.inputSelector.setCurrentNode(None)
    user.application.process()
    assert not user.ui.presegmentButton.enabled
    assert user.ui.presegmentButton.toolTip == "Choose an input volume first."


def test_a_script_presegments_and_its_result_can_be_reviewed(user: PanelUser, ct: Any, tmp_path: Path) -> None:
    from DiffusionSegmentLib.worker.transport import QProcessTransport

    logic = user.widget.logic
    logic.scripting._createClient = lambda: WorkerClient(lambda: QProcessTransport(WORKER))
    stages: list[str] = []
    node = logic.presegment(ct, write_bundle(tmp_path / "bundle"), progress=lambda stage, *_: stages.append(stage))
    assert "presegmenter" in stages
    assert [name for name, mask in masksOf(node).items() if mask.any()] == ["spleen", "rib"]
    with pytest.raises(DiffusionSegmentError) as caught:
        logic.presegment(ct, tmp_path)
    assert caught.value.code is ErrorCode.INPUT_MISSING

    def stop(stage: str, *_: object) -> None:
        if stage == "presegmenter":
            raise Cancelled

    with pytest.raises(Cancelled):
        logic.presegment(ct, tmp_path / "bundle", progress=stop)
