"""Faults that the panel must not have: lost results, overlays of another scan, buttons without effect."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import slicer
from slicer.util import arrayFromVolume

if TYPE_CHECKING:
    from .conftest import PanelUser

REFUSED, UNREADABLE = 13, 44


def labelsIn(node: slicer.vtkMRMLSegmentationNode) -> list[str]:
    segmentation = node.GetSegmentation()
    return [segmentation.GetNthSegment(n).GetName() for n in range(segmentation.GetNumberOfSegments())]


def test_a_second_scan_keeps_the_result_of_the_first(user: PanelUser) -> None:
    user.addVolume(name="First")
    user.segment()
    (first,) = user.segmentations()
    uncertainty = arrayFromVolume(slicer.mrmlScene.GetFirstNodeByName("First uncertainty")).copy()
    user.addVolume(np.full((4, 5, 6), 1000, np.int16), name="Second")
    user.segment()
    assert [node.GetName() for node in user.segmentations()] == ["First segmentation", "Second segmentation"]
    assert labelsIn(first) == ["Spleen", "Liver"]
    kept = arrayFromVolume(slicer.mrmlScene.GetFirstNodeByName("First uncertainty"))
    np.testing.assert_array_equal(kept, uncertainty)


def test_a_failed_run_on_another_scan_leaves_the_slice_views_unchanged(user: PanelUser) -> None:
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    first = user.addVolume(name="First")
    user.segment()
    assert composite.GetBackgroundVolumeID() == first.GetID()
    user.addVolume(name="Second")
    user.widget._parameterNode.seed = REFUSED
    user.segment()
    user.ui.opacitySlider.setProperty("value", 0.4)
    assert composite.GetBackgroundVolumeID() == first.GetID(), "the overlay of one scan lies over another"


def test_changing_a_setting_does_not_touch_the_slice_views(user: PanelUser) -> None:
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    user.addVolume()
    user.segment()
    composite.SetForegroundVolumeID(None)
    user.widget._parameterNode.samples = 3
    assert composite.GetForegroundVolumeID() is None


def test_the_panel_works_after_the_input_was_removed(user: PanelUser) -> None:
    volume = user.addVolume()
    user.segment()
    slicer.mrmlScene.RemoveNode(volume)
    user.ui.opacitySlider.setProperty("value", 0.2)
    assert not user.ui.segmentButton.enabled
    user.addVolume(name="Other")
    user.segment()
    assert slicer.mrmlScene.GetFirstNodeByName("Other segmentation") is not None


def test_removing_the_segmentation_disables_show_in_3d(user: PanelUser) -> None:
    user.addVolume()
    user.segment()
    slicer.mrmlScene.RemoveNode(user.segmentations()[0])
    user.application.process()
    assert not user.ui.surfaceButton.enabled


def test_cancelling_before_the_worker_has_started_takes_effect_at_once(user: PanelUser) -> None:
    user.addVolume()
    user.click(user.ui.segmentButton)
    if user.widget.logic.client.state.value != "Starting":
        pytest.skip("the worker was faster than the second click")
    user.ui.segmentButton.click()
    assert user.ui.segmentButton.text == "Segment"
    assert user.ui.messageLabel.text == "Cancelled. Nothing was changed."


def test_an_unexpected_error_while_showing_the_result_is_reported(user: PanelUser) -> None:
    user.addVolume()
    user.widget._parameterNode.seed = UNREADABLE
    user.segment()
    assert user.ui.messageLabel.text.startswith("⚠")
    assert "INTERNAL" in user.ui.messageLabel.text
    assert not user.ui.progressBar.visible


def test_a_failure_shows_its_code_and_its_details_can_be_copied(user: PanelUser) -> None:
    user.addVolume()
    assert not user.ui.detailsButton.visible
    user.widget._parameterNode.seed = REFUSED
    user.segment()
    assert "MODALITY" in user.ui.messageLabel.text
    assert user.ui.detailsButton.visible
    user.click(user.ui.detailsButton)
    assert "MODALITY: This is MR. Choose a CT." in user.application.qt.QApplication.clipboard().text()
    user.widget._parameterNode.seed = 0
    user.segment()
    assert not user.ui.detailsButton.visible


def test_a_scene_with_an_unknown_model_is_reported(user: PanelUser) -> None:
    user.addVolume()
    user.widget._parameterNode.model = "thorax-mr"
    assert not user.ui.segmentButton.enabled
    assert "thorax-mr" in user.ui.segmentButton.toolTip


def test_the_panel_fits_a_narrow_dock(user: PanelUser) -> None:
    user.addVolume()
    user.segment()
    assert user.widget.parent.minimumSizeHint.width() <= 330


def shown(widget: Any, name: str) -> Any:
    """The value of a property by Qt's meta-object, without Python attributes."""
    meta = widget.metaObject()
    return meta.property(meta.indexOfProperty(name)).read(widget)


def test_the_table_is_hidden_without_organs(user: PanelUser) -> None:
    user.addVolume()
    assert not shown(user.ui.resultTable, "visible")
    assert shown(user.ui.emptyLabel, "visible")
    user.segment()
    assert shown(user.ui.resultTable, "visible")
    assert not shown(user.ui.emptyLabel, "visible")
    assert user.grab(user.ui.resultTable).shape[0] < 100, "the table is higher than its two organs"
    slicer.mrmlScene.Clear(False)
    assert not shown(user.ui.resultTable, "visible")


def test_a_screenshot_shows_every_widget(user: PanelUser, tmp_path: Path) -> None:
    user.addVolume()
    user.segment()
    user.application.process()
    user.save("panel", tmp_path)
    assert (tmp_path / "panel.png").stat().st_size > 5000
    assert shown(user.ui.segmentButton, "text") == "Segment"
    for name in ("modelSelector", "segmentButton", "messageLabel", "resultTable", "overlaySelector", "opacitySlider"):
        assert user.grab(getattr(user.ui, name)).std() > 5, f"{name} is blank"
    assert not shown(user.ui.samplesBox, "visible"), "Advanced is not collapsed"
    user.ui.advancedButton.collapsed = False
    user.application.process()
    assert shown(user.ui.samplesBox, "visible")
