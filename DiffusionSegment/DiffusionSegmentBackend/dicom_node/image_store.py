"""The files of a node: received images by series, and a folder for each job. Only the node's user can read them."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

_PRIVATE = 0o700
_DELETED = ".deleted-"


class ImageStore:
    """Files below a folder. Names are digests or random, so that no path identifies a patient or an examination."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._images, self._jobs = folder / "images", folder / "jobs"
        for path in (folder, self._images, self._jobs):
            path.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
            path.chmod(_PRIVATE)
        self._remove_deleted()

    def free_bytes(self) -> int:
        """Free space on the disk of the folder."""
        return shutil.disk_usage(self._folder).free

    def path_of(self, series_uid: str, sop_uid: str) -> Path:
        """The file of an image."""
        return self._images / _name(series_uid) / f"{_name(sop_uid)}.dcm"

    def put(self, path: Path, data: bytes) -> None:
        """Write an image durably: it is either whole on the disk or absent, also after a loss of power.

        Raises:
            OSError: the disk is full or cannot be written.
        """
        path.parent.mkdir(mode=_PRIVATE, exist_ok=True)
        partial = path.with_name(f".{uuid.uuid4().hex}.partial")
        try:
            with open(partial, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise

    def job_folder(self, job_id: str) -> Path:
        """The folder of a job, which is created if it does not exist."""
        folder = self._jobs / job_id
        folder.mkdir(mode=_PRIVATE, exist_ok=True)
        return folder

    def link_images(self, series_uid: str, sop_uids: Sequence[str], folder: Path) -> None:
        """A folder with links to these images alone: others of the series may arrive meanwhile."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=_PRIVATE)
        for number, sop_uid in enumerate(sop_uids, start=1):
            os.link(self.path_of(series_uid, sop_uid), folder / f"{number:06d}.dcm")

    def remove_job(self, job_id: str) -> None:
        """Delete the folder of a job."""
        shutil.rmtree(self._jobs / job_id, ignore_errors=True)

    def remove_series(self, series_uid: str) -> None:
        """Delete the images of a series; the folder disappears at once, before its files."""
        folder = self._images / _name(series_uid)
        if folder.exists():
            os.replace(folder, self._folder / f"{_DELETED}{uuid.uuid4().hex}")
        self._remove_deleted()

    def _remove_deleted(self) -> None:
        for folder in self._folder.glob(f"{_DELETED}*"):
            shutil.rmtree(folder, ignore_errors=True)


def _name(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:32]
