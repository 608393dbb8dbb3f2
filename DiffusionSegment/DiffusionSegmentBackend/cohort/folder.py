"""The folder of a cohort: what is where. Everything that identifies a patient is in `private`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import DiffusionSegmentError, ErrorCode, from_os_error
from ..imaging.atomic_writes import check_writable

PAGE = "index.html"
TABLES = ("scans", "organs", "regions")
CODEBOOK = "codebook.csv"


@dataclass(frozen=True)
class CohortFolder:
    """Paths below `root`."""

    root: Path

    @property
    def private(self) -> Path:
        """Key of the pseudonyms, journal, lists of files, and which scan is which: not to be shared."""
        return self.root / "private"

    @property
    def journal(self) -> Path:
        """The outcomes of all scans so far."""
        return self.private / "journal.jsonl"

    @property
    def lists(self) -> Path:
        """A list of files for each DICOM series."""
        return self.private / "files"

    def result(self, scan_id: str) -> Path:
        """The result folder of a scan."""
        return self.root / "scans" / scan_id

    def thumbnail(self, scan_id: str) -> Path:
        """The picture of a scan."""
        return self.root / "thumbnails" / f"{scan_id}.png"

    def dicom_seg(self, scan_id: str) -> Path:
        """The DICOM SEG of a scan."""
        return self.root / "dicom-seg" / f"{scan_id}.dcm"


def prepare_folder(root: Path, *, resume: bool) -> CohortFolder:
    """Create the folders of a cohort; `private` is accessible to its owner alone.

    Raises:
        DiffusionSegmentError: OUTPUT_UNWRITABLE for a folder with other files, or with a cohort without `resume`,
            DISK_FULL.
    """
    folder = CohortFolder(root)
    check_writable(root)
    try:
        names = [name for name in os.listdir(root) if not name.startswith(".")] if root.is_dir() else []
        earlier = folder.private.is_dir()
        if earlier and not resume and folder.journal.exists():
            raise DiffusionSegmentError(
                ErrorCode.OUTPUT_UNWRITABLE,
                f"{root} holds a cohort.",
                hint="Add --resume to go on with it, or choose another folder.",
            )
        if names and not earlier:
            raise DiffusionSegmentError(
                ErrorCode.OUTPUT_UNWRITABLE, f"{root} holds files, but no cohort.", hint="Choose another folder."
            )
        for path in (folder.private, folder.lists):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.private.chmod(0o700)
        for path in (folder.result("-").parent, folder.thumbnail("-").parent):
            path.mkdir(exist_ok=True)
    except OSError as error:
        raise from_os_error(error, root) from error
    return folder
