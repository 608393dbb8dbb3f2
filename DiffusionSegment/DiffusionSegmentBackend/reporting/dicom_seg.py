"""A result as DICOM SEG: binary, one segment an organ, slice on slice with the series that it was made from."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
from highdicom.content import AlgorithmIdentificationSequence, PixelMeasuresSequence
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from highdicom.sr import CodedConcept
from pydicom.errors import InvalidDicomError
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from ..errors import DiffusionSegmentError, ErrorCode
from ..result_folder import check_writable, staged_file
from ..volume import Volume
from ..volume_io import read_volume, series_files
from .case import Case, Organ, case_on_scan, read_case

MANUFACTURER = "DiffusionSegment"
_SERIES_NUMBER = 300
_SAME_PLACE_MM = 0.05
_NEEDED = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
)
# DICOM wants these to be there, but allows them to be empty; old exports leave them out.
_MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)


def write_dicom_seg(folder: Path, output: Path, *, scan: Path) -> None:
    """Write the segmentation in the result `folder` as DICOM SEG that refers to the series in the folder `scan`.

    Raises:
        DiffusionSegmentError: INPUT_MISSING or INPUT_UNREADABLE for result or scan, INPUT_SHAPE for multi-frame images,
            GEOMETRY when scan and result do not lie in the same place, INPUT_VALUES for a segmentation without organs,
            MODEL_UNKNOWN when the model, which knows the codes, is not installed, OUTPUT_UNWRITABLE or DISK_FULL.
    """
    check_writable(output.parent)
    case = read_case(folder)
    with warnings.catch_warnings():
        # Both libraries warn of odd values in the hospital's headers, patient's name included; the user cannot act.
        warnings.simplefilter("ignore")
        headers = read_headers(scan)
        volume = read_volume(scan)
        case = case_on_scan(case, volume, what="The scan and the result")
        _check_slices(headers, volume, scan)
        _complete(headers, volume)
        segmentation = dicom_seg(case, headers)
        with staged_file(output) as partial:
            segmentation.save_as(partial)
    print(f"Written to {output}.")


def read_headers(scan: Path) -> list[pydicom.Dataset]:
    """The headers of the series in a DICOM folder, in the order of the volume's slices.

    Raises:
        DiffusionSegmentError: INPUT_MISSING, INPUT_UNREADABLE or INPUT_SHAPE.
    """
    if not scan.is_dir():
        code = ErrorCode.INPUT_UNREADABLE if scan.exists() else ErrorCode.INPUT_MISSING
        raise DiffusionSegmentError(
            code, f"{scan} is not a DICOM folder.", hint="DICOM SEG refers to the images of a DICOM series: give those."
        )
    headers: list[pydicom.Dataset] = []
    for file in series_files(scan):
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True)
        except (InvalidDicomError, OSError) as error:
            raise DiffusionSegmentError(
                ErrorCode.INPUT_UNREADABLE, f"{file} is damaged or no DICOM file.", hint="Export the series again."
            ) from error
        _check_header(header, file)
        headers.append(header)
    return headers


def _check_header(header: pydicom.Dataset, file: Path) -> None:
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_SHAPE,
            f"{file} is a multi-frame image.",
            hint="Export the series with one file a slice.",
        )
    lacking = [name for name in _NEEDED if not header.get(name)]
    if lacking:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_UNREADABLE,
            f"{file} lacks {lacking[0]}, which DICOM SEG refers to.",
            hint="Export the series again from where it was acquired.",
        )


def _complete(headers: Sequence[pydicom.Dataset], volume: Volume) -> None:
    """A scan may leave out what DICOM lets it leave empty, and the thickness, which DICOM SEG must state."""
    for header in headers:
        for name in _MAY_BE_EMPTY:
            if name not in header:
                setattr(header, name, "")
        if not header.get("SliceThickness"):
            header.SliceThickness = f"{volume.spacing[2]:.6f}"


def _check_slices(headers: Sequence[pydicom.Dataset], volume: Volume, scan: Path) -> None:
    """Header k must describe slice k, or organs would be stored on the wrong slices."""
    stored = np.array([header.ImagePositionPatient for header in headers], dtype=np.float64)
    expected = volume.index_to_lps[:3, 3] + np.arange(volume.array.shape[0])[:, None] * volume.index_to_lps[:3, 2]
    if stored.shape != expected.shape or not np.allclose(stored, expected, atol=_SAME_PLACE_MM):
        raise DiffusionSegmentError(
            ErrorCode.GEOMETRY,
            f"The slices of {scan} are sheared or unevenly spaced: DICOM SEG would not lie on them.",
            hint="Export the series again without gantry tilt.",
        )


def dicom_seg(case: Case, headers: Sequence[pydicom.Dataset]) -> Segmentation:
    """The DICOM object. `headers` are those of the scan, one a slice of `case.labels`, in that order.

    Raises:
        DiffusionSegmentError: INPUT_VALUES without organs or with labels that report.json does not name, MODEL_UNKNOWN.
    """
    organs = _found_organs(case)
    terms = _terms(case, organs)
    series = str(headers[0].SeriesInstanceUID)
    algorithm = _algorithm(case)
    numbers = np.zeros(max(organ.value for organ in organs) + 1, dtype=np.uint8)
    numbers[[organ.value for organ in organs]] = np.arange(1, len(organs) + 1)
    return Segmentation(
        source_images=headers,
        pixel_array=numbers[case.labels.array],
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _segment(number, organ, terms[organ.name], case=case, series=series, algorithm=algorithm)
            for number, organ in enumerate(organs, start=1)
        ],
        # Scanners state the distance between slices wrongly or not at all; the positions are right.
        pixel_measures=PixelMeasuresSequence(
            pixel_spacing=[float(v) for v in headers[0].PixelSpacing],
            slice_thickness=float(headers[0].SliceThickness),
            spacing_between_slices=float(case.labels.spacing[2]),
        ),
        series_instance_uid=highdicom.UID(),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=f"{case.provenance['model']} {case.provenance['version']}"[:64],
        software_versions=case.provenance["software"][:64],
        # The checksum of the weights tells two builds of a model apart, as a serial number does two machines.
        device_serial_number=case.provenance["sha256"][:64] or "unknown",
        content_label="DIFFUSIONSEGMENT",
        content_description=(case.model.title if case.model else case.provenance["model"])[:64],
        series_description=f"Segmentation by {case.provenance['model']}"[:64],
    )


def _found_organs(case: Case) -> list[Organ]:
    values = {int(v) for v in np.unique(case.labels.array) if v}
    if not values:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_VALUES, "The segmentation is empty: no organ was found.", hint="There is nothing to export."
        )
    unnamed = values - {organ.value for organ in case.organs}
    if unnamed:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_VALUES,
            f"The segmentation holds label {min(unnamed)}, which report.json does not name.",
            hint="Give a result folder as it was written.",
        )
    return [organ for organ in case.organs if organ.value in values]


def _terms(case: Case, organs: Sequence[Organ]) -> dict[str, dict[str, Any]]:
    """The entries of model.json by organ name. Names are looked up, not values: those may change between versions."""
    if case.model is None:
        raise DiffusionSegmentError(
            ErrorCode.MODEL_UNKNOWN,
            f"The model {case.provenance['model']}, which knows the organs' codes, is not installed here.",
            hint="Install it, or export where it is.",
        )
    terms = {str(item["name"]): item for item in case.model.raw["labels"]}
    lacking = [organ.name for organ in organs if not {"code", "category", "colour"} <= terms.get(organ.name, {}).keys()]
    if lacking:
        raise DiffusionSegmentError(
            ErrorCode.MODEL_UNKNOWN,
            f"The installed {case.provenance['model']} has no code and colour for '{lacking[0]}'.",
            hint="Install the model's version that made the result.",
        )
    return terms


def _algorithm(case: Case) -> AlgorithmIdentificationSequence:
    parameters = {
        key: str(value) for key, value in case.provenance.items() if key not in ("software", "model", "version")
    }
    return AlgorithmIdentificationSequence(
        name=case.provenance["model"][:64],
        family=codes.DCM.ArtificialIntelligence,
        version=case.provenance["version"][:64],
        source=case.provenance["software"][:64],
        parameters=parameters,
    )


def _segment(
    number: int,
    organ: Organ,
    term: dict[str, Any],
    *,
    case: Case,
    series: str,
    algorithm: AlgorithmIdentificationSequence,
) -> SegmentDescription:
    name = case.provenance["model"]
    description = SegmentDescription(
        segment_number=number,
        segment_label=organ.title[:64],
        segmented_property_category=_concept(term["category"]),
        segmented_property_type=_concept(term["code"]),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        # The same organ of the same scan keeps its tracking UID from export to export.
        tracking_uid=generate_uid(entropy_srcs=[series, name, organ.name]),
        tracking_id=f"{name}/{organ.name}"[:64],
        display_color=highdicom.color.CIELabColor.from_rgb(*(int(v) for v in term["colour"])),
    )
    if "modifier" in term:
        # highdicom has no argument for the side, which DICOM keeps inside the type's code.
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [_concept(term["modifier"])]
    return description


def _concept(code: dict[str, str]) -> CodedConcept:
    return CodedConcept(value=code["value"], scheme_designator=code["scheme"], meaning=code["meaning"][:64])
