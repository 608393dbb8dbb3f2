"""The scan is written for the worker once: later requests on the same voxels reuse the file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol.buffers import open_buffer
from DiffusionSegmentBackend.protocol.messages import VolumeReference
from DiffusionSegmentLib.worker.scan_file import ScanFile

from .conftest import Session

ARRAY = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
GEOMETRY = np.diag([1.0, 2.0, 3.0, 1.0])


class Store:
    """A scan file in a folder, with numbered requests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = ScanFile()
        self._count = 0

    def put(
        self, array: np.ndarray = ARRAY, geometry: np.ndarray = GEOMETRY, *, version: int | None = 1
    ) -> VolumeReference:
        self._count += 1
        return self.file.put(self.folder, array, geometry, version=version, requestId=str(self._count))

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_the_same_version_is_written_once(store: Store) -> None:
    first = store.put()
    written = os.stat(first.path).st_mtime_ns
    assert store.put() == first
    assert os.stat(first.path).st_mtime_ns == written
    assert store.names == ["scan-1.raw"]


def test_a_scan_with_only_another_geometry_keeps_its_file(store: Store) -> None:
    first, moved = store.put(), store.put(geometry=np.eye(4))
    assert moved.path == first.path
    assert moved.ijk_to_lps == tuple(np.eye(4).ravel())


def test_another_version_replaces_the_file_of_the_version_before(store: Store) -> None:
    store.put()
    second = store.put(ARRAY + 1, version=2)
    assert store.names == ["scan-2.raw"]
    np.testing.assert_array_equal(open_buffer(second), ARRAY + 1)


def test_voxels_that_the_worker_has_mapped_are_not_overwritten(store: Store) -> None:
    mapped = open_buffer(store.put())
    store.put(ARRAY + 1, version=2)
    np.testing.assert_array_equal(mapped, ARRAY)


def test_without_a_version_a_file_belongs_to_its_request(store: Store) -> None:
    reference = store.put(version=None)
    assert not store.file.keeps(reference)
    assert store.put(version=None).path != reference.path


@pytest.mark.parametrize("damage", ["removed", "shortened"])
def test_a_damaged_file_is_written_again(store: Store, damage: str) -> None:
    path = Path(store.put().path)
    path.unlink() if damage == "removed" else path.write_bytes(b"x")
    np.testing.assert_array_equal(open_buffer(store.put()), ARRAY)


def test_another_shape_or_type_with_the_same_version_is_written(store: Store) -> None:
    store.put()
    np.testing.assert_array_equal(open_buffer(store.put(ARRAY.astype(np.float32))), ARRAY)
    np.testing.assert_array_equal(open_buffer(store.put(ARRAY.reshape(5, 4, 3))), ARRAY.reshape(5, 4, 3))


def test_an_unwritable_folder_is_reported_and_the_next_request_writes(store: Store, tmp_path: Path) -> None:
    good = store.folder
    store.folder = tmp_path / "missing"
    with pytest.raises(DiffusionSegmentError) as caught:
        store.put()
    assert caught.value.code is ErrorCode.OUTPUT_UNWRITABLE
    store.folder = good
    np.testing.assert_array_equal(open_buffer(store.put()), ARRAY)


def test_a_client_keeps_the_scan_between_requests_and_removes_it_at_the_end(session: Session) -> None:
    session.segment(version=5)
    session.first("finished")
    session.events.clear()
    (kept,) = [name for name in session.files() if name.startswith("scan-")]
    session.segment(version=5)
    result = session.first("finished")
    np.testing.assert_array_equal(open_buffer(result.labels), session.array > 0)
    assert [name for name in session.files() if name.startswith("scan-")] == [kept]
    folder = session.client._folder
    session.client.close()
    assert folder is not None
    assert not folder.exists()
    session.events.clear()
    session.segment(version=5)
    session.first("finished")


def test_a_worker_reads_the_scan_again_after_a_crash(session: Session) -> None:
    session.segment(version=5, organs=("crash",))
    session.first("failed")
    session.events.clear()
    session.segment(version=5)
    session.first("finished")
    assert len([name for name in session.files() if name.startswith("scan-")]) == 1
