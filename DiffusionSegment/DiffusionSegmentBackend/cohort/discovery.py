"""The scans of a cohort: DICOM series anywhere below a folder, image files, or the rows of a manifest."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.dicom_series import dicom_paths
from .dicom_scans import DicomLister
from .keys import file_stamp
from .manifest import SUFFIXES as MANIFEST_SUFFIXES
from .manifest import ManifestEntry, read_manifest
from .pseudonyms import Pseudonyms
from .scan import CohortScan, Identifiers, Unfit

_IMAGE_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
_COPY = Unfit(code=ErrorCode.OPTION.value, reason="It is a copy of another scan of the cohort.")


@dataclass(frozen=True)
class Discovery:
    """Lists scans under pseudonyms; `lister` writes the lists of DICOM files; `excluded` is the cohort's own folder."""

    pseudonyms: Pseudonyms
    lister: DicomLister
    excluded: Path

    def scans(self, sources: Sequence[Path]) -> Iterator[CohortScan]:
        """All scans of the sources, fit or not, in a fixed order; of equal ones the later are marked as copies.

        Raises:
            DiffusionSegmentError: INPUT_MISSING, INPUT_UNREADABLE for a manifest or a folder that cannot be read.
        """
        seen: dict[str, int] = {}
        for source in sources:
            for scan in self._of_source(source):
                count = seen[scan.scan_id] = seen.get(scan.scan_id, 0) + 1
                if count > 1:
                    scan = replace(scan, scan_id=f"{scan.scan_id}-{count}", unfit=_COPY)
                yield scan

    def _of_source(self, source: Path) -> Iterator[CohortScan]:
        if not source.exists():
            raise DiffusionSegmentError(ErrorCode.INPUT_MISSING, f"{source} does not exist.", hint="Check the path.")
        if source.suffix.lower() in MANIFEST_SUFFIXES and source.is_file():
            for entry in read_manifest(source):
                yield from self._of_entry(entry)
        elif source.is_dir():
            for unit in _units(source, self.excluded):
                yield from self._of_files(unit, source)
        else:
            yield from self._of_files([source], source.parent)

    def _of_entry(self, entry: ManifestEntry) -> Iterator[CohortScan]:
        if not entry.path.exists():
            yield self._missing(entry)
            return
        files = dicom_paths(entry.path)
        found = [
            scan
            for scan in self._of_files(files, entry.path if entry.path.is_dir() else entry.path.parent)
            if entry.series in (None, scan.identifiers.series_uid, scan.series)
        ]
        patient = self.pseudonyms.of("patient", entry.patient)
        for scan in found:
            identifiers = replace(scan.identifiers, patient_id=entry.patient or scan.identifiers.patient_id)
            yield replace(scan, patient=patient or scan.patient, identifiers=identifiers)
        if not found:
            yield self._missing(entry)

    def _missing(self, entry: ManifestEntry) -> CohortScan:
        path = str(entry.path.absolute())
        return CohortScan(
            scan_id=self.pseudonyms.of("scan", f"{path}\0{entry.series or ''}"),
            source=path,
            identifiers=Identifiers(path=path, patient_id=entry.patient, series_uid=entry.series or ""),
            patient=self.pseudonyms.of("patient", entry.patient),
            unfit=Unfit(code=ErrorCode.INPUT_MISSING.value, reason="The manifest names it, and it does not exist."),
        )

    def _of_files(self, files: Sequence[Path], folder: Path) -> Iterator[CohortScan]:
        others = []
        for path in files:
            if path.name.lower().endswith(_IMAGE_SUFFIXES):
                yield self._of_image(path)
            else:
                others.append(path)
        if others:
            yield from self.lister.scans(others, folder)

    def _of_image(self, path: Path) -> CohortScan:
        name = str(path.absolute())
        return CohortScan(
            scan_id=self.pseudonyms.of("scan", name),
            source=name,
            identifiers=Identifiers(path=name),
            stamp=file_stamp([path]),
        )


def _units(folder: Path, excluded: Path) -> Iterator[list[Path]]:
    """The files of each sub-folder, such as those of a patient, and those of the folder itself.

    A series is looked for within one of them, so that the headers of one are in memory at a time.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_UNREADABLE, f"{folder} cannot be read ({error.strerror}).", hint="Check its permissions."
        ) from error
    visible = [entry for entry in entries if not entry.name.startswith(".")]
    own = [Path(entry.path) for entry in visible if entry.is_file() and entry.name.upper() != "DICOMDIR"]
    if own:
        yield own
    for entry in visible:
        if entry.is_dir() and Path(entry.path).resolve() != excluded.resolve():
            yield [path for path in dicom_paths(Path(entry.path)) if excluded.resolve() not in path.resolve().parents]
