"""What travels between discovery, dispatcher and workers: scans, jobs, and the outcomes of attempts."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..protocol.requests import SegmentFiles


@dataclass(frozen=True, kw_only=True)
class Identifiers:
    """What identifies a scan outside this cohort: its path, and for DICOM patient, study and series."""

    path: str
    patient_id: str = ""
    study_uid: str = ""
    series_uid: str = ""


@dataclass(frozen=True, kw_only=True)
class Acquisition:
    """How a DICOM series was acquired, as its header states it; empty where it does not."""

    modality: str = ""
    manufacturer: str = ""
    kernel: str = ""
    kvp: str = ""
    contrast: str = ""
    slice_thickness_mm: str = ""


@dataclass(frozen=True, kw_only=True)
class Unfit:
    """Why a scan is not segmented: the code of an error, and a sentence without a name, path or UID."""

    code: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class CohortScan:
    """One scan of a cohort.

    `scan_id`, `patient` and `study` are pseudonyms. `source` is what a worker reads: the scan's file, or a list of
    DICOM files, of which `series` selects one stack. `stamp` changes with the names, sizes and times of the files.
    """

    scan_id: str
    source: str
    identifiers: Identifiers
    patient: str = ""
    study: str = ""
    series: str | None = None
    stamp: str = ""
    slices: int = 0
    acquisition: Acquisition = Acquisition()
    unfit: Unfit | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """One attempt to segment a scan: the request, and the seconds after which the attempt is ended."""

    scan_id: str
    request: SegmentFiles
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a scan; `code` is that of its error, empty if its result folder is complete.

    `key`, `shape` (k, j, i), `spacing_mm` (i, j, k) and `cut` are those of the answer `FilesSegmented`; `stamp` and
    `settings` those of the scan and the cohort. `message` may contain paths and must not leave the private folder.
    """

    scan_id: str
    code: str = ""
    message: str = ""
    attempts: int = 1
    seconds: float = 0.0
    key: str = ""
    stamp: str = ""
    settings: str = ""
    shape: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    cut: tuple[str, ...] = field(default=())
    kept: bool = False
