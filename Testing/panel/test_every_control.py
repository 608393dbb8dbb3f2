"""Every control of the panel is operated by a test that checks its effect; those without a test elsewhere, here."""

from __future__ import annotations

import ast
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from DiffusionSegmentLib.scene.label_map import readLabels, writeLabels
from fixtures.segments import addSegment, segmentationOf
from headless.views import SliceView
from PySide6 import QtCore, QtTest, QtWidgets

if TYPE_CHECKING:
    from .conftest import PanelUser

HERE = Path(__file__).parent
UI = HERE.parents[1] / "DiffusionSegment" / "Resources" / "UI" / "DiffusionSegment.ui"
INTERACTIVE = {
    *("QPushButton", "QCheckBox", "QComboBox", "QSpinBox", "QDoubleSpinBox", "QLineEdit"),
    *("QTableWidget", "QListWidget"),
    *("ctkSliderWidget", "ctkCollapsibleButton", "qMRMLNodeComboBox", "qMRMLSegmentEditorWidget"),
}
SECTIONS = (
    *("resultButton", "overlayButton", "reviewButton", "editorButton", "similarButton", "fineTuneSection"),
    *("reportSection", "advancedButton", "matchSection"),
)
# The test that operates a control and checks its effect, by the name of the control.
TESTS = {
    "inputSelector": ("test_panel", "test_an_empty_volume_is_refused_before_anything_starts"),
    "allFramesBox": ("test_all_frames", "test_every_frame_is_in_one_sequence_with_the_same_index"),
    "regionSelector": ("test_panel_inputs", "test_the_chosen_box_is_sent_with_its_position_and_size"),
    "modelSearchEdit": ("test_panel_inputs", "test_enter_chooses_the_first_match"),
    "modelSelector": ("test_panel_inputs", "test_titles_are_listed_and_names_are_stored"),
    "segmentButton": ("test_panel", "test_the_button_cancels_and_nothing_changes"),
    "givenSelector": ("test_segmentation_review", "test_the_button_needs_a_scan_and_a_segmentation"),
    "presegmentButton": (
        "test_presegmentation_panel",
        "test_the_segmentation_of_a_bundle_is_put_into_the_scene_and_chosen_for_a_review",
    ),
    "reviewGivenButton": ("test_segmentation_review", "test_the_review_is_shown_in_a_node_with_the_same_voxels"),
    "matchTable": ("test_segmentation_review", "test_the_organ_of_a_segment_is_chosen_in_the_table"),
    "anonymousBox": ("test_scan_header", "test_patient_data_are_hidden_on_request"),
    "detailsButton": ("test_panel_faults", "test_a_failure_shows_its_code_and_its_details_can_be_copied"),
    "resultTable": ("test_every_control", "test_unticking_an_organ_hides_it_in_the_slice_view"),
    "surfaceButton": ("test_panel", "test_show_in_3d_creates_surfaces"),
    "overlaySelector": ("test_panel", "test_overlay_choice_opacity_and_threshold_change_the_slice_view"),
    "opacitySlider": ("test_panel", "test_overlay_choice_opacity_and_threshold_change_the_slice_view"),
    "thresholdSlider": ("test_panel", "test_overlay_choice_opacity_and_threshold_change_the_slice_view"),
    "regionTable": ("test_every_control", "test_a_click_on_a_row_goes_to_its_region"),
    "nextButton": ("test_every_control", "test_next_and_previous_move_the_slice_view"),
    "previousButton": ("test_every_control", "test_next_and_previous_move_the_slice_view"),
    "acceptButton": ("test_every_control", "test_the_state_of_a_region_is_coloured_in_the_table"),
    "flagButton": ("test_every_control", "test_the_state_of_a_region_is_coloured_in_the_table"),
    "correctButton": ("test_every_control", "test_correct_opens_the_editor_on_the_regions_organ"),
    "editor": ("test_every_control", "test_correct_opens_the_editor_on_the_regions_organ"),
    "applyButton": ("test_review_loop", "test_a_correction_that_is_cancelled_loses_no_edit"),
    "undoButton": ("test_every_control", "test_an_alternative_is_used_and_undone"),
    "redoButton": ("test_every_control", "test_an_alternative_is_used_and_undone"),
    "alternativesButton": ("test_every_control", "test_alternatives_are_outlined_one_after_another"),
    "alternativePreviousButton": ("test_every_control", "test_alternatives_are_outlined_one_after_another"),
    "alternativeNextButton": ("test_every_control", "test_alternatives_are_outlined_one_after_another"),
    "useAlternativeButton": ("test_every_control", "test_an_alternative_is_used_and_undone"),
    "similarPointButton": ("test_similar_panel", "test_a_point_shows_the_similarity_map"),
    "similarSlider": ("test_similar_panel", "test_the_slider_sets_the_threshold"),
    "similarSegmentButton": ("test_similar_panel", "test_a_segment_needs_no_result"),
    "fineTuneNameEdit": ("test_every_control", "test_fine_tuning_with_name_and_minutes_adds_a_model"),
    "fineTuneMinutesBox": ("test_every_control", "test_fine_tuning_with_name_and_minutes_adds_a_model"),
    "fineTuneButton": ("test_every_control", "test_fine_tuning_with_name_and_minutes_adds_a_model"),
    "reportFileButton": ("test_report_panel", "test_a_report_is_written"),
    "dicomButton": ("test_report_panel", "test_dicom_seg_refers_only_to_the_series_of_the_scan"),
    "previewBox": ("test_panel_run", "test_without_its_tick_there_is_no_preview"),
    "allOrgansButton": ("test_panel_inputs", "test_unticking_an_organ_leaves_the_others"),
    "noOrgansButton": ("test_panel_inputs", "test_ticked_organs_are_sent"),
    "organList": ("test_panel_inputs", "test_ticked_organs_are_sent"),
    "samplesBox": ("test_panel_inputs", "test_samples_steps_seed_device_and_check_boxes_are_sent"),
    "stepsBox": ("test_panel_inputs", "test_samples_steps_seed_device_and_check_boxes_are_sent"),
    "samplerSelector": ("test_panel_inputs", "test_the_sampler_is_sent"),
    "runOnSelector": ("test_server_panel", "test_the_fields_of_a_server_appear_when_one_is_chosen"),
    "serverAddressEdit": ("test_server_panel", "test_a_scan_is_segmented_on_the_server"),
    "serverTokenEdit": ("test_server_panel", "test_the_connection_is_tested"),
    "serverCertificateEdit": ("test_server_panel", "test_the_certificate_of_the_server_is_checked"),
    "rememberServerBox": ("test_server_panel", "test_a_server_is_remembered_only_where_that_is_asked_for"),
    "testConnectionButton": ("test_server_panel", "test_the_connection_is_tested"),
    "seedBox": ("test_panel_inputs", "test_samples_steps_seed_device_and_check_boxes_are_sent"),
    "deviceSelector": ("test_panel_inputs", "test_samples_steps_seed_device_and_check_boxes_are_sent"),
    "memoryBox": ("test_panel_inputs", "test_the_memory_limit_is_sent"),
    "policySelector": ("test_every_control", "test_a_new_result_is_merged_by_the_chosen_policy"),
    "bodypartBox": ("test_panel_inputs", "test_samples_steps_seed_device_and_check_boxes_are_sent"),
    "forceBox": ("test_panel_inputs", "test_samples_steps_seed_device_and_check_boxes_are_sent"),
    "selfTestButton": ("test_installation_panel", "test_the_self_test_shows_device_torch_driver_memory_and_speed"),
    "importButton": ("test_installation_panel", "test_a_zip_file_is_installed_outside_the_extension"),
    **dict.fromkeys(SECTIONS, ("test_every_control", "test_a_section_opens_and_closes")),
}
UNCERTAIN, ON_REQUEST = 22, 23
LIVER, SPLEEN = 6, 1
GREEN, RED = (77, 191, 89), (230, 38, 51)


def controls() -> set[str]:
    """The names of all controls in the form; every other widget only displays."""
    widgets = ElementTree.parse(UI).iter("widget")
    return {widget.attrib["name"] for widget in widgets if widget.attrib["class"] in INTERACTIVE}


def source(file: str, test: str) -> str:
    """A test with the functions of its file that it calls."""
    text = (HERE / f"{file}.py").read_text(encoding="utf-8")
    functions = {node.name: node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)}
    assert test in functions, f"{file} has no test {test}"
    own = ast.unparse(functions[test])
    names = {node.id for node in ast.walk(functions[test]) if isinstance(node, ast.Name)} & functions.keys()
    return "\n".join([own, *(ast.unparse(functions[name]) for name in sorted(names))])


def test_every_control_has_its_test() -> None:
    assert controls() == TESTS.keys()


@pytest.mark.parametrize("control", sorted(TESTS))
def test_the_test_operates_the_control_and_asserts(control: str) -> None:
    text = source(*TESTS[control])
    assert re.search(rf"\.{control}\b", text) or control in SECTIONS
    assert re.search(r"^\s*(assert |np\.testing\.assert_)", text, re.MULTILINE)


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the user's own models, set before a worker starts."""
    monkeypatch.setenv("DIFFUSION_SEGMENT_MODELS", str(tmp_path))
    return tmp_path


@pytest.fixture
def reader(user: PanelUser) -> PanelUser:
    """The panel with a result that has two regions to review, the first in the spleen, the second in the liver."""
    user.addVolume()
    user.ui.seedBox.setValue(UNCERTAIN)
    user.segment()
    return user


def differing(one: np.ndarray, other: np.ndarray) -> int:
    """Pixels whose colour differs by more than what rounding does."""
    return int((np.abs(one.astype(int) - other).max(axis=2) > 8).sum())


def coloured(image: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((np.abs(image.astype(int) - colour).max(axis=2) < 4).sum())


def height(view: SliceView) -> float:
    """The superior coordinate of an axial view in mm."""
    return float(view.node.GetSliceToRAS().GetElement(2, 3))


def labels(user: PanelUser) -> np.ndarray:
    return readLabels(user.widget.panel.scan).labels.copy()


def press(user: PanelUser, table: Any, row: int) -> None:
    """Click into a row's last column, as with a mouse."""
    position = table.visualItemRect(table.item(row, table.columnCount - 1)).center()
    QtTest.QTest.mouseClick(table.viewport(), QtCore.Qt.LeftButton, QtCore.Qt.NoModifier, position)
    user.application.process()


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_opens_and_closes(user: PanelUser, name: str) -> None:
    section = getattr(user.ui, name)
    if name == "matchSection":
        volume = user.addVolume()
        given = segmentationOf(volume, "Theirs")
        addSegment(given, volume, "spleen", (slice(2, 6), slice(2, 7), slice(9, 13)))
        user.ui.givenSelector.setCurrentNode(given)
        user.application.process()
    header = section.findChild(QtWidgets.QToolButton)
    open_ = section.grab().height() if not section.collapsed else None
    heights = []
    for _ in range(2):
        QtTest.QTest.mouseClick(header, QtCore.Qt.LeftButton)
        for _ in range(3):
            user.application.process()
        heights.append(user.grab(section).shape[0])
    assert min(heights) < 30
    assert max(heights) > 30
    assert open_ is None or heights[0] < open_


def test_unticking_an_organ_hides_it_in_the_slice_view(reader: PanelUser, axialView: SliceView) -> None:
    reader.ui.overlaySelector.setCurrentIndex(0)
    axialView.showAt((7.0, -8.0, 12.0), fieldOfView=40)
    before = axialView.grab()
    reader.ui.resultTable.item(1, 0).setCheckState(reader.application.qt.Qt.Unchecked)
    hidden = axialView.grab()
    assert differing(before, hidden) > 500
    reader.ui.resultTable.item(1, 0).setCheckState(reader.application.qt.Qt.Checked)
    assert differing(before, axialView.grab()) < 20


def test_next_and_previous_move_the_slice_view(reader: PanelUser, axialView: SliceView) -> None:
    reader.click(reader.ui.nextButton)
    first = axialView.grab()
    assert height(axialView) == pytest.approx(16.0)
    reader.click(reader.ui.nextButton)
    assert height(axialView) == pytest.approx(10.0)
    assert differing(first, axialView.grab()) > 500
    reader.click(reader.ui.previousButton)
    assert height(axialView) == pytest.approx(16.0)


def test_a_click_on_a_row_goes_to_its_region(reader: PanelUser, axialView: SliceView) -> None:
    press(reader, reader.ui.regionTable, 1)
    assert height(axialView) == pytest.approx(10.0)
    press(reader, reader.ui.regionTable, 0)
    assert height(axialView) == pytest.approx(16.0)


def test_the_state_of_a_region_is_coloured_in_the_table(reader: PanelUser) -> None:
    table = reader.ui.regionTable
    reader.click(reader.ui.nextButton)
    assert coloured(reader.grab(table), GREEN) == coloured(reader.grab(table), RED) == 0
    reader.click(reader.ui.acceptButton)
    assert coloured(reader.grab(table), GREEN) > 60
    assert reader.ui.reviewLabel.text.startswith("1 of 2")
    reader.click(reader.ui.flagButton)
    assert coloured(reader.grab(table), RED) > 60
    assert [table.item(row, 2).text() for row in range(2)] == ["Accepted", "Flagged"]


def test_correct_opens_the_editor_on_the_regions_organ(reader: PanelUser) -> None:
    ui = reader.ui
    assert ui.editorButton.collapsed
    reader.click(ui.nextButton)
    reader.click(ui.correctButton)
    assert not ui.editorButton.collapsed
    assert ui.editor.segmentationNode() is reader.segmentations()[0]
    assert ui.editor.currentSegmentID() == "spleen"
    reader.click(ui.nextButton)
    reader.click(ui.correctButton)
    assert ui.editor.currentSegmentID() == "liver"
    assert reader.grab(ui.editor).std() > 5


def outlines(user: PanelUser) -> list[str]:
    return [node.GetName() for node in user.segmentations() if node.GetName() != "CT segmentation"]


def test_alternatives_are_outlined_one_after_another(reader: PanelUser, axialView: SliceView) -> None:
    ui = reader.ui
    assert (ui.alternativeLabel.text, ui.alternativeNextButton.enabled) == ("", False)
    reader.click(ui.nextButton)
    assert (ui.alternativeLabel.text, outlines(reader)) == ("1 of 2", ["Alternatives 1 of 2"])
    assert ui.alternativeTextLabel.text == "Background, not spleen: 0.1 mL. Probability 30 %."
    first = axialView.grab()
    reader.click(ui.alternativeNextButton)
    second = axialView.grab()
    assert (ui.alternativeLabel.text, outlines(reader)) == ("2 of 2", ["Alternatives 2 of 2"])
    assert differing(first, second) > 50
    reader.click(ui.alternativePreviousButton)
    assert differing(first, axialView.grab()) < 20
    reader.click(ui.alternativesButton)
    assert (ui.alternativesButton.text, outlines(reader)) == ("Alternatives", [])
    reader.click(ui.alternativesButton)
    assert (ui.alternativesButton.text, outlines(reader)) == ("Hide alternatives", ["Alternatives 1 of 2"])


def test_a_region_without_alternatives_says_so(reader: PanelUser) -> None:
    ui = reader.ui
    reader.click(ui.nextButton)
    reader.click(ui.nextButton)
    assert ui.alternativeTextLabel.text == "No other labels are plausible in this region."
    assert outlines(reader) == []
    assert not ui.useAlternativeButton.enabled
    assert ui.useAlternativeButton.toolTip == ui.alternativeTextLabel.text


def test_digits_show_and_hide_alternatives_while_the_editor_is_collapsed(reader: PanelUser) -> None:
    ui, keys = reader.ui, reader.widget.panel.alternatives._shortcuts
    assert not any(key.isEnabled() for key in keys)
    assert ui.editor._shortcuts
    reader.click(ui.nextButton)
    assert all(key.isEnabled() for key in keys)
    assert not ui.editor._shortcuts
    keys[1].activated()
    assert outlines(reader) == ["Alternatives 2 of 2"]
    keys[1].activated()
    assert outlines(reader) == []
    keys[0].activated()
    assert outlines(reader) == ["Alternatives 1 of 2"]
    keys[3].activated()
    assert outlines(reader) == ["Alternatives 1 of 2"]
    reader.click(ui.correctButton)
    assert not any(key.isEnabled() for key in keys)
    assert ui.editor._shortcuts


def test_an_alternative_is_used_and_undone(reader: PanelUser) -> None:
    ui, before = reader.ui, labels(reader)
    reader.click(ui.nextButton)
    reader.click(ui.useAlternativeButton)
    expected = before.copy()
    expected[8:9, 2:6, 3:8] = 0
    assert np.count_nonzero(expected != before) > 10
    assert np.array_equal(labels(reader), expected)
    assert outlines(reader) == []
    assert ui.regionTable.item(0, 2).text() == "Corrected"
    reader.click(ui.useAlternativeButton)
    assert "the same as the segmentation" in ui.messageLabel.text
    reader.click(ui.undoButton)
    assert np.array_equal(labels(reader), before)
    assert ui.undoButton.text == "Undo Segment"
    reader.click(ui.redoButton)
    assert np.array_equal(labels(reader), expected)


def test_alternatives_that_are_unknown_are_requested(user: PanelUser) -> None:
    user.addVolume()
    user.ui.seedBox.setValue(ON_REQUEST)
    user.segment()
    user.click(user.ui.nextButton)
    assert user.ui.useAlternativeButton.toolTip == "Click Alternatives first."
    user.click(user.ui.alternativesButton)
    user.until(lambda: user.ui.alternativeLabel.text == "1 of 2")
    assert outlines(user) == ["Alternatives 1 of 2"]


def test_fine_tuning_with_name_and_minutes_adds_a_model(models: Path, reader: PanelUser) -> None:
    ui = reader.ui
    ui.fineTuneSection.collapsed = False
    reader.application.process()
    QtTest.QTest.keyClicks(ui.fineTuneNameEdit, "my-model")
    ui.fineTuneMinutesBox.setValue(4)
    reader.click(ui.fineTuneButton)
    reader.until(lambda: "Model saved" in ui.messageLabel.text)
    assert json.loads((models / "my-model" / "model.json").read_text(encoding="utf-8"))["minutes"] == 4
    assert "my-model" in [ui.modelSelector.itemData(row) for row in range(ui.modelSelector.count)]


@pytest.mark.parametrize(
    ("chosen", "nodes", "value"),
    [
        ("Replace the last result", 1, LIVER),
        ("Fill only what is empty", 1, SPLEEN),
        ("Replace all but locked organs", 1, SPLEEN),
        ("New segmentation", 2, LIVER),
    ],
)
def test_a_new_result_is_merged_by_the_chosen_policy(reader: PanelUser, chosen: str, nodes: int, value: int) -> None:
    """A voxel of the liver was made spleen, and the spleen is locked."""
    edited = labels(reader)
    edited[5, 4, 4] = SPLEEN
    writeLabels(reader.widget.panel.scan, edited)
    lock = reader.ui.resultTable.item(0, 5)
    lock.setCheckState(reader.application.qt.Qt.Checked)
    if chosen == "Fill only what is empty":
        lock.setCheckState(reader.application.qt.Qt.Unchecked)
    reader.ui.policySelector.setCurrentIndex(reader.ui.policySelector.findText(chosen))
    reader.segment()
    assert len(reader.segmentations()) == nodes
    assert labels(reader)[5, 4, 4] == value
