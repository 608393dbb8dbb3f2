"""The scans in DICOM files: one for each stack of slices, and for each series without one, with the reason."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from ..errors import ErrorCode
from ..imaging.atomic_writes import staged_file
from ..imaging.dicom_headers import DicomFile
from ..imaging.dicom_series import Candidate, SeriesList, list_series
from ..imaging.dicom_values import DAMAGE, lenient, text
from .keys import file_stamp
from .pseudonyms import Pseudonyms
from .reasons import reason_of
from .scan import Acquisition, CohortScan, Identifiers, Unfit

# Localizers have fewer slices, and organs need more.
MIN_SLICES = 6
_TAGS = (
    *("SpecificCharacterSet", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "Manufacturer"),
    *("ConvolutionKernel", "KVP", "ContrastBolusAgent", "SliceThickness"),
)
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9 ._+-]")
_MAX_TEXT = 40


@dataclass(frozen=True)
class DicomLister:
    """Lists the scans in DICOM files.

    `modality` is that of the model. `lists` is the folder for the lists of files, which are as private as the scans.
    With `force`, the values of a CT need not be HU.
    """

    pseudonyms: Pseudonyms
    lists: Path
    modality: str
    force: bool = False

    def scans(self, files: Sequence[Path], folder: Path) -> Iterator[CohortScan]:
        """One scan for each stack of slices, and one for each other series; files without images are left out."""
        series = list_series(files, what=folder)
        for candidate in series.candidates:
            yield self._of_candidate(candidate, series)
        known = {candidate.uid for candidate in series.candidates}
        others: dict[str, list[DicomFile]] = defaultdict(list)
        for file in series.others:
            if file.series_uid not in known and (file.excluded or file.damage) and file.series_uid:
                others[file.series_uid].append(file)
        for uid, members in others.items():
            yield self._without_stack(uid, members)

    def _of_candidate(self, candidate: Candidate, series: SeriesList) -> CohortScan:
        paths = sorted({frame.pixels.path for frame in candidate.frames})
        header = _header(paths[0])
        scan_id = self.pseudonyms.of("scan", candidate.key)
        unfit = self._unfit(candidate, series)
        listed = self.lists / f"{scan_id}.txt"
        if unfit is None:
            with staged_file(listed) as partial:
                partial.write_bytes(b"\0".join(os.fsencode(path.absolute()) for path in paths))
        return CohortScan(
            scan_id=scan_id,
            source=str(listed),
            series=candidate.key,
            identifiers=_identifiers(paths[0].parent, candidate.uid, header),
            patient=self.pseudonyms.of("patient", text(header, "PatientID")),
            study=self.pseudonyms.of("study", text(header, "StudyInstanceUID")),
            stamp=file_stamp(paths),
            slices=len(candidate.frames),
            acquisition=_acquisition(header, candidate.modality),
            unfit=unfit,
        )

    def _without_stack(self, uid: str, files: Sequence[DicomFile]) -> CohortScan:
        """A series that is no scan, such as screen captures, or of which all files are damaged."""
        header = _header(files[0].path)
        damaged = any(file.damage for file in files)
        kind = "damaged" if damaged else f"no CT or MR images, but: {_plain(files[0].excluded)}"
        code = ErrorCode.INPUT_UNREADABLE if damaged else ErrorCode.MODALITY
        return CohortScan(
            scan_id=self.pseudonyms.of("scan", uid),
            source="",
            identifiers=_identifiers(files[0].path.parent, uid, header),
            patient=self.pseudonyms.of("patient", text(header, "PatientID")),
            study=self.pseudonyms.of("study", text(header, "StudyInstanceUID")),
            slices=len(files),
            acquisition=_acquisition(header, files[0].modality),
            unfit=Unfit(code=code.value, reason=f"Its files are {kind}."),
        )

    def _unfit(self, candidate: Candidate, series: SeriesList) -> Unfit | None:
        modality = _plain(candidate.modality) or "not stated"
        if candidate.modality != self.modality and not self.force:
            reason = f"Its modality is {modality}; the model is for {self.modality}."
            return Unfit(code=ErrorCode.MODALITY.value, reason=reason)
        if len(candidate.frames) < MIN_SLICES:
            reason = f"It has {len(candidate.frames)} slices; at least {MIN_SLICES} are needed."
            return Unfit(code=ErrorCode.INPUT_SHAPE.value, reason=reason)
        if series.damage_of(candidate) is not None:
            reason = "A file of it is damaged: slices would be missing."
            return Unfit(code=ErrorCode.INPUT_UNREADABLE.value, reason=reason)
        if candidate.stack is None:
            code = candidate.problem.code if candidate.problem is not None else ErrorCode.INPUT_SHAPE
            return Unfit(code=code.value, reason=reason_of(code.value))
        if self.modality == "CT" and not self.force and any(frame.unit for frame in candidate.stack.frames):
            return Unfit(code=ErrorCode.MODALITY.value, reason="Its header does not state the rescaling to HU.")
        return None


def _header(path: Path) -> Dataset:
    """Some values of a file's header; empty for a damaged one."""
    with lenient():
        try:
            return dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(_TAGS))
        except DAMAGE:
            return Dataset()


def _identifiers(folder: Path, uid: str, header: Dataset) -> Identifiers:
    return Identifiers(
        path=str(folder.absolute()),
        patient_id=text(header, "PatientID"),
        study_uid=text(header, "StudyInstanceUID"),
        series_uid=uid,
    )


def _acquisition(header: Dataset, modality: str) -> Acquisition:
    return Acquisition(
        modality=_plain(modality),
        manufacturer=_plain(text(header, "Manufacturer")),
        kernel=_plain(text(header, "ConvolutionKernel")),
        kvp=_plain(text(header, "KVP")),
        contrast="yes" if text(header, "ContrastBolusAgent") else "",
        slice_thickness_mm=_plain(text(header, "SliceThickness")),
    )


def _plain(value: str) -> str:
    """A header's text for the tables: short, of plain letters only."""
    return _NOT_PLAIN.sub("", value)[:_MAX_TEXT].strip()


