"""C-STORE and C-ECHO: who may send what, and the statuses of refusals."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from DiffusionSegmentBackend.dicom_node.ledger import JobState
from DiffusionSegmentBackend.dicom_node.settings import Listener, Peer
from fixtures.dicom_files import item, save
from fixtures.dicom_phantom import write_phantom_series
from fixtures.orthanc import free_port

from .conftest import LIMITS, RunningNode
from .sending import SENDER, associate, files_of, send

StartNode = Callable[..., RunningNode]
NO_SPACE = 0xA700


@pytest.fixture
def scan(tmp_path: Path) -> list[Path]:
    return files_of(write_phantom_series(tmp_path / "scan", "received"))


def listener(*peers: Peer, **changes: object) -> Listener:
    return replace(Listener(port=free_port(), host="127.0.0.1", peers=peers), **changes)  # type: ignore[arg-type]


def test_echo_is_answered(start_node: StartNode) -> None:
    association = associate(start_node().port)
    assert association.send_c_echo().Status == 0
    association.release()


@pytest.mark.parametrize(
    ("peer", "caller", "called", "accepted"),
    [
        (Peer(aet=SENDER), SENDER, "DIFFSEG", True),
        (Peer(aet=SENDER, host="localhost"), SENDER, "DIFFSEG", True),
        (Peer(aet=SENDER, host="127.0.0.2"), SENDER, "DIFFSEG", False),
        (Peer(aet=SENDER), "SOMEBODY", "DIFFSEG", False),
        (Peer(aet=SENDER), SENDER, "OTHER", False),
    ],
)
def test_only_known_peers_that_call_the_node_by_its_title_are_accepted(
    start_node: StartNode, peer: Peer, caller: str, called: str, accepted: bool
) -> None:
    association = associate(start_node(listener=listener(peer)).port, aet=caller, called=called)
    assert (association.is_established, association.is_rejected) == (accepted, not accepted)
    if accepted:
        association.release()


def test_more_associations_than_allowed_are_rejected(start_node: StartNode) -> None:
    node = start_node(listener=listener(Peer(aet=SENDER), max_associations=2))
    opened = [associate(node.port) for _ in range(3)]
    assert [association.is_established for association in opened] == [True, True, False]
    for association in opened[:2]:
        association.release()


def test_a_full_disk_is_out_of_resources(start_node: StartNode, scan: list[Path]) -> None:
    node = start_node(limits=replace(LIMITS, min_free_bytes=2**60))
    assert send(node.port, scan[:2]) == [NO_SPACE, NO_SPACE]
    assert node.jobs() == []
    assert node.node.status().faults == ("the disk is full",)


def test_a_full_queue_refuses_new_series_alone(start_node: StartNode, scan: list[Path], tmp_path: Path) -> None:
    other = files_of(write_phantom_series(tmp_path / "other", "other"))
    node = start_node(limits=replace(LIMITS, max_queue=1))
    (node.control / "hold").touch()
    assert send(node.port, [scan[0], other[0], scan[1]]) == [0, NO_SPACE, 0]
    assert node.node.status().images["refused: queue"] == 1


def test_the_first_of_two_images_with_one_uid_is_kept(start_node: StartNode, scan: list[Path], tmp_path: Path) -> None:
    node = start_node()
    changed = pydicom.dcmread(scan[0])
    changed.PatientName = "Somebody^Else"
    changed.save_as(tmp_path / "changed.dcm")
    assert send(node.port, [scan[0], tmp_path / "changed.dcm"]) == [0, 0]
    assert node.node.status().images["conflict"] == 1
    (stored,) = (tmp_path / "node" / "images").rglob("*.dcm")
    assert pydicom.dcmread(stored).PatientName == "Phantom^A"


def test_an_image_without_valid_uids_is_not_understood(start_node: StartNode, scan: list[Path], tmp_path: Path) -> None:
    image = pydicom.dcmread(scan[0])
    image.SeriesInstanceUID = ""
    image.save_as(tmp_path / "no_series.dcm")
    assert send(start_node().port, [tmp_path / "no_series.dcm"]) == [0xC000]


def test_damaged_headers_are_survived(start_node: StartNode, scan: list[Path], tmp_path: Path) -> None:
    node = start_node()
    image = pydicom.dcmread(scan[0])
    image.ImagePositionPatient, image.NumberOfFrames = ["1", "2"], 10**9
    image.add_new((0x0009, 0x0010), "LO", "PRIVATE")
    image.RequestAttributesSequence = item(ScheduledProcedureStepID="x" * 60000)
    send(node.port, [save(image, tmp_path / "odd.dcm"), scan[1]])
    assert len(node.jobs(JobState.RECEIVING)) == 1


def test_images_are_private_and_named_by_digests(start_node: StartNode, scan: list[Path], tmp_path: Path) -> None:
    node = start_node()
    (node.control / "hold").touch()
    send(node.port, scan)
    paths = list((tmp_path / "node").rglob("*"))
    assert len([path for path in paths if path.suffix == ".dcm"]) >= len(scan)
    image = pydicom.dcmread(scan[0])
    for value in (image.SeriesInstanceUID, image.StudyInstanceUID, image.PatientID):
        assert not any(value in str(path.relative_to(tmp_path)) for path in paths)
    folders = [path for path in (tmp_path / "node", *paths) if path.is_dir()]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}
