"""Segments for fine-tuning: every visible segment once, by its name, in the voxels of the scan."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.models.folders import bundled_models_folder
from DiffusionSegmentLib.scene.installed_models import installedModels
from DiffusionSegmentLib.scene.layers import BINARY
from DiffusionSegmentLib.scene.segmentation import orientedImage
from DiffusionSegmentLib.scene.segmented_scan import SegmentedScan
from DiffusionSegmentLib.scene.user_segments import readUserSegments

LIVER, SPLEEN = 6, 1
CYST = (slice(1, 4), slice(15, 18), slice(20, 24))


def draw(scan: SegmentedScan, name: str, box: tuple[slice, slice, slice]) -> str:
    """A segment of the reader's, in a cropped label map of its own as Segment Editor leaves it."""
    start = (box[0].start, box[1].start, box[2].start)
    shape = tuple(part.stop - part.start for part in box)
    segment = slicer.vtkSegment()
    segment.SetName(name)
    segment.SetLabelValue(1)
    segment.AddRepresentation(BINARY, orientedImage(np.ones(shape, np.uint8), scan.input, start=start))
    segmentId = f"Segment_{name}"
    scan.segmentation.GetSegmentation().AddSegment(segment, segmentId)
    return segmentId


def test_organs_and_user_segments_are_read_by_name(scan: SegmentedScan, labels: np.ndarray) -> None:
    draw(scan, "Cyst", CYST)
    own = readUserSegments(scan)
    assert own.names == ("spleen", "liver", "Cyst")
    wanted = np.zeros(labels.shape, np.uint8)
    wanted[labels == SPLEEN] = 1
    wanted[labels == LIVER] = 2
    wanted[CYST] = 3
    np.testing.assert_array_equal(own.labels, wanted)


def test_hidden_and_empty_segments_are_left_out(scan: SegmentedScan) -> None:
    scan.segmentation.GetSegmentation().AddEmptySegment("nothing", "Nothing")
    scan.segmentation.GetDisplayNode().SetSegmentVisibility("spleen", False)
    assert readUserSegments(scan).names == ("liver",)


def test_a_renamed_organ_has_its_new_name(scan: SegmentedScan) -> None:
    scan.segmentation.GetSegmentation().GetSegment("liver").SetName("Right lobe")
    assert readUserSegments(scan).names == ("spleen", "Right lobe")


def test_voxels_outside_the_scan_are_cut_off(scan: SegmentedScan) -> None:
    draw(scan, "Edge", (slice(18, 23), slice(20, 23), slice(24, 27)))
    own = readUserSegments(scan)
    assert np.count_nonzero(own.labels == 3) == 2 * 3 * 3


def test_overlapping_segments_are_refused_by_name(scan: SegmentedScan) -> None:
    draw(scan, "Cyst", (slice(5, 7), slice(6, 8), slice(4, 6)))
    with pytest.raises(DiffusionSegmentError, match="'liver' and 'Cyst' share 8 voxels") as caught:
        readUserSegments(scan)
    assert caught.value.code is ErrorCode.INPUT_VALUES
    scan.segmentation.GetDisplayNode().SetSegmentVisibility("liver", False)
    assert readUserSegments(scan).names == ("spleen", "Cyst")


def test_a_segmentation_without_visible_segments_is_refused(scan: SegmentedScan) -> None:
    scan.segmentation.GetDisplayNode().SetAllSegmentsVisibility(False)
    with pytest.raises(DiffusionSegmentError, match="shows no segment to learn from"):
        readUserSegments(scan)


def test_the_users_models_come_after_the_bundled_ones(tmp_path: Path) -> None:
    shutil.copytree(bundled_models_folder() / "abdomen-ct", tmp_path / "mine", ignore=shutil.ignore_patterns("*.saf*"))
    result = installedModels((bundled_models_folder(), tmp_path))
    assert next(iter(result)) == "abdomen-ct"
    assert list(result)[-1] == "mine"
    assert result["mine"].labels == result["abdomen-ct"].labels


def test_unfinished_and_damaged_models_are_skipped(tmp_path: Path) -> None:
    raw = json.loads((bundled_models_folder() / "abdomen-ct" / "model.json").read_text(encoding="utf-8"))
    for name, text in ((".mine.tmp", json.dumps(raw)), ("cut", '{"name": "cu'), ("empty", "{}"), ("list", "[]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.json").write_text(text, encoding="utf-8")
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "model.json").write_text(json.dumps(raw), encoding="utf-8")
    assert list(installedModels((tmp_path, tmp_path / "never made"))) == ["good"]


def test_a_user_model_cannot_hide_a_bundled_one(tmp_path: Path) -> None:
    (tmp_path / "abdomen-ct").mkdir()
    raw = json.loads((bundled_models_folder() / "abdomen-ct" / "model.json").read_text(encoding="utf-8"))
    (tmp_path / "abdomen-ct" / "model.json").write_text(json.dumps({**raw, "modality": "MR"}), encoding="utf-8")
    assert installedModels((bundled_models_folder(), tmp_path))["abdomen-ct"].modality == "CT"
