"""A node between a scanner and a real archive: results under their study, right, valid, and each once."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from DiffusionSegmentBackend.dicom_node.ledger import JobState
from DiffusionSegmentBackend.dicom_node.settings import WORKER_COMMAND, Listener, Peer, address
from DiffusionSegmentBackend.imaging.volume_io import read_volume
from DiffusionSegmentBackend.models.manifest import read_description
from DiffusionSegmentBackend.schema.run_options import RunOptions
from fixtures.dicom_phantom import write_phantom_series
from fixtures.dicom_seg import labels_on_scan
from fixtures.orthanc import free_port, running_orthanc
from fixtures.tiny_model import coarse_phantom
from highdicom.seg import segread
from pydicom.uid import RLELossless

from .conftest import Site, running_node
from .sending import files_of, send
from .stand_in_worker import stand_in_labels

CONTAINERS = Path(__file__).resolve().parents[2] / "containers" / "orthanc"


def results_of(site: Site, scan: Path, modality: str) -> list[pydicom.FileDataset]:
    """The objects of a modality that the archive has in the study of a scan."""
    study = pydicom.dcmread(files_of(scan)[0]).StudyInstanceUID
    query = {"Level": "Instance", "Query": {"StudyInstanceUID": str(study), "Modality": modality}}
    return [pydicom.dcmread(BytesIO(site.archive.file(name))) for name in site.archive.ask("/tools/find", query)]


def answered(site: Site, scan: Path) -> bool:
    return all(len(results_of(site, scan, modality)) == 1 for modality in ("SEG", "DOC"))


def all_ended(site: Site, scan: Path, jobs: int = 1) -> None:
    """Wait until all jobs of a series have ended, and there are as many as expected."""
    series = str(pydicom.dcmread(files_of(scan)[0]).SeriesInstanceUID)

    def ended() -> bool:
        own = [job for job in site.node.jobs() if job.series_uid == series]
        return len(own) == jobs and all(job.state in (JobState.DONE, JobState.REJECTED) for job in own)

    site.node.until(ended)


def test_result_and_report_return_to_the_study_of_the_scan(site: Site, tmp_path: Path, tiny_model: Path) -> None:
    scan = write_phantom_series(tmp_path / "scan", "whole")
    site.archive.upload(scan)
    site.archive.send_to_node([series["ID"] for series in site.archive.series("CT")])
    all_ended(site, scan)
    (segmentation,), (document,) = results_of(site, scan, "SEG"), results_of(site, scan, "DOC")
    segmentation.save_as(tmp_path / "seg.dcm")
    values = {label.name: label.value for label in read_description(tiny_model).labels}
    expected = stand_in_labels(read_volume(scan).array)
    assert len(np.unique(expected)) == 4
    np.testing.assert_array_equal(labels_on_scan(tmp_path / "seg.dcm", scan, values), expected)
    assert document.EncapsulatedDocument.startswith(b"%PDF")
    assert (document.PatientName, document.PatientID, document.AccessionNumber) == ("Phantom^A", "P1", "A1")
    assert document.SourceInstanceSequence[0].ReferencedSOPInstanceUID == segmentation.SOPInstanceUID
    assert [job.verified for job in site.node.jobs(JobState.DONE)] == [True]


@pytest.mark.parametrize("modality", ["SEG", "DOC"])
def test_results_are_valid(site: Site, tmp_path: Path, modality: str) -> None:
    scan = write_phantom_series(tmp_path / "scan", "valid")
    send(site.node.port, files_of(scan))
    site.node.until(lambda: answered(site, scan))
    results_of(site, scan, modality)[0].save_as(tmp_path / "result.dcm")
    assert complaints(tmp_path / "result.dcm") == []


def complaints(path: Path) -> list[str]:
    """What the validator of the standard says of a file beyond the name of its IOD."""
    checked = subprocess.run(["dciodvfy", str(path)], capture_output=True, encoding="utf-8", check=False)
    lines = checked.stderr.splitlines()
    assert lines, "the validator said nothing"
    return lines[1:] if lines[0] in ("Segmentation", "EncapsulatedPDF") else lines


def test_a_study_that_is_sent_twice_is_answered_once(site: Site, tmp_path: Path) -> None:
    scan = write_phantom_series(tmp_path / "scan", "twice")
    runs = site.node.runs
    for _ in range(2):
        send(site.node.port, files_of(scan))
        all_ended(site, scan)
    assert site.node.runs == runs + 1
    assert answered(site, scan)


def test_results_that_come_back_start_nothing(site: Site, tmp_path: Path) -> None:
    scan = write_phantom_series(tmp_path / "scan", "loop")
    send(site.node.port, files_of(scan))
    site.node.until(lambda: answered(site, scan))
    site.archive.upload(scan)
    jobs, own = len(site.node.jobs()), site.node.node.status().images["own result"]
    study = next(s["ParentStudy"] for s in site.archive.series("CT") if s["Instances"] and in_study(s, scan))
    site.archive.send_to_node([study])
    assert len(site.node.jobs()) == jobs
    assert site.node.node.status().images["own result"] == own + 2


def in_study(series: dict[str, Any], scan: Path) -> bool:
    return bool(series["MainDicomTags"]["SeriesInstanceUID"] == pydicom.dcmread(files_of(scan)[0]).SeriesInstanceUID)


def test_a_series_that_is_cut_off_and_sent_again_is_answered_once(site: Site, tmp_path: Path) -> None:
    scan = write_phantom_series(tmp_path / "scan", "cut off")
    files = files_of(scan)
    send(site.node.port, files[: len(files) // 2], abort=True)
    send(site.node.port, files)
    all_ended(site, scan)
    assert answered(site, scan)
    assert len(referenced(results_of(site, scan, "SEG")[0])) == len(files)


def referenced(segmentation: pydicom.Dataset) -> set[str]:
    items = segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    return {str(item.ReferencedSOPInstanceUID) for item in items}


def test_a_series_that_stays_cut_off_is_answered_as_incomplete(site: Site, tmp_path: Path) -> None:
    scan = write_phantom_series(tmp_path / "scan", "stays cut off")
    files = files_of(scan)
    send(site.node.port, files[:15], abort=True)
    all_ended(site, scan)
    (segmentation,) = results_of(site, scan, "SEG")
    assert len(referenced(segmentation)) == 15
    # The rest replaces it by another object, and the report says so.
    send(site.node.port, files[15:])
    all_ended(site, scan, jobs=2)
    found = {len(referenced(one)): one for one in results_of(site, scan, "SEG")}
    assert set(found) == {15, len(files)}
    assert found[15].SOPInstanceUID != found[len(files)].SOPInstanceUID


def test_two_series_on_four_associations_do_not_mix(site: Site, tmp_path: Path) -> None:
    scans = [write_phantom_series(tmp_path / name, name, volume=coarse_phantom(seed)) for seed, name in enumerate("ab")]
    parts = [files_of(scan)[start::2] for scan in scans for start in (0, 1)]
    threads = [threading.Thread(target=send, args=(site.node.port, part)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for scan in scans:
        all_ended(site, scan)
        assert referenced(results_of(site, scan, "SEG")[0]) == {
            str(pydicom.dcmread(path).SOPInstanceUID) for path in files_of(scan)
        }


def test_compressed_images_are_read(site: Site, tmp_path: Path, tiny_model: Path) -> None:
    scan = write_phantom_series(tmp_path / "scan", "compressed")
    shutil.copytree(scan, tmp_path / "plain")
    for path in files_of(scan):
        image = pydicom.dcmread(path)
        image.compress(RLELossless, generate_instance_uid=False)
        image.save_as(path)
    send(site.node.port, files_of(scan))
    all_ended(site, scan)
    results_of(site, scan, "SEG")[0].save_as(tmp_path / "seg.dcm")
    values = {label.name: label.value for label in read_description(tiny_model).labels}
    expected = stand_in_labels(read_volume(tmp_path / "plain").array)
    np.testing.assert_array_equal(labels_on_scan(tmp_path / "seg.dcm", scan, values), expected)


@pytest.mark.parametrize(
    ("name", "slices", "tags"),
    [
        ("mr", 28, {"Modality": "MR"}),
        ("scout", 28, {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}),
        ("reformatted", 28, {"ImageType": ["DERIVED", "SECONDARY", "MPR"]}),
        ("few", 4, {}),
        ("no HU", 28, {"RescaleSlope": None, "RescaleIntercept": None}),
    ],
)
def test_series_that_do_not_fit_have_no_result(
    site: Site, tmp_path: Path, name: str, slices: int, tags: dict[str, Any]
) -> None:
    scan = write_phantom_series(tmp_path / "scan", name, **tags)
    assert set(send(site.node.port, files_of(scan)[:slices])) == {0}
    site.node.until_idle()
    assert results_of(site, scan, "SEG") == []


def test_the_archive_of_the_compose_file_forwards_by_itself(tmp_path: Path, tiny_model: Path) -> None:
    settings = json.loads((CONTAINERS / "orthanc.json").read_text(encoding="utf-8"))
    port = free_port()
    ((name, (aet, _, _)),) = settings["DicomModalities"].items()
    base = {key: settings[key] for key in ("DicomAet", "OverwriteInstances", "DicomCheckCalledAet", "DicomWeb")}
    base |= {"DicomModalities": {name: [aet, "127.0.0.1", port]}, "LuaScripts": [str(CONTAINERS / "forward.lua")]}
    listener = Listener(port=port, host="127.0.0.1", peers=(Peer(aet=settings["DicomAet"]),))
    with running_orthanc(tmp_path / "archive", base=base) as archive:
        forward = address(archive.address)
        with running_node(tmp_path, tiny_model, listener=listener, forward=forward) as node:
            archive.upload(write_phantom_series(tmp_path / "scan", "forwarded"))
            node.until_idle()
            assert [len(archive.series(modality)) for modality in ("SEG", "DOC")] == [1, 1]


def test_the_installed_model_answers_with_valid_objects(tmp_path: Path, tiny_model: Path) -> None:
    changes = {"worker": WORKER_COMMAND, "options": RunOptions(device="cpu", samples=1, steps=1, force=True)}
    with running_orthanc(tmp_path / "archive") as archive:
        forward = address(archive.address)
        with running_node(tmp_path, tiny_model, forward=forward, **changes) as node:
            send(node.port, files_of(write_phantom_series(tmp_path / "scan", "installed model")))
            node.until_idle()
        for modality in ("SEG", "DOC"):
            (series,) = archive.series(modality)
            path = tmp_path / f"{modality}.dcm"
            path.write_bytes(archive.file(series["Instances"][0]))
            assert complaints(path) == []
    assert segread(tmp_path / "SEG.dcm").number_of_segments > 5
