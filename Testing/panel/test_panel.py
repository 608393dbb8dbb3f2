"""The panel from click to nodes: what is displayed, what the scene contains, and how errors are reported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import slicer
from DiffusionSegmentBackend.models.folders import bundled_models_folder
from DiffusionSegmentLib.scene.overlay_maps import toVoxelsOf
from headless.views import SliceView
from slicer.util import arrayFromVolume

if TYPE_CHECKING:
    from .conftest import PanelUser

SLOW, REFUSED, KILLED = 99, 13, 66


def test_entering_imports_no_torch_and_starts_no_worker() -> None:
    """In a process of its own, since other tests of this one import torch."""
    script = (
        "import sys; from pythonqt.slicer_application import Application; a = Application(); "
        "import DiffusionSegment as m; w = a.openModule(m); "
        "print(w.logic.client.state.value, sorted({'torch', 'monai', 'SimpleITK'} & set(sys.modules)))"
    )
    folders = [str(Path(__file__).resolve().parents[n] / name) for n, name in ((2, "DiffusionSegment"), (1, ""))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, encoding="utf-8", check=False
    )
    assert done.stdout.strip() == "Stopped []", done.stderr


def test_without_input_the_disabled_button_shows_the_reason(user: PanelUser) -> None:
    assert not user.ui.segmentButton.enabled
    assert user.ui.segmentButton.toolTip == "Choose an input volume first."
    user.addVolume()
    assert user.ui.segmentButton.enabled


def test_a_click_adds_segments_and_overlay_to_the_scene(user: PanelUser) -> None:
    volume = user.addVolume()
    user.segment()
    (segmentation,) = user.segmentations()
    assert [segmentation.GetSegmentation().GetNthSegment(n).GetName() for n in range(2)] == ["Spleen", "Liver"]
    overlay = slicer.mrmlScene.GetFirstNodeByName("CT uncertainty")
    # Its grid is coarser than the scan.
    assert arrayFromVolume(overlay).shape == (5, 6, 8)
    np.testing.assert_allclose(toVoxelsOf(volume, overlay), np.diag([2.0, 2.0, 2.0, 1.0]), atol=1e-9)
    assert user.widget._parameterNode.segmentation is segmentation


def test_the_table_lists_the_segmented_organs(user: PanelUser) -> None:
    user.addVolume()
    user.segment()
    table = user.ui.resultTable
    texts = [[table.item(row, column).text() for column in range(4)] for row in range(table.rowCount)]
    assert texts == [["Spleen", "212", "180 to 240", "93 %"], ["Liver", "1512", "1400 to 1600", "97 %"]]


def test_the_liver_row_is_drawn_in_the_colour_of_the_liver(user: PanelUser) -> None:
    user.addVolume()
    user.segment()
    user.application.process()
    pixels = user.grab(user.ui.resultTable).reshape(-1, 3).astype(int)
    assert (np.abs(pixels - (221, 130, 101)).max(axis=1) < 4).sum() > 60


def test_progress_is_visible_during_a_run_and_the_message_afterwards(user: PanelUser) -> None:
    user.addVolume()
    user.widget._parameterNode.seed = SLOW
    assert not user.ui.progressBar.visible
    user.click(user.ui.segmentButton)
    user.until(lambda: user.ui.stageLabel.text == "Drawing samples")
    assert user.ui.progressBar.visible
    assert user.ui.progressBar.maximum == 500
    user.click(user.ui.segmentButton)
    user.until(lambda: not user.ui.progressBar.visible)
    user.widget._parameterNode.seed = 0
    user.segment()
    assert "2 organs" in user.ui.messageLabel.text
    assert "Spleen or stomach?" in user.ui.messageLabel.text


def nodeCount() -> int:
    """Without the scene's hierarchy, which comes with the first segmentation and stays."""
    hierarchies = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSubjectHierarchyNode")
    return int(slicer.mrmlScene.GetNumberOfNodes() - hierarchies)


def test_the_button_cancels_and_nothing_changes(user: PanelUser) -> None:
    user.addVolume()
    user.widget._parameterNode.seed = SLOW
    nodes = nodeCount()
    user.click(user.ui.segmentButton)
    assert user.ui.segmentButton.text == "Cancel"
    user.until(lambda: user.ui.stageLabel.text == "Drawing samples")
    user.click(user.ui.segmentButton)
    user.until(lambda: user.ui.segmentButton.text == "Segment", seconds=1.0)
    assert user.ui.messageLabel.text == "Cancelled. Nothing was changed."
    assert nodeCount() == nodes


def test_a_refusal_is_reported_in_the_panel_with_a_hint(user: PanelUser) -> None:
    user.addVolume()
    user.widget._parameterNode.seed = REFUSED
    user.segment()
    anyway = f"To segment it anyway, tick “{user.ui.forceBox.text}” under Advanced."
    assert user.ui.messageLabel.text == f"⚠ This is MR. Choose a CT. {anyway} [MODALITY]"
    assert user.segmentations() == []


def test_a_killed_worker_is_reported_and_the_next_click_works(user: PanelUser) -> None:
    user.addVolume()
    user.widget._parameterNode.seed = SLOW
    user.click(user.ui.segmentButton)
    user.until(lambda: user.ui.stageLabel.text == "Drawing samples")
    os.kill(user.widget.logic.client.hello.pid, signal.SIGKILL)
    user.until(lambda: "stopped unexpectedly" in user.ui.messageLabel.text)
    user.widget._parameterNode.seed = 0
    user.until(lambda: user.ui.segmentButton.text == "Segment")
    user.segment()
    assert len(user.segmentations()) == 1


def test_a_worker_that_cannot_be_started_is_reported(user: PanelUser) -> None:
    user.useWorker(["/nonexistent/python"])
    user.addVolume()
    user.segment()
    assert "could not be started" in user.ui.messageLabel.text


def test_an_empty_volume_is_refused_before_anything_starts(user: PanelUser) -> None:
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Nothing")
    user.ui.inputSelector.setCurrentNode(empty)
    user.click(user.ui.segmentButton)
    assert "Nothing is empty" in user.ui.messageLabel.text
    assert user.ui.segmentButton.text == "Segment"


def test_a_second_run_uses_the_nodes_of_the_first(user: PanelUser) -> None:
    user.addVolume()
    user.segment()
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    user.segment()
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes


def test_closing_the_scene_during_a_run_discards_the_result(user: PanelUser) -> None:
    user.addVolume()
    user.widget._parameterNode.seed = SLOW
    user.click(user.ui.segmentButton)
    user.until(lambda: user.ui.stageLabel.text == "Drawing samples")
    slicer.mrmlScene.Clear(False)
    user.until(lambda: user.widget.logic.client.state.value == "Ready")
    assert user.segmentations() == []
    assert user.ui.segmentButton.text == "Segment"
    user.addVolume()
    user.segment()
    assert len(user.segmentations()) == 1


def test_removing_the_input_during_a_run_cancels_with_a_notice(user: PanelUser) -> None:
    volume = user.addVolume()
    user.widget._parameterNode.seed = SLOW
    user.click(user.ui.segmentButton)
    user.until(lambda: user.ui.stageLabel.text == "Drawing samples")
    slicer.mrmlScene.RemoveNode(volume)
    user.until(lambda: user.ui.segmentButton.text == "Segment")
    assert "input volume was removed" in user.ui.messageLabel.text
    assert user.segmentations() == []


def test_settings_reach_the_widgets_and_the_parameter_node(user: PanelUser) -> None:
    node = user.widget._parameterNode
    user.ui.samplesBox.setValue(5)
    user.ui.overlaySelector.setCurrentIndex(user.ui.overlaySelector.findText("Mutual information"))
    assert node.samples == 5
    assert node.overlay.name == "MUTUAL_INFORMATION"
    before = user.grab(user.ui.opacitySlider)
    node.opacity = 0.1
    user.application.process()
    assert not np.array_equal(user.grab(user.ui.opacitySlider), before)
    assert user.ui.opacitySlider.property("value") == pytest.approx(0.1)


def differing(one: np.ndarray, other: np.ndarray) -> int:
    """Pixels whose colour differs by more than what rounding does."""
    return int((np.abs(one.astype(int) - other).max(axis=2) > 8).sum())


def test_overlay_choice_opacity_and_threshold_change_the_slice_view(user: PanelUser, axialView: SliceView) -> None:
    view = axialView
    user.addVolume()
    user.segment()
    view.showAt((7.0, -8.0, 9.0), fieldOfView=40)
    shown = view.grab()
    user.ui.thresholdSlider.setProperty("value", 0.99)
    clear = view.grab()
    assert differing(shown, clear) > 2000
    user.ui.thresholdSlider.setProperty("value", 0.0)
    user.ui.opacitySlider.setProperty("value", 0.0)
    transparent = view.grab()
    assert differing(shown, transparent) > 2000
    user.ui.overlaySelector.setCurrentIndex(0)
    composite = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSliceCompositeNode")
    assert composite.GetForegroundVolumeID() is None
    assert differing(view.grab(), transparent) > 100, "the legend stayed"


def test_body_coordinates_can_be_shown_when_they_were_computed(user: PanelUser) -> None:
    user.addVolume()
    user.segment()
    index = user.ui.overlaySelector.findText("Body: right to left")
    user.ui.overlaySelector.setCurrentIndex(index)
    assert "not computed" in user.ui.messageLabel.text
    user.widget._parameterNode.bodypart = True
    user.segment()
    composite = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSliceCompositeNode")
    overlay = slicer.mrmlScene.GetFirstNodeByName("CT body: right to left")
    assert overlay is not None
    assert composite is None or composite.GetForegroundVolumeID() == overlay.GetID()


def test_show_in_3d_creates_surfaces(user: PanelUser) -> None:
    user.addVolume()
    assert not user.ui.surfaceButton.enabled
    user.segment()
    user.click(user.ui.surfaceButton)
    (segmentation,) = user.segmentations()
    assert segmentation.GetClosedSurfaceInternalRepresentation("liver").GetNumberOfPoints() > 10


def test_cleanup_ends_the_worker_process(user: PanelUser) -> None:
    user.addVolume()
    user.segment()
    pid = user.widget.logic.client.hello.pid
    user.widget.cleanup()
    status = Path(f"/proc/{pid}/status")
    assert not status.exists() or "State:\tZ" in status.read_text()


@pytest.mark.slow
def test_the_bundled_model_segments_a_phantom_in_the_panel(user: PanelUser, tmp_path: Path) -> None:
    from DiffusionSegmentBackend.phantom.phantom import make_phantom

    phantom = make_phantom(seed=2, spacing_mm=(3.0, 3.0, 3.0))
    user.useWorker(None)
    user.addVolume(phantom.image, name="Phantom")
    node = slicer.mrmlScene.GetFirstNodeByName("Phantom")
    from DiffusionSegmentLib.scene.volumes import RAS_FROM_LPS, toMatrix

    node.SetIJKToRASMatrix(toMatrix(RAS_FROM_LPS @ phantom.index_to_lps))
    user.widget._parameterNode.samples = 1
    user.click(user.ui.segmentButton)
    user.until(lambda: user.ui.segmentButton.text == "Segment", seconds=300)
    (segmentation,) = user.segmentations()
    names = [
        segmentation.GetSegmentation().GetNthSegment(n).GetName()
        for n in range(segmentation.GetSegmentation().GetNumberOfSegments())
    ]
    assert {"Liver", "Spleen", "Right kidney", "Left kidney", "Aorta"} <= set(names)
    user.save("panel", tmp_path)
    assert user.grab().std() > 10


def test_the_model_box_lists_installed_models_and_follows_the_parameter_node(user: PanelUser) -> None:
    installed = sorted(path.parent.name for path in bundled_models_folder().glob("*/model.json"))
    selector = user.ui.modelSelector
    assert [selector.itemData(n) for n in range(selector.count)] == installed
    assert selector.itemData(selector.currentIndex) == user.widget._parameterNode.model
    assert selector.currentText == "Abdomen CT, 13 organs"


def test_ticks_in_the_table_show_and_lock_an_organ(user: PanelUser) -> None:
    from DiffusionSegmentLib.scene.merge_policy import isLocked

    user.addVolume()
    user.segment()
    qt, table, (segmentation,) = user.application.qt, user.ui.resultTable, user.segmentations()
    table.item(1, 0).setCheckState(qt.Qt.Unchecked)
    assert not segmentation.GetDisplayNode().GetSegmentVisibility("liver")
    assert segmentation.GetDisplayNode().GetSegmentVisibility("spleen")
    table.item(0, 5).setCheckState(qt.Qt.Checked)
    assert isLocked(segmentation, "spleen")
    table.item(0, 5).setCheckState(qt.Qt.Unchecked)
    assert not isLocked(segmentation, "spleen")


def test_the_table_shows_the_review_state_of_an_organ(user: PanelUser) -> None:
    user.addVolume()
    user.segment()
    assert user.ui.resultTable.item(0, 4).text() == ""
    user.click(user.ui.nextButton)
    assert user.ui.resultTable.item(0, 4).text() == "in progress"
    user.click(user.ui.flagButton)
    assert user.ui.resultTable.item(0, 4).text() == "flagged"
