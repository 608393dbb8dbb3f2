"""The node that fetches: new series found by QIDO, images by WADO, results by STOW, against a real archive."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from DiffusionSegmentBackend.dicom_node.destination import TransferError
from DiffusionSegmentBackend.dicom_node.dicomweb_archive import DicomwebArchive
from DiffusionSegmentBackend.dicom_node.intake import TOO_FEW_IMAGES
from DiffusionSegmentBackend.dicom_node.ledger import JobState, Origin
from DiffusionSegmentBackend.dicom_node.settings import Dicomweb
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from fixtures.dicom_phantom import write_phantom_series
from fixtures.orthanc import Orthanc, free_port, running_orthanc

from .conftest import LIMITS, RunningNode

StartNode = Callable[..., RunningNode]
TODAY = f"{datetime.date.today():%Y%m%d}"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running_orthanc(tmp_path_factory.mktemp("archive")) as running:
        yield running


@pytest.fixture
def empty(archive: Orthanc) -> Orthanc:
    for study in archive.ask("/studies"):
        archive.ask(f"/studies/{study}", method="DELETE")
    return archive


def fetching(archive: Orthanc, **limits: object) -> dict[str, object]:
    service = Dicomweb(url=archive.dicomweb)
    changed = replace(LIMITS, **limits)  # type: ignore[arg-type]
    return {"dicomweb": service, "listener": None, "forward": None, "limits": changed}


# Every series has too few images to be segmented, and its job ends at once.
NO_RUN = {"min_slices": 1000}


def test_new_series_are_fetched_and_answered_once(start_node: StartNode, empty: Orthanc, tmp_path: Path) -> None:
    empty.upload(write_phantom_series(tmp_path / "scan", "new", StudyDate=TODAY))
    empty.upload(write_phantom_series(tmp_path / "scout", "scout", StudyDate=TODAY, ImageType=["X", "Y", "LOCALIZER"]))
    empty.upload(write_phantom_series(tmp_path / "old", "old", StudyDate="20200101"))
    empty.upload(write_phantom_series(tmp_path / "mr", "mr", StudyDate=TODAY, Modality="MR"))
    node = start_node(**fetching(empty))
    node.until_idle(jobs=2)
    assert {job.code: job.state for job in node.jobs()} == {"": JobState.DONE, "SET_ASIDE": JobState.REJECTED}
    (done,) = node.jobs(JobState.DONE)
    assert (done.origin, done.verified) == (Origin.DICOMWEB, True)
    (segmentation,) = empty.series("SEG")
    scan = next(s for s in empty.series("CT") if s["MainDicomTags"]["SeriesInstanceUID"] == done.series_uid)
    assert segmentation["ParentStudy"] == scan["ParentStudy"]
    # Further searches find the results and the same images, and fetch nothing.
    counts = dict(node.node.status().images)
    time.sleep(1.0)
    assert dict(node.node.status().images) == counts
    assert len(node.jobs()) == 2
    assert [len(empty.series(modality)) for modality in ("SEG", "DOC")] == [1, 1]


def test_a_series_that_grows_in_the_archive_is_fetched_when_it_stops(
    start_node: StartNode, empty: Orthanc, tmp_path: Path
) -> None:
    scan = write_phantom_series(tmp_path / "scan", "growing", StudyDate=TODAY)
    node = start_node(**fetching(empty, **NO_RUN))
    for path in sorted(scan.glob("*.dcm")):
        empty.ask("/instances", data=path.read_bytes())
        time.sleep(0.05)
    node.until_idle()
    (job,) = node.jobs()
    assert (job.code, job.listed, job.expected) == (TOO_FEW_IMAGES, 28, 28)


def test_the_record_of_a_fetched_series_outlives_its_images(
    start_node: StartNode, empty: Orthanc, tmp_path: Path
) -> None:
    empty.upload(write_phantom_series(tmp_path / "scan", "kept", StudyDate=TODAY))
    node = start_node(**fetching(empty, **NO_RUN, retention_s=0.5))
    node.until_idle()
    node.until(lambda: not list((tmp_path / "node").rglob("*.dcm")))
    time.sleep(0.5)
    assert [job.state for job in node.jobs()] == [JobState.REJECTED]
    assert node.node.status().images["new"] == 28


def test_an_archive_that_is_down_is_asked_again(start_node: StartNode, tmp_path: Path) -> None:
    ports = Orthanc(free_port(), free_port())
    node = start_node(**fetching(ports, **NO_RUN))
    time.sleep(0.5)
    with running_orthanc(tmp_path / "archive", ports=ports) as archive:
        archive.upload(write_phantom_series(tmp_path / "scan", "late", StudyDate=TODAY))
        node.until_idle()


def test_what_an_archive_answers_badly_is_a_failed_transfer(tmp_path: Path, archive: Orthanc) -> None:
    wrong = DicomwebArchive(Dicomweb(url=f"http://127.0.0.1:{archive.http}/no-dicom-web"))
    with pytest.raises(TransferError) as caught:
        wrong.images_of("1.2", "1.3")
    assert caught.value.code == "HTTP_404"
    absent = DicomwebArchive(Dicomweb(url=f"http://127.0.0.1:{free_port()}/dicom-web"))
    with pytest.raises(TransferError) as caught:
        absent.images_of("1.2", "1.3")
    assert caught.value.code == "UNREACHABLE"


@pytest.mark.parametrize(
    ("service", "code"),
    [
        (Dicomweb(url="archive"), ErrorCode.OPTION),
        (Dicomweb(url="http://a/b", authorization_file=Path("/nowhere/token")), ErrorCode.INPUT_MISSING),
        (Dicomweb(url="http://a/b", authorities=Path("/nowhere/ca.pem")), ErrorCode.INPUT_MISSING),
    ],
)
def test_wrong_settings_are_refused(service: Dicomweb, code: ErrorCode) -> None:
    with pytest.raises(DiffusionSegmentError) as caught:
        DicomwebArchive(service)
    assert caught.value.code is code
