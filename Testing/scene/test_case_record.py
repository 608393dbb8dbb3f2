"""The record of a reviewed result for the case report: present labels, review states, files of the series."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import slicer
import vtk
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.protocol.messages import Result
from DiffusionSegmentBackend.schema.dataclass_json import to_json
from DiffusionSegmentLib.scene.case_record import readCaseRecord, reviewRecord, seriesFiles
from DiffusionSegmentLib.scene.label_map import writeLabels
from DiffusionSegmentLib.scene.overlay import OverlayKind
from DiffusionSegmentLib.scene.result import SceneResult
from DiffusionSegmentLib.scene.review import ReviewList
from DiffusionSegmentLib.scene.segmented_scan import SegmentedScan

ORGANS = [{"name": name} for name in ("liver", "spleen", "pancreas")]


@pytest.fixture
def reviewed(reviewed: Result) -> Result:
    """The result, with organs in its report."""
    return replace(reviewed, report={**reviewed.report, "organs": ORGANS})


def test_labels_are_the_present_ones(scan: SegmentedScan, shown: SceneResult, labels: np.ndarray) -> None:
    painted = np.where(labels == 6, 1, labels).astype(np.uint8)
    writeLabels(scan, painted)
    record = readCaseRecord(scan, shown)
    np.testing.assert_array_equal(record.labels, painted)
    assert record.uncertainty.dtype == np.float32
    assert [organ["name"] for organ in record.report["organs"]] == ["liver", "spleen", "pancreas"]


def test_a_transform_after_the_run_does_not_change_the_geometry_of_the_record(
    scene: slicer.vtkMRMLScene, scan: SegmentedScan, shown: SceneResult, oblique: Volume
) -> None:
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    shift = vtk.vtkTransform()
    shift.Translate(10, 20, 30)
    transform.SetMatrixTransformToParent(shift.GetMatrix())
    for node in (scan.input, scan.segmentation):
        node.SetAndObserveTransformNodeID(transform.GetID())
    record = readCaseRecord(scan, shown)
    np.testing.assert_allclose(record.reportToLPS, oblique.index_to_lps, atol=1e-6)
    np.testing.assert_allclose(record.scanToLPS, oblique.index_to_lps, atol=1e-6)


def test_a_deleted_uncertainty_map_is_reported(
    scene: slicer.vtkMRMLScene, scan: SegmentedScan, shown: SceneResult
) -> None:
    scene.RemoveNode(shown.overlays[OverlayKind.UNCERTAINTY])
    with pytest.raises(DiffusionSegmentError, match="uncertainty map is no longer in the scene") as caught:
        readCaseRecord(scan, shown)
    assert caught.value.code is ErrorCode.INPUT_MISSING


def test_a_segmentation_of_unknown_origin_has_no_report(scan: SegmentedScan, shown: SceneResult) -> None:
    scan.segmentation.RemoveAttribute("DiffusionSegment.report")
    with pytest.raises(DiffusionSegmentError, match="has no report of the run"):
        readCaseRecord(scan, shown)


def test_the_review_record_has_the_schema_of_the_report(scan: SegmentedScan) -> None:
    review = ReviewList(scan.segmentation)
    review.select(0)
    review.accept()
    review.select(2)
    review.flag()
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    logic.SetSegmentStatus(scan.segmentation.GetSegmentation().GetSegment("liver"), logic.Completed)
    assert to_json(reviewRecord(scan)) == {
        "organs": {"liver": "accepted", "spleen": "flagged"},
        "regions": [
            {"index": 0, "state": "accepted"},
            {"index": 1, "state": "open"},
            {"index": 2, "state": "flagged"},
        ],
    }


def test_an_organ_without_review_is_not_recorded(scan: SegmentedScan) -> None:
    assert reviewRecord(scan).organs == {}


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Slicer's DICOM database: file by instance; an unknown instance has an empty name."""
    files: dict[str, str] = {}
    asked: Any = SimpleNamespace(fileForInstance=lambda uid: files.get(uid, ""))
    monkeypatch.setattr(slicer, "dicomDatabase", asked, raising=False)
    return files


def test_the_files_of_the_series_come_from_slicers_database(
    ct: slicer.vtkMRMLScalarVolumeNode, database: dict[str, str]
) -> None:
    database.update({"1.2": "/data/b.dcm", "1.1": "/data/a.dcm"})
    ct.SetAttribute("DICOM.instanceUIDs", "1.1 1.2")
    assert seriesFiles(ct) == ("/data/a.dcm", "/data/b.dcm")


@pytest.mark.parametrize(
    ("instances", "words"),
    [(None, "CT was not loaded from DICOM"), ("1.1 1.3", "1 of 2 images of CT are no longer in Slicer's DICOM")],
)
def test_a_scan_without_its_series_is_reported(
    ct: slicer.vtkMRMLScalarVolumeNode, database: dict[str, str], instances: str | None, words: str
) -> None:
    database["1.1"] = "/data/a.dcm"
    if instances:
        ct.SetAttribute("DICOM.instanceUIDs", instances)
    with pytest.raises(DiffusionSegmentError, match=words) as caught:
        seriesFiles(ct)
    assert caught.value.code is ErrorCode.INPUT_MISSING
