"""The pipeline on a DICOM folder and labelled CT and MR scans, if such data is on the machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import real_data
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume_io import read_volume
from DiffusionSegmentBackend.models.model import Model, load_model
from DiffusionSegmentBackend.pipeline.options import SegmentOptions
from DiffusionSegmentBackend.pipeline.segment import segment

DATA = real_data.folder()
ENTRY = Path(__file__).resolve().parents[2] / "DiffusionSegment" / "DiffusionSegmentBackend" / "__main__.py"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(DATA is None, reason="no real scans on this machine; the phantom's tests stand in"),
]


def test_a_clinical_dicom_folder_within_time_and_memory(tmp_path: Path) -> None:
    """The limit is for one core of a busy machine; docs/PERFORMANCE.md has the time of an idle one."""
    assert DATA is not None
    scan = DATA / "unlabelled_ct" / "crlm_ct_1004_dicom"
    command = [sys.executable, str(ENTRY), "segment", str(scan), "-o", str(tmp_path / "out"), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["timings_s"]["total"] < 400
    assert report["peak_memory_mb"] < 6000
    volumes = {organ["name"]: organ["volume_ml"] for organ in report["organs"]}
    assert 700 < volumes["liver"] < 3000
    labels = read_volume(tmp_path / "out" / "segmentation.nii.gz")
    assert labels.array.shape == (41, 512, 512)


def test_a_head_is_refused_by_the_abdomen_model(model: Model) -> None:
    assert DATA is not None
    with pytest.raises(DiffusionSegmentError) as caught:
        segment(read_volume(DATA / "headneck_ct" / "images" / "pt_201.nii.gz"), model, SegmentOptions())
    assert caught.value.code is ErrorCode.BODY_PART_MISMATCH


def test_the_bundled_model_segments_the_large_organs_of_a_validation_case(model: Model) -> None:
    assert DATA is not None
    volume = read_volume(DATA / "abdomen_ct" / "images" / "case_03.nii.gz")
    truth = read_volume(DATA / "abdomen_ct" / "labels" / "case_03.nii.gz").array
    labels = segment(volume, model, SegmentOptions(samples=1, steps=1)).labels
    for value, min_dice in ((6, 0.85), (1, 0.75), (8, 0.6)):
        overlap = 2 * np.count_nonzero((labels == value) & (truth == value))
        assert overlap / (np.count_nonzero(labels == value) + np.count_nonzero(truth == value)) > min_dice


def test_the_neck_model_segments_a_neck_and_refuses_an_abdomen() -> None:
    assert DATA is not None
    neck = load_model("headneck-ct", "cpu")
    volume = read_volume(DATA / "headneck_ct" / "images" / "pt_201.nii.gz")
    truth = read_volume(DATA / "headneck_ct" / "labels" / "pt_201.nii.gz").array
    labels = segment(volume, neck, SegmentOptions(samples=1, steps=1)).labels
    for value, min_dice in ((1, 0.5), (7, 0.6)):
        overlap = 2 * np.count_nonzero((labels == value) & (truth == value))
        assert overlap / (np.count_nonzero(labels == value) + np.count_nonzero(truth == value)) > min_dice
    with pytest.raises(DiffusionSegmentError, match="only 0 % of it lies") as caught:
        segment(read_volume(DATA / "abdomen_ct" / "images" / "case_03.nii.gz"), neck, SegmentOptions())
    assert caught.value.code is ErrorCode.BODY_PART_MISMATCH


def test_the_mr_model_segments_an_abdomen_and_refuses_a_hippocampus() -> None:
    assert DATA is not None
    abdomen = load_model("abdomen-mr", "cpu")
    volume = read_volume(DATA / "abdomen_mr" / "images" / "case_21.nii.gz")
    truth = read_volume(DATA / "abdomen_mr" / "labels" / "case_21.nii.gz").array
    labels = segment(volume, abdomen, SegmentOptions()).labels
    for value, min_dice in ((1, 0.8), (2, 0.85), (3, 0.85), (4, 0.8)):
        overlap = 2 * np.count_nonzero((labels == value) & (truth == value))
        assert overlap / (np.count_nonzero(labels == value) + np.count_nonzero(truth == value)) > min_dice
    crop = sorted((DATA / "hippocampus_mr" / "images").iterdir())[0]
    with pytest.raises(DiffusionSegmentError) as caught:
        segment(read_volume(crop), abdomen, SegmentOptions())
    assert caught.value.code in (ErrorCode.BODY_PART_MISMATCH, ErrorCode.UNUSUAL_APPEARANCE)
