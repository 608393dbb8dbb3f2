"""The case report as a DICOM object: an encapsulated PDF of the study of its DICOM SEG (PS3.3, A.45.1)."""

from __future__ import annotations

import datetime
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.uid import UID, EncapsulatedPDFStorage, ExplicitVRLittleEndian

from ..imaging.atomic_writes import staged_file
from ..imaging.dicom_values import lenient
from .result_uids import derived_uid

_SERIES_NUMBER = 301
_REPORT = Code("18748-4", "LN", "Diagnostic imaging report")
# Of patient, study and equipment; those of type 2 are present in every DICOM SEG of ours, empty where not known.
_COPIED = (
    "SpecificCharacterSet",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "StudyInstanceUID",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "StudyDescription",
    "AccessionNumber",
    "ReferringPhysicianName",
    "Manufacturer",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
)


def write_encapsulated_pdf(pdf: Path, segmentation: Path, output: Path) -> None:
    """Write a case report as a DICOM object that refers to the DICOM SEG of the same result.

    Its UIDs follow from those of the DICOM SEG.

    Raises:
        DiffusionSegmentError: OUTPUT_UNWRITABLE or DISK_FULL.
    """
    with lenient():
        source = pydicom.dcmread(segmentation, stop_before_pixels=True)
        document = encapsulated_pdf(pdf.read_bytes(), source)
        with staged_file(output) as partial:
            document.save_as(partial, enforce_file_format=True)


def encapsulated_pdf(pdf: bytes, source: Dataset) -> FileDataset:
    """The DICOM object with the bytes of a PDF; `source` is the header of the DICOM SEG."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = EncapsulatedPDFStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = UID(derived_uid(str(source.SOPInstanceUID), "report"))
    document = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    for name in _COPIED:
        if name in source:
            document[name] = source[name]
    now = datetime.datetime.now()
    document.SOPClassUID, document.SOPInstanceUID = EncapsulatedPDFStorage, meta.MediaStorageSOPInstanceUID
    document.SeriesInstanceUID = derived_uid(str(source.SOPInstanceUID), "report series")
    document.Modality, document.SeriesNumber, document.InstanceNumber = "DOC", _SERIES_NUMBER, 1
    document.SeriesDescription = "Report of the segmentation (research only)"
    document.ContentDate, document.ContentTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    # Of the scan; type 2, because a report may be of several.
    document.AcquisitionDateTime = ""
    document.ConversionType, document.BurnedInAnnotation = "WSD", "YES"
    document.DocumentTitle = "Segmentation report"
    concept = Dataset()
    concept.CodeValue, concept.CodingSchemeDesignator, concept.CodeMeaning = _REPORT[:3]
    document.ConceptNameCodeSequence = [concept]
    document.VerificationFlag = "UNVERIFIED"
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    document.SourceInstanceSequence = [reference]
    document.MIMETypeOfEncapsulatedDocument = "application/pdf"
    document.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    document.EncapsulatedDocumentLength = len(pdf)
    return document
