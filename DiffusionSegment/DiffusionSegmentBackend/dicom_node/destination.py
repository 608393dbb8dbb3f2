"""Where results go: the operations that a node needs of an archive, by C-STORE or by DICOMweb."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pydicom


class TransferError(Exception):
    """An archive could not be reached, or refused an object; `code` says why, without any value of a header."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, kw_only=True)
class ObjectName:
    """The UIDs by which an archive knows an object."""

    study_uid: str
    series_uid: str
    sop_uid: str
    sop_class_uid: str


class Destination(Protocol):
    """An archive."""

    def send(self, files: Sequence[Path]) -> None:
        """Store the objects in these files.

        Raises:
            TransferError: not all were accepted.
        """

    def has(self, names: Sequence[ObjectName]) -> bool | None:
        """Whether the archive has all these objects; None if it cannot be asked.

        Raises:
            TransferError: it did not answer.
        """

    def images_of(self, study_uid: str, series_uid: str) -> int | None:
        """How many images the archive has of a series; None if it does not know.

        Raises:
            TransferError: it did not answer.
        """


def name_of(file: Path) -> ObjectName:
    """The UIDs of the object in a file."""
    header = pydicom.dcmread(file, stop_before_pixels=True)
    return ObjectName(
        study_uid=str(header.StudyInstanceUID),
        series_uid=str(header.SeriesInstanceUID),
        sop_uid=str(header.SOPInstanceUID),
        sop_class_uid=str(header.SOPClassUID),
    )
