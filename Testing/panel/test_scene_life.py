"""The panel when scenes are closed and loaded, nodes removed, the module reloaded, or the application exits."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
import vtk
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.schema.review_state import RegionState
from DiffusionSegmentLib.scene.corrections import findCorrections
from DiffusionSegmentLib.scene.label_map import readLabels, writeLabels
from DiffusionSegmentLib.scene.nodes import nodesOfClass
from DiffusionSegmentLib.scene.review import ReviewList
from DiffusionSegmentLib.scene.similar_point import POINT_ROLE
from headless.host import HeadlessSlicer
from headless.slicer_picture import putVolume
from panel.conftest import ENGINE, PanelUser
from panel.engine_process import SLOW
from slicer.util import arrayFromVolume

EXIT_SECONDS = 2.0


def begin(user: PanelUser, *, seed: int = SLOW) -> None:
    """Click Segment and wait until the worker computes."""
    user.widget._parameterNode.seed = seed
    user.click(user.ui.segmentButton)
    user.until(lambda: user.ui.stageLabel.text == "Drawing samples")


def finish(user: PanelUser) -> None:
    user.until(lambda: user.ui.segmentButton.text == "Segment")


def hasExited(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return not status.exists() or "State:\tZ" in status.read_text()


def useIO(scene: slicer.vtkMRMLScene, folder: Path) -> None:
    """Set the cache and data managers that a scene needs to read a bundle, as in the application."""
    folder.mkdir(exist_ok=True)
    cache = slicer.vtkCacheManager()
    cache.SetRemoteCacheDirectory(str(folder))
    io = slicer.vtkDataIOManager()
    io.SetCacheManager(cache)
    scene.SetCacheManager(cache)
    scene.SetDataIOManager(io)


@pytest.fixture
def otherScene(tmp_path: Path) -> str:
    """A saved scene with a CT of its own, and the path of its file."""
    host = HeadlessSlicer()
    volume = Volume(np.full((4, 5, 6), 7, np.int16), np.eye(4))
    node = putVolume(host.scene, volume, "Imported")
    node.AddDefaultStorageNode()
    node.GetStorageNode().SetFileName(str(tmp_path / "imported.nrrd"))
    assert node.GetStorageNode().WriteData(node)
    host.scene.SetURL(str(tmp_path / "other.mrml"))
    assert host.scene.Commit()
    return str(tmp_path / "other.mrml")


class TestScenes:
    def test_loading_a_scene_does_not_disturb_a_run(self, user: PanelUser, otherScene: str) -> None:
        volume = user.addVolume()
        begin(user, seed=0)
        slicer.mrmlScene.SetURL(otherScene)
        assert slicer.mrmlScene.Import()
        assert slicer.mrmlScene.GetFirstNodeByName("Imported") is not None
        finish(user)
        (segmentation,) = user.segmentations()
        assert segmentation.GetName() == "CT segmentation"
        assert segmentation.GetNodeReference("referenceImageGeometryRef") is volume
        assert arrayFromVolume(slicer.mrmlScene.GetFirstNodeByName("CT uncertainty")).shape == (5, 6, 8)

    def test_the_panel_works_after_closing_the_scene_in_any_state(self, user: PanelUser) -> None:
        user.addVolume()
        user.click(user.ui.segmentButton)
        slicer.mrmlScene.Clear(False)
        user.until(lambda: user.widget.logic.client.state.value in ("Ready", "Stopped"))
        user.addVolume()
        user.segment()
        slicer.mrmlScene.Clear(False)
        assert user.ui.resultTable.rowCount == 0
        assert user.ui.messageLabel.text == ""
        user.addVolume()
        user.segment()
        assert len(user.segmentations()) == 1

    def test_a_result_belongs_to_the_scene_of_its_volume(self, user: PanelUser) -> None:
        from DiffusionSegmentLib.worker.client import WorkerClient
        from DiffusionSegmentLib.worker.transport import QProcessTransport

        logic = user.widget.logic
        logic.scripting._createClient = lambda: WorkerClient(lambda: QProcessTransport(ENGINE))
        other = slicer.vtkMRMLScene()
        array = np.arange(-500, 1300, dtype=np.int16).reshape(10, 12, 15)
        volume = putVolume(other, Volume(array, np.eye(4)), "Elsewhere")
        nodes = slicer.mrmlScene.GetNumberOfNodes()
        segmentation = logic.segment(volume)
        assert segmentation.GetScene() is other
        assert slicer.mrmlScene.GetNumberOfNodes() == nodes

    def test_a_volume_whose_voxels_changed_during_the_run_gets_no_result(self, user: PanelUser) -> None:
        volume = user.addVolume()
        begin(user, seed=0)
        slicer.util.updateVolumeFromArray(volume, np.zeros((10, 12, 15), np.int16))
        finish(user)
        assert "has changed since the click" in user.ui.messageLabel.text
        assert user.segmentations() == []


class TestRemovedNodes:
    def test_the_panel_works_without_a_removed_overlay(self, user: PanelUser) -> None:
        user.addVolume()
        user.segment()
        slicer.mrmlScene.RemoveNode(slicer.mrmlScene.GetFirstNodeByName("CT uncertainty"))
        user.ui.opacitySlider.setProperty("value", 0.4)
        user.click(user.ui.nextButton)
        user.segment()
        assert slicer.mrmlScene.GetFirstNodeByName("CT uncertainty") is not None
        assert len(user.segmentations()) == 1

    def test_a_segmentation_removed_during_a_second_run_is_created_again(self, user: PanelUser) -> None:
        user.addVolume()
        user.segment()
        begin(user, seed=0)
        slicer.mrmlScene.RemoveNode(user.segmentations()[0])
        assert user.ui.resultTable.rowCount == 0
        finish(user)
        assert len(user.segmentations()) == 1
        assert user.ui.resultTable.rowCount == 2

    def test_removed_hidden_maps_are_reported_when_needed(self, user: PanelUser) -> None:
        user.addVolume()
        user.segment()
        for node in nodesOfClass(slicer.mrmlScene, "vtkMRMLLabelMapVolumeNode"):
            slicer.mrmlScene.RemoveNode(node)
        user.click(user.ui.applyButton)
        assert "is unknown" in user.ui.messageLabel.text
        user.segment()
        user.click(user.ui.applyButton)
        assert "There are no corrections" in user.ui.messageLabel.text

    def test_without_its_removed_region_of_interest_the_whole_scan_is_segmented(self, user: PanelUser) -> None:
        user.addVolume()
        box = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
        user.widget._parameterNode.regionOfInterest = box
        slicer.mrmlScene.RemoveNode(box)
        user.segment()
        assert len(user.segmentations()) == 1

    @pytest.mark.parametrize("busy", [False, True])
    def test_a_removed_parameter_node_is_replaced(self, user: PanelUser, busy: bool) -> None:
        volume = user.addVolume()
        if busy:
            begin(user, seed=0)
        slicer.mrmlScene.RemoveNode(user.widget._parameterNode.parameterNode)
        finish(user)
        assert user.widget._parameterNode.inputVolume is volume
        assert len(user.segmentations()) == int(busy)
        user.ui.samplesBox.setValue(7)
        assert user.widget._parameterNode.samples == 7
        user.segment()
        assert len(user.segmentations()) == 1


class TestReload:
    @pytest.fixture
    def reload(self, user: PanelUser) -> Callable[[], None]:
        """Slicer's Reload: clean up the panel, import the module again, set up a new panel."""

        def run() -> None:
            user.widget.cleanup()
            user.widget.parent.close()
            user.widget.parent.deleteLater()
            user.module = importlib.reload(user.module)
            user.widget = user.application.openModule(user.module)
            user.ui = user.widget.ui
            user.useWorker(ENGINE)
            user.widget.parent.show()
            user.application.process()

        return run

    def test_a_reloaded_panel_shows_the_result_in_the_scene(self, user: PanelUser, reload: Callable[[], None]) -> None:
        volume = user.addVolume()
        user.segment()
        reload()
        assert user.ui.resultTable.rowCount == 2
        assert user.ui.inputSelector.currentNode() is volume
        user.click(user.ui.nextButton)
        assert user.ui.regionTable.rowCount == 1
        user.segment()
        assert len(user.segmentations()) == 1, "the previous result was not used"

    def test_the_old_panel_receives_no_events(self, user: PanelUser, reload: Callable[[], None]) -> None:
        volume = user.addVolume()
        user.segment()
        point = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Point")
        point.SetNodeReferenceID(POINT_ROLE, volume.GetID())
        user.widget.panel.update()
        old, received = user.widget, []
        reload()
        old.panel.onNodeRemoved = old.panel.setParameters = lambda *_: received.append("scene")
        old.panel.onParametersChanged = lambda: received.append("parameters")
        old.panel.similar.onPointMoved = lambda *_: received.append("point")
        assert old.panel.similar._point is None
        user.widget._parameterNode.samples = 3
        point.AddControlPoint(vtk.vtkVector3d(1, 2, 3))
        slicer.mrmlScene.Clear(False)
        assert received == []

    def test_reloading_ends_a_busy_worker(self, user: PanelUser, reload: Callable[[], None]) -> None:
        user.addVolume()
        begin(user)
        client = user.widget.logic.client
        pid, folder = client.hello.pid, client._folder
        reload()
        assert hasExited(pid)
        assert not folder.exists()
        assert user.ui.segmentButton.text == "Segment"
        assert user.segmentations() == []
        user.widget._parameterNode.seed = 0
        user.segment()
        assert len(user.segmentations()) == 1


def test_the_application_can_exit_during_a_run(user: PanelUser) -> None:
    user.addVolume()
    begin(user)
    client = user.widget.logic.client
    pid, folder = client.hello.pid, client._folder
    began = time.monotonic()
    user.widget.cleanup()
    assert time.monotonic() - began < EXIT_SECONDS
    assert hasExited(pid)
    assert not folder.exists()


class TestBundle:
    @pytest.fixture
    def again(self, user: PanelUser, tmp_path: Path) -> Callable[[], None]:
        """Save the scene as a bundle, close it, and open the bundle."""

        def run() -> None:
            scene = slicer.mrmlScene
            useIO(scene, tmp_path / "cache")
            path = str(tmp_path / "saved.mrb")
            assert scene.WriteToMRB(path)
            scene.Clear(False)
            assert user.ui.resultTable.rowCount == 0
            assert scene.ReadFromMRB(path)
            user.application.process()

        return run

    @pytest.fixture(params=["parameters before the scan", "parameters after the scan"])
    def segmented(self, user: PanelUser, request: pytest.FixtureRequest) -> PanelUser:
        """A scan with its result; its axes are right-handed, as Slicer's readers make those of every file.

        A bundle lists the nodes in the order in which they came into the scene.
        """
        array = np.arange(-500, 1300, dtype=np.int16).reshape(10, 12, 15)
        node = putVolume(slicer.mrmlScene, Volume(array, np.diag([-1.0, -1.5, 2.0, 1.0])), "CT")
        if request.param == "parameters after the scan":
            slicer.mrmlScene.RemoveNode(user.widget._parameterNode.parameterNode)
        user.ui.inputSelector.setCurrentNode(node)
        user.segment()
        return user

    def test_result_review_and_settings_are_restored(self, segmented: PanelUser, again: Callable[[], None]) -> None:
        user = segmented
        user.widget._parameterNode.opacity = 0.35
        user.click(user.ui.nextButton)
        user.click(user.ui.acceptButton)
        uncertainty = arrayFromVolume(slicer.mrmlScene.GetFirstNodeByName("CT uncertainty")).copy()
        again()
        parameters = user.widget._parameterNode
        (segmentation,) = user.segmentations()
        assert parameters.segmentation is segmentation
        assert parameters.inputVolume.GetName() == "CT"
        assert parameters.opacity == pytest.approx(0.35)
        assert ReviewList(segmentation).regions[0].state is RegionState.ACCEPTED
        assert user.ui.resultTable.rowCount == 2
        loaded = slicer.mrmlScene.GetFirstNodeByName("CT uncertainty")
        np.testing.assert_allclose(arrayFromVolume(loaded), uncertainty, atol=1e-6)
        assert user.widget.panel.result.overlays

    def test_edits_after_loading_are_differences_to_the_result(
        self, segmented: PanelUser, again: Callable[[], None]
    ) -> None:
        user = segmented
        again()
        assert not user.ui.undoButton.enabled
        user.click(user.ui.applyButton)
        assert "There are no corrections" in user.ui.messageLabel.text
        scan = user.widget.panel.scan
        labels = readLabels(scan).labels.copy()
        labels[2:4, 3:5, 3:6] = 6
        writeLabels(scan, labels)
        matches = findCorrections(scan)
        assert 0 < matches.count <= 12
        assert set(np.unique(matches.scribbles)) == {0, 7}

    def test_the_next_run_uses_the_loaded_nodes(self, segmented: PanelUser, again: Callable[[], None]) -> None:
        again()
        nodes = slicer.mrmlScene.GetNumberOfNodes()
        segmented.segment()
        assert slicer.mrmlScene.GetNumberOfNodes() == nodes
        assert len(segmented.segmentations()) == 1


def test_the_panel_sets_no_colours_of_its_own() -> None:
    """Slicer's palette decides; a style sheet or a fixed text colour would be unreadable in one of the two."""
    module = Path(importlib.import_module("DiffusionSegment").__file__ or "").parent
    files: list[Any] = [*(module / "Resources" / "UI").glob("*.ui"), *(module / "DiffusionSegmentLib").rglob("*.py")]
    matches = [path.name for path in files if "styleSheet" in path.read_text(encoding="utf-8")]
    assert matches == []
