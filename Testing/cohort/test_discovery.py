"""Which scans are found, and why a series is not fit for the model."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from DiffusionSegmentBackend.cohort.dicom_scans import DicomLister
from DiffusionSegmentBackend.cohort.discovery import Discovery
from DiffusionSegmentBackend.cohort.pseudonyms import Pseudonyms, read_pseudonyms
from DiffusionSegmentBackend.cohort.scan import CohortScan
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from fixtures.dicom_files import ROOT, secondary_capture, slices, small_ct, write


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    (tmp_path / "lists").mkdir()
    return tmp_path / "lists"


def discover(lists: Path, *sources: Path, force: bool = False) -> list[CohortScan]:
    pseudonyms = Pseudonyms(bytes(32))
    lister = DicomLister(pseudonyms, lists, "CT", force=force)
    return list(Discovery(pseudonyms, lister, lists.parent / "out").scans(sources))


def by_series(scans: list[CohortScan]) -> dict[str, CohortScan]:
    return {scan.identifiers.series_uid.removeprefix(ROOT): scan for scan in scans}


def reasons(scans: list[CohortScan]) -> dict[str, str]:
    return {name: scan.unfit.reason if scan.unfit else "" for name, scan in by_series(scans).items()}


def test_each_series_of_a_study_is_listed_with_the_reason_why_it_is_not_fit(tmp_path: Path, lists: Path) -> None:
    study = tmp_path / "tree" / "deep" / "study"
    ct = small_ct()
    write(slices(ct, "2"), study / "a")
    write(slices(ct, "3", Modality="PT"), study / "b")
    write(slices(ct, "4")[:3], study / "c")
    write([secondary_capture(n, colour=True) for n in range(3)], study / "d")
    write(slices(ct, "6", ImagePositionPatient=["0", "0", "0"]), study / "e")
    write(slices(ct, "7", RescaleSlope=None, RescaleIntercept=None), study / "f")
    truncated = write(slices(ct, "9"), study / "g") / "004.dcm"
    truncated.write_bytes(truncated.read_bytes()[:-50])
    found = reasons(discover(lists, tmp_path / "tree"))
    assert found.pop("2") == ""
    assert found == {
        "3": "Its modality is PT; the model is for CT.",
        "4": "It has 3 slices; at least 6 are needed.",
        "8": "Its files are no CT or MR images, but: colour Secondary Capture.",
        "6": "Its slices do not lie on one grid.",
        "7": "Its header does not state the rescaling to HU.",
        "9": "A file of it is damaged: slices would be missing.",
    }


def test_the_series_of_one_folder_have_a_list_of_files_each(tmp_path: Path, lists: Path) -> None:
    folder = tmp_path / "tree"
    write(slices(small_ct(), "2"), folder, name="a{:03d}")
    write(slices(small_ct(), "3"), folder, name="b{:03d}")
    scans = by_series(discover(lists, folder))
    for uid, letter in (("2", "a"), ("3", "b")):
        names = [os.path.basename(os.fsdecode(path)) for path in Path(scans[uid].source).read_bytes().split(b"\0")]
        assert names == [f"{letter}{n:03d}" for n in range(8)]
        assert scans[uid].slices == 8


def test_a_series_in_two_patients_folders_is_segmented_once(tmp_path: Path, lists: Path) -> None:
    for name in ("one", "two"):
        write(slices(small_ct(), "2"), tmp_path / "tree" / name)
    first, second = discover(lists, tmp_path / "tree")
    assert first.unfit is None
    assert second.unfit is not None
    assert second.unfit.reason == "It is a copy of another scan of the cohort."
    assert second.scan_id == f"{first.scan_id}-2"


def test_two_time_points_of_a_series_are_two_scans(tmp_path: Path, lists: Path) -> None:
    images = [
        image for point in ("1", "2") for image in slices(small_ct(), "2", TemporalPositionIdentifier=point)
    ]
    for n, image in enumerate(images):
        image.SOPInstanceUID = f"{ROOT}5.2.{n + 1}"
    write(images, tmp_path / "tree")
    scans = discover(lists, tmp_path / "tree")
    assert [(scan.series or "").rpartition("#")[2] for scan in scans] == ["1", "2"]
    assert len({scan.scan_id for scan in scans}) == 2


def test_image_files_are_scans_and_the_cohort_itself_is_not_searched(tmp_path: Path, lists: Path) -> None:
    for name in ("a.nii.gz", "p/b.nrrd", "p/c.mha", "p/notes.txt", ".hidden/d.nii", "out/scans/1/segmentation.nii.gz"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    pseudonyms = Pseudonyms(bytes(32))
    discovery = Discovery(pseudonyms, DicomLister(pseudonyms, lists, "CT"), tmp_path / "tree" / "out")
    found = [Path(scan.source).name for scan in discovery.scans([tmp_path / "tree"])]
    assert found == ["a.nii.gz", "b.nrrd", "c.mha"]


def test_headers_are_pseudonymous_and_acquisition_is_plain_text(tmp_path: Path, lists: Path) -> None:
    tags = {"Manufacturer": "<b>=ACME</b>", "ConvolutionKernel": "B30f", "KVP": "120"}
    write(slices(small_ct(), "2", **tags), tmp_path / "tree")
    (scan,) = discover(lists, tmp_path / "tree")
    assert scan.identifiers.patient_id == "P1"
    assert len(scan.patient) == len(scan.study) == len(scan.scan_id) == 16
    assert scan.patient != Pseudonyms(b"1" * 32).of("patient", "P1")
    assert (scan.acquisition.manufacturer, scan.acquisition.kernel) == ("bACMEb", "B30f")


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_manifest_names_paths_series_and_patients(suffix: str, tmp_path: Path, lists: Path) -> None:
    write(slices(small_ct(), "2"), tmp_path / "study", name="a{:03d}")
    write(slices(small_ct(), "3"), tmp_path / "study", name="b{:03d}")
    (tmp_path / "ct.nii.gz").touch()
    rows = [
        {"path": "study", "series": f"{ROOT}3", "patient": "Anna"},
        {"path": str(tmp_path / "ct.nii.gz"), "series": "", "patient": "Anna"},
        {"path": "missing.nii.gz", "series": "", "patient": ""},
    ]
    manifest = tmp_path / f"list.{suffix}"
    if suffix == "csv":
        lines = ["path,series,patient", *(",".join(row.values()) for row in rows)]
    else:
        lines = [json.dumps(row) for row in rows]
    manifest.write_text("\n".join(lines), encoding="utf-8-sig")
    scans = discover(lists, manifest)
    assert [scan.identifiers.series_uid.removeprefix(ROOT) for scan in scans] == ["3", "", ""]
    assert scans[0].patient == scans[1].patient != ""
    assert [scan.unfit.code if scan.unfit else "" for scan in scans] == ["", "", "INPUT_MISSING"]


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("a.csv", "file\nct.nii", "no column 'path'"),
        ("a.csv", "", "no column 'path'"),
        ("a.csv", "path\n", "no rows"),
        ("a.jsonl", "{", "line 1"),
        ("a.jsonl", "\n[]", "line 2"),
        ("a.jsonl", '{"path": 3}', "names no path"),
        ("a.jsonl", '{"path": "a\\u0000b"}', "names no path"),
    ],
)
def test_a_damaged_manifest_is_one_line(name: str, text: str, part: str, tmp_path: Path, lists: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DiffusionSegmentError, match=part) as caught:
        discover(lists, tmp_path / name)
    assert caught.value.code is ErrorCode.INPUT_UNREADABLE


def test_a_source_that_does_not_exist_is_one_line(tmp_path: Path, lists: Path) -> None:
    with pytest.raises(DiffusionSegmentError) as caught:
        discover(lists, tmp_path / "nothing")
    assert caught.value.code is ErrorCode.INPUT_MISSING


def test_a_file_that_is_no_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("abc")
    with pytest.raises(DiffusionSegmentError, match="no key"):
        read_pseudonyms(tmp_path / "key")
