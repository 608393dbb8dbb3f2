"""Records of corrections in the report that the segmentation keeps: applied, not applied, undone, merged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.protocol.messages import Corrected, Result
from DiffusionSegmentBackend.schema.correction_record import CorrectionKind
from DiffusionSegmentLib.scene.case_record import readCaseRecord
from DiffusionSegmentLib.scene.correction_trace import keptCorrections
from DiffusionSegmentLib.scene.corrections import applyCorrected, findCorrections
from DiffusionSegmentLib.scene.history import History, StepName, snapshot
from DiffusionSegmentLib.scene.label_map import readLabels
from DiffusionSegmentLib.scene.merge_policy import MergePolicy, setLocked
from DiffusionSegmentLib.scene.result import SceneResult, putResult
from DiffusionSegmentLib.scene.segmented_scan import REPORT_ATTRIBUTE, SegmentedScan
from DiffusionSegmentLib.scene.terminology import ModelDescription

from .test_corrections import ANSWER, LIVER, SCRIBBLED, SPLEEN, answerOf, paint

__all__ = ["answerOf"]


@pytest.fixture
def report(report: dict[str, Any]) -> dict[str, Any]:
    return {**report, "organs": [{"name": "liver", "title": "Liver", "value": LIVER, "volume_ml": 1.0}]}


def apply(
    scan: SegmentedScan, shown: SceneResult, answerOf: Callable[..., Corrected], edit: Callable[[], None]
) -> None:
    """The reader edits, and the model answers with what was drawn and one voxel more of liver."""
    edit()
    sent = findCorrections(scan)
    arriving = sent.labels[ANSWER.slices].copy()
    arriving[-1, -1, -1] = LIVER
    applyCorrected(scan, answerOf(arriving), sent, shown)


def test_an_applied_correction_counts_drawn_and_changed_voxels(
    scan: SegmentedScan, shown: SceneResult, labels: np.ndarray, oblique: Volume, answerOf: Callable[..., Corrected]
) -> None:
    apply(scan, shown, answerOf, lambda: paint(scan, SCRIBBLED, LIVER))
    now = readLabels(scan).labels
    (record,) = keptCorrections(scan.segmentation)
    assert record.kind is CorrectionKind.MARKS
    assert record.marked_voxels == np.count_nonzero(labels[SCRIBBLED.slices] != LIVER)
    assert record.changed_voxels == np.count_nonzero(now != labels) == record.marked_voxels + 1
    liver = next(organ for organ in record.organs if organ.name == "liver")
    gained = np.count_nonzero((now == LIVER) & (labels != LIVER))
    assert (liver.gained_voxels, liver.lost_voxels) == (gained, 0)
    assert liver.gained_ml == pytest.approx(gained * oblique.voxel_ml, abs=0.01)


def test_a_chain_of_corrections_is_kept_with_the_scene(
    scan: SegmentedScan,
    shown: SceneResult,
    answerOf: Callable[..., Corrected],
    saveAndLoad: Callable[[], SegmentedScan],
) -> None:
    apply(scan, shown, answerOf, lambda: paint(scan, SCRIBBLED, LIVER))
    apply(scan, shown, answerOf, lambda: paint(scan, SCRIBBLED, SPLEEN))
    first, second = keptCorrections(saveAndLoad().segmentation)
    assert {organ.name for organ in first.organs} == {"liver"}
    assert {organ.name: organ.lost_voxels > 0 for organ in second.organs} == {"liver": True, "spleen": False}


def test_undo_removes_the_record_and_redo_restores_it(
    scan: SegmentedScan, shown: SceneResult, answerOf: Callable[..., Corrected]
) -> None:
    history, before = History(), snapshot(scan)
    apply(scan, shown, answerOf, lambda: paint(scan, SCRIBBLED, LIVER))
    history.record(StepName.APPLY_CORRECTIONS, scan, before)
    history.undo(scan)
    assert keptCorrections(scan.segmentation) == ()
    history.redo(scan)
    assert len(keptCorrections(scan.segmentation)) == 1


def test_report_and_export_contain_edits_that_were_not_applied(scan: SegmentedScan, shown: SceneResult) -> None:
    assert "corrections" not in readCaseRecord(scan, shown).report
    paint(scan, SCRIBBLED, SPLEEN)
    (entry,) = readCaseRecord(scan, shown).report["corrections"]
    assert entry["kind"] == "edits"
    assert {organ["name"] for organ in entry["organs"]} >= {"spleen"}
    assert keptCorrections(scan.segmentation) == (), "only applying keeps it"


def test_a_new_run_keeps_the_record_of_locked_organs(
    scene: slicer.vtkMRMLScene,
    scan: SegmentedScan,
    shown: SceneResult,
    reviewed: Result,
    model: ModelDescription,
    answerOf: Callable[..., Corrected],
) -> None:
    apply(scan, shown, answerOf, lambda: paint(scan, SCRIBBLED, LIVER))
    setLocked(scan.segmentation, "liver", True)
    putResult(scene, replace(reviewed), scan.input, model, previous=shown, policy=MergePolicy.RESPECT_LOCKED)
    (record,) = keptCorrections(scan.segmentation)
    assert {organ.name for organ in record.organs} == {"liver"}
    putResult(scene, replace(reviewed), scan.input, model, previous=shown, policy=MergePolicy.REPLACE)
    assert keptCorrections(scan.segmentation) == ()


def test_a_damaged_record_is_reported(scan: SegmentedScan, shown: SceneResult) -> None:
    scan.segmentation.SetAttribute(REPORT_ATTRIBUTE, '{"organs": [{"name": "liver"}], "corrections": [{"time": 3}]}')
    paint(scan, SCRIBBLED, SPLEEN)
    with pytest.raises(DiffusionSegmentError, match="are damaged") as caught:
        readCaseRecord(scan, shown)
    assert caught.value.code is ErrorCode.INPUT_UNREADABLE
