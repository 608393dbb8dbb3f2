"""The review with the real worker and the real model: segment, next, paint, apply, undo, save, load, apply again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import slicer
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.phantom.phantom import make_phantom
from DiffusionSegmentBackend.schema.review_state import RegionState
from DiffusionSegmentLib.scene.label_map import readLabels, writeLabels
from DiffusionSegmentLib.scene.overlay_maps import toVoxelsOf
from DiffusionSegmentLib.scene.review import ReviewList, stateLabel
from DiffusionSegmentLib.scene.segmented_scan import SegmentedScan
from headless.slicer_picture import putVolume
from slicer.util import arrayFromVolume

if TYPE_CHECKING:
    from .conftest import PanelUser

SIDE = 64
LIVER = 6
WORKER = [sys.executable, "-m", "DiffusionSegmentBackend", "worker"]


@pytest.fixture(scope="module")
def body() -> Volume:
    """A part of the phantom as large as one tile."""
    phantom = make_phantom(seed=3, spacing_mm=(3.0, 3.0, 3.0))
    start = [(n - SIDE) // 2 for n in phantom.image.shape]
    matrix = phantom.index_to_lps.copy()
    matrix[:3, 3] += matrix[:3, :3] @ np.array(start[::-1])
    return Volume(phantom.image[tuple(slice(n, n + SIDE) for n in start)].copy(), matrix)


@pytest.fixture
def reader(user: PanelUser, body: Volume, monkeypatch: pytest.MonkeyPatch) -> Iterator[PanelUser]:
    """The panel with a segmented scan."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2] / "DiffusionSegment"))
    user.useWorker(WORKER)
    user.ui.inputSelector.setCurrentNode(putVolume(slicer.mrmlScene, body, "CT"))
    parameters = user.widget._parameterNode
    parameters.force, parameters.samples, parameters.steps, parameters.seed = True, 2, 1, 5
    user.click(user.ui.segmentButton)
    user.until(lambda: user.ui.segmentButton.text == "Segment", seconds=300.0)
    return user


def _scan(user: PanelUser) -> SegmentedScan:
    scan: SegmentedScan = user.widget.panel.scan
    return scan


def _paint(user: PanelUser, value: int) -> np.ndarray:
    """Paint a small block over the liver, as Segment Editor does: into the segmentation node; where it was painted."""
    scan = _scan(user)
    labels = readLabels(scan).labels.copy()
    k, j, i = np.argwhere(labels == LIVER)[len(np.argwhere(labels == LIVER)) // 2]
    painted = np.zeros(labels.shape, bool)
    painted[k, j - 1 : j + 2, i : i + 5] = True
    labels[painted] = value
    writeLabels(scan, labels)
    return painted


def _nearest(node: slicer.vtkMRMLScalarVolumeNode, ct: slicer.vtkMRMLScalarVolumeNode, mask: np.ndarray) -> np.ndarray:
    """The values of a map on its own grid at the voxels of a mask of the scan."""
    voxels = np.argwhere(mask)[:, ::-1]
    toMap = toVoxelsOf(node, ct)
    i, j, k = np.rint(voxels @ toMap[:3, :3].T + toMap[:3, 3]).astype(int).T
    values: np.ndarray = arrayFromVolume(node)[k, j, i]
    return values


def _finish(user: PanelUser) -> None:
    user.until(lambda: not user.widget.logic.client.running, seconds=300.0)
    user.application.process()


def _saveAndLoad(user: PanelUser, folder: Path) -> None:
    """Write the scene with its files and read it again: the panel sees it close and open; singletons stay."""
    scene = slicer.mrmlScene
    folder.mkdir()
    for number in range(scene.GetNumberOfNodesByClass("vtkMRMLStorableNode")):
        node = scene.GetNthNodeByClass(number, "vtkMRMLStorableNode")
        kept = node.IsA("vtkMRMLVolumeNode") or node.IsA("vtkMRMLSegmentationNode")
        if kept and node.GetSaveWithScene():
            node.AddDefaultStorageNode()
            ending = ".seg.nrrd" if node.IsA("vtkMRMLSegmentationNode") else ".nrrd"
            node.GetStorageNode().SetFileName(str(folder / f"{node.GetID()}{ending}"))
            assert node.GetStorageNode().WriteData(node)
    scene.SetURL(str(folder / "scene.mrml"))
    assert scene.Commit()
    assert scene.Connect()
    user.application.process()


@pytest.mark.slow
def test_segment_review_correct_undo_save_and_correct_again(reader: PanelUser, tmp_path: Path) -> None:
    ui = reader.ui
    assert ui.regionTable.rowCount > 1
    assert ui.applyButton.enabled

    # Next and P, by button and by key.
    reader.click(ui.nextButton)
    review = ReviewList(_scan(reader).segmentation)
    assert review.current is not None
    assert review.current.number == 0
    reader.widget.panel.review._shortcuts[0].activated()
    reader.widget.panel.review._shortcuts[1].activated()
    review.reload()
    assert review.current.number == 0
    reader.click(ui.acceptButton)
    assert ui.regionTable.item(0, 2).text() == stateLabel(RegionState.ACCEPTED)

    # Paint and apply.
    before = readLabels(_scan(reader)).labels.copy()
    painted = _paint(reader, 0)
    reader.click(ui.applyButton)
    _finish(reader)
    assert ui.messageLabel.text.startswith("Corrections applied")
    after = readLabels(_scan(reader)).labels.copy()
    assert (after[painted] == 0).all()
    assert np.count_nonzero(after != before) >= np.count_nonzero(painted)
    edited = painted & (before > 0)
    uncertainty = _nearest(slicer.mrmlScene.GetFirstNodeByName("CT uncertainty"), _scan(reader).input, edited)
    assert uncertainty.max() == 0
    assert ReviewList(_scan(reader).segmentation).regions

    # Undo and redo by name.
    assert ui.undoButton.text == "Undo Apply corrections"
    reader.click(ui.undoButton)
    undone = readLabels(_scan(reader)).labels
    assert np.array_equal(undone[~painted], before[~painted])
    reader.click(ui.redoButton)
    assert np.array_equal(readLabels(_scan(reader)).labels, after)

    # Save, load, correct again: a second correction knows of the first.
    _saveAndLoad(reader, tmp_path / "saved")
    assert ui.regionTable.rowCount > 0
    assert np.array_equal(readLabels(_scan(reader)).labels, after)
    more = _paint(reader, 1)
    reader.click(ui.applyButton)
    _finish(reader)
    last = readLabels(_scan(reader)).labels
    assert (last[more] == 1).all()
    assert (last[painted & ~more] == 0).all()


@pytest.mark.slow
def test_alternatives_of_a_region_are_shown_used_and_undone(reader: PanelUser, tmp_path: Path) -> None:
    ui = reader.ui
    reader.click(ui.nextButton)
    total = int(ui.alternativeLabel.text.removeprefix("1 of "))
    assert 1 <= total <= 4
    regions = reader.widget.panel.result.regions.unpack()
    before = readLabels(_scan(reader)).labels.copy()
    reader.widget.panel.alternatives._shortcuts[total - 1].activated()
    assert [node.GetName() for node in reader.segmentations()][1:] == [f"Alternatives {total} of {total}"]
    reader.click(ui.useAlternativeButton)
    after = readLabels(_scan(reader)).labels.copy()
    changed = after != before
    assert np.count_nonzero(changed) > 0
    assert (regions[changed] == 1).all()
    assert ui.undoButton.text == "Undo Use alternative"
    reader.click(ui.undoButton)
    assert np.array_equal(readLabels(_scan(reader)).labels, before)
    reader.click(ui.redoButton)

    # A correction brings the alternatives of the new regions.
    reader.click(ui.applyButton)
    _finish(reader)
    assert ui.messageLabel.text.startswith("Corrections applied")
    assert (readLabels(_scan(reader)).labels[changed] == after[changed]).all()
    reader.click(ui.nextButton)
    assert ui.alternativeTextLabel.text

    # A loaded scene requests them.
    _saveAndLoad(reader, tmp_path / "saved")
    reader.click(ui.nextButton)
    assert ui.useAlternativeButton.toolTip == "Click Alternatives first."
    reader.click(ui.alternativesButton)
    _finish(reader)
    assert ui.alternativeTextLabel.text


def test_apply_without_edits_is_refused_with_a_message(reader: PanelUser) -> None:
    reader.click(reader.ui.applyButton)
    assert "There are no corrections to apply." in reader.ui.messageLabel.text
    assert not reader.ui.progressBar.visible


def test_a_correction_that_is_cancelled_loses_no_edit(reader: PanelUser) -> None:
    painted = _paint(reader, 0)
    expected: Any = readLabels(_scan(reader)).labels.copy()
    reader.click(reader.ui.applyButton)
    reader.click(reader.ui.segmentButton)
    _finish(reader)
    assert np.array_equal(readLabels(_scan(reader)).labels, expected)
    assert (expected[painted] == 0).all()
    reader.click(reader.ui.applyButton)
    _finish(reader)
    assert reader.ui.messageLabel.text.startswith("Corrections applied")
