"""Every input of the panel, set by its widget and checked in the request that the worker received."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import slicer
from DiffusionSegmentBackend.models.folders import bundled_models_folder
from DiffusionSegmentLib.scene.segmented_scan import readReport
from PySide6 import QtCore, QtTest

if TYPE_CHECKING:
    from .conftest import PanelUser

ORGANS = 13


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the user's own models."""
    monkeypatch.setenv("DIFFUSION_SEGMENT_MODELS", str(tmp_path))
    return tmp_path


def received(user: PanelUser) -> dict[str, Any]:
    """What the worker receives with a click on Segment."""
    user.segment()
    return lastRequest(user)


def lastRequest(user: PanelUser) -> dict[str, Any]:
    """The request that the latest result answers."""
    report = readReport(user.segmentations()[-1])
    return dict(json.loads(report.provenance.source.input or ""))


def listed(user: PanelUser) -> list[str]:
    selector = user.ui.modelSelector
    return [selector.itemData(n) for n in range(selector.count)]


def search(user: PanelUser, text: str) -> None:
    """Type, as with a keyboard."""
    user.ui.modelSearchEdit.clear()
    QtTest.QTest.keyClicks(user.ui.modelSearchEdit, text)
    user.application.process()


def tick(user: PanelUser, title: str, *, on: bool) -> None:
    qt, organs = user.application.qt, user.ui.organList
    (row,) = [row for row in range(organs.count) if organs.item(row).text() == title]
    organs.item(row).setCheckState(qt.Qt.Checked if on else qt.Qt.Unchecked)
    user.application.process()


def ticked(user: PanelUser) -> list[str]:
    qt, organs = user.application.qt, user.ui.organList
    items = [organs.item(row) for row in range(organs.count)]
    return [item.text() for item in items if item.checkState() == qt.Qt.Checked]


class TestRegionOfInterest:
    def test_without_a_region_the_whole_scan_is_segmented(self, user: PanelUser) -> None:
        user.addVolume()
        assert user.ui.regionSelector.currentText == "Whole scan"
        assert received(user)["region"] is None

    def test_a_new_box_encloses_the_scan_and_is_sent(self, user: PanelUser) -> None:
        volume = user.addVolume()
        node = user.ui.regionSelector.addNode()
        bounds = np.zeros(6)
        volume.GetRASBounds(bounds)
        sent = np.array(received(user)["region"]).reshape(4, 4)
        np.testing.assert_allclose(np.abs(np.diag(sent)[:3]) * 2, bounds[1::2] - bounds[0::2])
        assert user.widget._parameterNode.regionOfInterest is node

    def test_the_chosen_box_is_sent_with_its_position_and_size(self, user: PanelUser) -> None:
        user.addVolume()
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Box")
        node.SetCenter(5.0, -4.0, 6.0)
        node.SetSize(4.0, 6.0, 8.0)
        user.ui.regionSelector.setCurrentNode(node)
        sent = np.array(received(user)["region"]).reshape(4, 4)
        np.testing.assert_allclose(sent[:3, 3], (-5.0, 4.0, 6.0))
        np.testing.assert_allclose(np.abs(np.diag(sent)[:3]), (2.0, 3.0, 4.0))

    def test_an_empty_box_is_reported_and_nothing_starts(self, user: PanelUser) -> None:
        user.addVolume()
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Box")
        user.ui.regionSelector.setCurrentNode(node)
        user.click(user.ui.segmentButton)
        assert "Box is empty. Place it in a slice view" in user.ui.messageLabel.text
        assert user.ui.segmentButton.text == "Segment"
        assert not user.ui.progressBar.visible
        assert user.widget.logic.client.hello is None

    def test_a_continued_run_sends_the_region_of_the_first_run(self, user: PanelUser) -> None:
        user.addVolume()
        node = user.ui.regionSelector.addNode()
        first = received(user)
        user.ui.regionSelector.setCurrentNode(None)
        slicer.mrmlScene.RemoveNode(node)
        user.click(user.ui.alternativesButton)
        user.until(lambda: user.ui.segmentButton.text == "Segment")
        again = lastRequest(user)
        assert again["type"] == "alternatives"
        assert again["region"] == first["region"] is not None


class TestModel:
    def test_titles_are_listed_and_names_are_stored(self, user: PanelUser) -> None:
        selector = user.ui.modelSelector
        user.addVolume()
        selector.setCurrentIndex(listed(user).index("headneck-ct"))
        assert selector.currentText == "Head and neck CT, 7 organs"
        assert user.widget._parameterNode.model == "headneck-ct"
        assert received(user)["model"] == "headneck-ct"

    @pytest.mark.parametrize(
        ("text", "result"),
        [
            ("parotid", ["headneck-ct"]),
            ("MR", ["abdomen-mr", "hippocampus-mr"]),
            ("abdomen", ["abdomen-ct", "abdomen-mr"]),
            ("neck ct", ["headneck-ct"]),
            ("esophagus", ["abdomen-ct", "headneck-ct"]),
            ("", ["abdomen-ct", "abdomen-mr", "headneck-ct", "hippocampus-mr"]),
        ],
    )
    def test_a_search_filters_the_list_of_models(self, user: PanelUser, text: str, result: list[str]) -> None:
        search(user, text)
        assert [name for name in listed(user) if name in result] == result
        assert set(listed(user)) - set(result) <= {"abdomen-ct"}, "only the chosen model stays without fitting"

    def test_the_chosen_model_stays_during_a_search_without_it(self, user: PanelUser) -> None:
        user.addVolume()
        search(user, "hippocampus")
        assert user.widget._parameterNode.model == "abdomen-ct"
        assert user.ui.modelSelector.currentText == "Abdomen CT, 13 organs"
        assert received(user)["model"] == "abdomen-ct"

    def test_enter_chooses_the_first_match(self, user: PanelUser) -> None:
        search(user, "hippocampus")
        QtTest.QTest.keyClick(user.ui.modelSearchEdit, QtCore.Qt.Key_Return)
        assert user.widget._parameterNode.model == "hippocampus-mr"
        search(user, "")
        assert user.ui.modelSelector.currentText == "Hippocampus MR, 2 parts"

    def test_a_search_without_a_match_is_reported(self, user: PanelUser) -> None:
        assert not user.ui.modelSearchLabel.visible
        search(user, "kneecap")
        assert user.ui.modelSearchLabel.visible
        assert "No model matches" in user.ui.modelSearchLabel.text
        QtTest.QTest.keyClick(user.ui.modelSearchEdit, QtCore.Qt.Key_Return)
        assert user.widget._parameterNode.model == "abdomen-ct"
        search(user, "")
        assert not user.ui.modelSearchLabel.visible

    def test_a_choice_in_a_filtered_list_chooses_the_shown_model(self, user: PanelUser) -> None:
        search(user, "hippocampus")
        user.ui.modelSelector.setCurrentIndex(1)
        assert user.ui.modelSelector.currentText == "Hippocampus MR, 2 parts"
        assert user.widget._parameterNode.model == "hippocampus-mr"

    def test_the_tool_tip_of_a_model_states_training_data_licence_and_accuracy(self, user: PanelUser) -> None:
        selector, qt = user.ui.modelSelector, user.application.qt
        for row, name in enumerate(listed(user)):
            raw = json.loads((bundled_models_folder() / name / "model.json").read_text(encoding="utf-8"))
            tip = selector.itemData(row, qt.Qt.ToolTipRole)
            assert raw["licence"] in tip
            assert raw["training_data"] in tip
            assert f"Modality: {raw['modality']}" in tip
            assert raw["labels"][0]["title"] in tip
            quality = raw["quality"]
            shown = quality["mean_dice"].get("ensemble") or quality["mean_dice"]["segmenter"]
            assert f"mean Dice {shown:.2f} on {quality['cases']} scans" in tip
        assert selector.toolTip == selector.itemData(0, qt.Qt.ToolTipRole)

    def test_a_model_without_title_quality_and_licence_is_listed_by_its_name(
        self, user: PanelUser, models: Path
    ) -> None:
        raw = json.loads((bundled_models_folder() / "abdomen-ct" / "model.json").read_text(encoding="utf-8"))
        bare = {key: value for key, value in raw.items() if key not in ("title", "quality", "licence", "training_data")}
        (models / "mine").mkdir()
        (models / "mine" / "model.json").write_text(json.dumps({**bare, "name": "mine"}), encoding="utf-8")
        user.widget.panel.onModelAdded("mine")
        assert user.ui.modelSelector.currentText == "mine"
        assert "Measured accuracy: not stated" in user.ui.modelSelector.toolTip
        assert "Licence: not stated" in user.ui.modelSelector.toolTip

    def test_two_models_of_one_title_are_distinguished(self, user: PanelUser, models: Path) -> None:
        shutil.copytree(bundled_models_folder() / "headneck-ct", models / "copy")
        user.widget.panel.onModelAdded("copy")
        assert user.ui.modelSelector.currentText == "Head and neck CT, 7 organs (copy)"
        assert user.widget._parameterNode.model == "copy"

    def test_a_model_that_is_not_installed_is_not_selected_and_stays_in_the_parameter(self, user: PanelUser) -> None:
        user.widget._parameterNode.model = "thorax-mr"
        assert user.ui.modelSelector.currentIndex == -1
        search(user, "abdomen")
        assert user.widget._parameterNode.model == "thorax-mr"


class TestOrgans:
    def test_by_default_all_organs_are_ticked_and_none_is_sent(self, user: PanelUser) -> None:
        user.addVolume()
        assert len(ticked(user)) == ORGANS
        assert received(user)["organs"] is None

    def test_ticked_organs_are_sent(self, user: PanelUser) -> None:
        user.addVolume()
        user.click(user.ui.noOrgansButton)
        tick(user, "Liver", on=True)
        tick(user, "Spleen", on=True)
        assert sorted(user.widget._parameterNode.organs) == ["liver", "spleen"]
        assert sorted(received(user)["organs"]) == ["liver", "spleen"]

    def test_unticking_an_organ_leaves_the_others(self, user: PanelUser) -> None:
        user.addVolume()
        tick(user, "Liver", on=False)
        assert "liver" not in received(user)["organs"]
        assert len(ticked(user)) == ORGANS - 1
        user.click(user.ui.allOrgansButton)
        assert received(user)["organs"] is None

    def test_without_a_ticked_organ_the_disabled_button_shows_the_reason(self, user: PanelUser) -> None:
        user.addVolume()
        user.click(user.ui.noOrgansButton)
        assert ticked(user) == []
        assert not user.ui.segmentButton.enabled
        assert user.ui.segmentButton.toolTip == "Tick at least one organ under Advanced."
        user.click(user.ui.allOrgansButton)
        assert user.ui.segmentButton.enabled

    def test_another_model_lists_its_organs_all_ticked(self, user: PanelUser) -> None:
        user.addVolume()
        user.click(user.ui.noOrgansButton)
        tick(user, "Esophagus", on=True)
        user.ui.modelSelector.setCurrentIndex(listed(user).index("headneck-ct"))
        assert len(ticked(user)) == 7
        assert "Mandible" in ticked(user)
        assert received(user)["organs"] is None

    def test_organs_named_by_a_script_are_ticked_and_those_of_another_model_left_out(self, user: PanelUser) -> None:
        user.addVolume()
        user.widget._parameterNode.organs = ["liver", "mandible"]
        assert ticked(user) == ["Liver"]
        assert received(user)["organs"] == ["liver"]


class TestAdvanced:
    def test_unchanged_options_are_those_of_the_model(self, user: PanelUser) -> None:
        user.addVolume()
        sent = received(user)
        own = {name: sent[name] for name in ("samples", "steps", "sampler", "memory_limit_gb")}
        assert set(own.values()) == {None}
        assert sent["preview"] is True

    @pytest.mark.parametrize(("text", "sent"), [("DDIM", "ddim"), ("DDPM", "ddpm"), ("model default", None)])
    def test_the_sampler_is_sent(self, user: PanelUser, text: str, sent: str | None) -> None:
        user.addVolume()
        user.ui.samplerSelector.setCurrentIndex(user.ui.samplerSelector.findText(text))
        assert received(user)["sampler"] == sent

    def test_the_memory_limit_is_sent(self, user: PanelUser) -> None:
        user.addVolume()
        assert user.ui.memoryBox.text == "none"
        user.ui.memoryBox.setValue(3.5)
        assert user.ui.memoryBox.text == "3.5 GB"
        assert received(user)["memory_limit_gb"] == 3.5

    def test_samples_steps_seed_device_and_check_boxes_are_sent(self, user: PanelUser) -> None:
        user.addVolume()
        user.ui.advancedButton.collapsed = False
        user.application.process()
        user.ui.samplesBox.setValue(3)
        user.ui.stepsBox.setValue(5)
        user.ui.seedBox.setValue(7)
        user.ui.deviceSelector.setCurrentIndex(user.ui.deviceSelector.findText("cpu"))
        for box in (user.ui.previewBox, user.ui.bodypartBox, user.ui.forceBox):
            user.click(box)
        sent = received(user)
        assert (sent["samples"], sent["steps"], sent["seed"], sent["device"]) == (3, 5, 7, "cpu")
        assert (sent["preview"], sent["bodypart"], sent["force"]) == (False, True, True)

    def test_an_unticked_box_is_visible_in_a_dark_theme(self, user: PanelUser) -> None:
        """A box without a tick is framed in another colour than that of the list."""
        from PySide6 import QtGui

        dark, base = QtGui.QPalette(), (30, 30, 32)
        dark.setColor(QtGui.QPalette.Window, QtGui.QColor(45, 45, 48))
        dark.setColor(QtGui.QPalette.Base, QtGui.QColor(*base))
        user.widget.parent.setPalette(dark)
        user.ui.advancedButton.collapsed = False
        user.click(user.ui.noOrgansButton)
        organs = user.ui.organList
        rectangle = organs.visualItemRect(organs.item(0))
        pixels = user.grab(organs)[rectangle.top() : rectangle.bottom(), 2:16].astype(int)
        assert np.abs(pixels - base).max() > 60
