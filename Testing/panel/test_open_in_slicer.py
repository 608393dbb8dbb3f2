"""The module as Slicer opens it: base classes, form, Segment Editor, parameters; closing scenes and leaving."""

from __future__ import annotations

import importlib
import unittest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
import slicer.util
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentLib.scene.label_map import readLabels
from headless.slicer_picture import putVolume
from panel.conftest import ENGINE, PanelUser
from pythonqt.slicer_application import Application


def ramp() -> Volume:
    return Volume(np.arange(-500, 1300, dtype=np.int16).reshape(10, 12, 15), np.diag([-1.0, 1.5, 2.0, 1.0]))


def editorNode() -> Any:
    return slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")


class TestOpening:
    def test_segment_correct_accept_undo_and_redo(self, user: PanelUser) -> None:
        """Segment, review, correct, accept, undo; `test_review_loop.py` applies corrections with the real model."""
        ui = user.ui
        user.addVolume()
        user.segment()
        (segmentation,) = user.segmentations()
        assert ui.resultTable.rowCount == 2
        user.click(ui.nextButton)
        user.click(ui.correctButton)
        assert ui.editor.segmentationNode() is segmentation
        assert ui.editor.currentSegmentID() == "spleen"
        user.click(ui.acceptButton)
        assert ui.reviewLabel.text.startswith("1 of 1")
        user.click(ui.undoButton)
        assert not readLabels(user.widget.panel.scan).labels.any()
        user.click(ui.redoButton)
        assert readLabels(user.widget.panel.scan).labels.any()

    def test_a_script_can_create_the_widget_without_a_parent(self, application: Application) -> None:
        """Slicer's base class then runs `setup` within its constructor, and shows the widget."""
        module = importlib.import_module("DiffusionSegment")
        application.clearScene()
        slicer.modules.diffusionsegment = type("Module", (), {"path": module.__file__})
        widget = module.DiffusionSegmentWidget()
        assert widget.logic is not None
        assert widget.panel is not None
        assert widget._parameterNode is not None
        slicer.mrmlScene.Clear(False)
        assert widget._parameterNode is not None, "the panel has no parameters after the scene was closed"
        widget.cleanup()
        widget.parent.close()

    def test_the_modules_test_is_a_test_case(self, application: Application) -> None:
        module = importlib.import_module("DiffusionSegment")
        assert isinstance(module.DiffusionSegmentTest(), unittest.TestCase)

    def test_unloading_the_module_removes_the_observers_of_the_panel(self, application: Application) -> None:
        application.clearScene()
        widget = application.openModule(importlib.import_module("DiffusionSegment"))
        slicer.app.moduleManager().unload("SomethingElse")
        assert widget.Observations
        slicer.app.moduleManager().unload("DiffusionSegment")
        assert widget.Observations == []
        slicer.app.moduleManager().unload("DiffusionSegment")
        widget.parent.close()

    def test_label_maps_and_hidden_nodes_are_not_offered_as_input(self, user: PanelUser) -> None:
        slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Labels")
        hidden = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Hidden")
        hidden.SetHideFromEditors(True)
        user.addVolume()
        selector = user.ui.inputSelector
        assert [selector.itemText(n) for n in range(selector.count)] == ["None", "CT"]


class TestSegmentEditor:
    """The stand-in hands its selections to the real vtkSlicerSegmentEditorLogic, which refuses without a node."""

    def test_without_its_node_the_editor_refuses(self, application: Application, capsys: Any) -> None:
        from pythonqt.segment_editor import qMRMLSegmentEditorWidget

        application.clearScene()
        editor = qMRMLSegmentEditorWidget()
        editor.setMRMLScene(slicer.mrmlScene)
        segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        editor.setSegmentationNode(segmentation)
        assert editor.segmentationNode() is None
        assert "need to set segment editor node first" in capsys.readouterr().out
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
        editor.setMRMLSegmentEditorNode(node)
        editor.setSegmentationNode(segmentation)
        assert editor.segmentationNode() is segmentation

    def test_the_real_logic_refuses_too(self, application: Application) -> None:
        application.clearScene()
        logic = slicer.vtkSlicerSegmentEditorLogic()
        logic.SetMRMLScene(slicer.mrmlScene)
        segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        logic.SetSegmentationNode(segmentation)
        assert logic.GetSegmentationNode() is None

    def test_the_editor_edits_the_result(self, user: PanelUser) -> None:
        volume = user.addVolume()
        user.segment()
        (segmentation,) = user.segmentations()
        assert editorNode().GetSegmentationNode() is segmentation
        assert editorNode().GetSourceVolumeNode() is volume

    @pytest.mark.parametrize("singletons", [False, True])
    def test_after_a_scene_has_closed_the_editor_works_again(self, user: PanelUser, singletons: bool) -> None:
        user.addVolume()
        user.segment()
        slicer.mrmlScene.Clear(singletons)
        user.useWorker(ENGINE)
        user.addVolume()
        user.segment()
        (segmentation,) = user.segmentations()
        user.click(user.ui.nextButton)
        user.click(user.ui.correctButton)
        assert user.ui.editor.segmentationNode() is segmentation
        assert user.ui.editor.currentSegmentID() == "spleen"
        assert user.ui.editor.mrmlSegmentEditorNode() is editorNode()

    def test_leaving_the_module_deactivates_the_effect(self, user: PanelUser) -> None:
        user.addVolume()
        user.segment()
        editor = user.ui.editor
        assert editor._shortcuts
        editor.setActiveEffectByName("Paint")
        user.widget.parent.exit()
        assert editor.activeEffectName() == ""
        assert not editor._shortcuts
        assert not editor._views
        user.widget.parent.enter()
        assert editor._shortcuts
        assert editor.segmentationNode() is user.segmentations()[0]

    def test_closing_the_scene_deactivates_the_effect(self, user: PanelUser) -> None:
        user.addVolume()
        user.segment()
        user.ui.editor.setActiveEffectByName("Paint")
        slicer.mrmlScene.Clear(False)
        assert user.ui.editor.activeEffectName() == ""


class TestParameters:
    def test_widgets_are_disconnected_from_a_replaced_parameter_node(self, user: PanelUser) -> None:
        old = user.widget._parameterNode
        slicer.mrmlScene.RemoveNode(old.parameterNode)
        assert user.widget._parameterNode is not old
        user.ui.samplesBox.setValue(7)
        assert user.widget._parameterNode.samples == 7
        assert old.samples == 0

    def test_every_caller_gets_the_same_parameters_of_a_scene(self, user: PanelUser) -> None:
        assert user.widget.logic.getParameterNode() is user.widget._parameterNode
        slicer.mrmlScene.Clear(False)
        assert user.widget.logic.getParameterNode() is user.widget._parameterNode

    def test_closing_the_scene_restores_the_defaults(self, user: PanelUser) -> None:
        user.addVolume()
        user.ui.samplesBox.setValue(7)
        slicer.mrmlScene.Clear(False)
        assert user.widget._parameterNode.samples == 0
        assert user.ui.samplesBox.value == 0
        assert user.widget._parameterNode.inputVolume is None
        node = putVolume(slicer.mrmlScene, ramp(), "Next")
        user.ui.inputSelector.setCurrentNode(node)
        assert user.widget._parameterNode.inputVolume is node

    def test_a_parameter_under_its_earlier_name_is_read(self, user: PanelUser) -> None:
        logic = user.widget.logic
        logic.getParameterNode().parameterNode.SetParameter("teachMinutes", "7")
        assert logic.getParameterNode().fineTuneMinutes == 7
        assert not logic.getParameterNode().parameterNode.HasParameter("teachMinutes")

    def test_an_older_scene_keeps_its_fine_tuning_minutes(self, user: PanelUser, tmp_path: Path) -> None:
        older = slicer.vtkMRMLScene()
        node = user.widget.logic.createParameterNode()
        node.SetParameter("teachMinutes", "7")
        older.AddNode(node)
        older.SetURL(str(tmp_path / "older.mrml"))
        assert older.Commit()
        slicer.mrmlScene.SetURL(str(tmp_path / "older.mrml"))
        assert slicer.mrmlScene.Import()
        assert user.widget._parameterNode.fineTuneMinutes == 7
        assert user.ui.fineTuneMinutesBox.value == 7
        user.ui.fineTuneMinutesBox.setValue(9)
        user.widget._parameterNode.Modified()
        assert user.widget.logic.getParameterNode().fineTuneMinutes == 9
