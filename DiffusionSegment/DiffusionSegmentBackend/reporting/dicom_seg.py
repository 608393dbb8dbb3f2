"""A result as DICOM SEG: binary, with one segment per organ, on the slices of its series."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
from highdicom.content import AlgorithmIdentificationSequence
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.atomic_writes import check_writable, staged_file
from ..imaging.dicom_values import DAMAGE, lenient
from ..schema.provenance import LOCAL_PATHS
from .case import Case, Organ, case_on_scan, read_case
from .dicom_seg_source import SegSource, read_seg_source
from .result_uids import derived_uid, result_key

MANUFACTURER = "DiffusionSegment"
_SERIES_NUMBER = 300
_UTF8 = "ISO_IR 192"
# Stated in other attributes, or not at all.
_NO_PARAMETERS = ("software", "model", "version", *LOCAL_PATHS)


def write_dicom_seg(folder: Path, output: Path, *, scan: Path, series: str | None = None) -> None:
    """Write the segmentation in the result `folder` as DICOM SEG that references the series in `scan`.

    `scan` is a DICOM file or folder; `series` names one of several series (default: the one of the result).

    Raises:
        DiffusionSegmentError: INPUT_MISSING or INPUT_UNREADABLE for result or scan, INPUT_SHAPE for images that DICOM
            SEG cannot refer to, GEOMETRY when scan and result differ in geometry, INPUT_VALUES for a
            segmentation without organs, MODEL_UNKNOWN when the model, which defines the codes, is not installed,
            OUTPUT_UNWRITABLE or DISK_FULL.
    """
    check_writable(output.parent)
    case = read_case(folder)
    # pydicom and highdicom warn of invalid values in the scan's headers, including the patient's name.
    with lenient():
        source = read_seg_source(scan, series or case.series_uid)
        case = case_on_scan(case, source.geometry, what="The scan and the result")
        segmentation = dicom_seg(case, source)
        data = _encoded(segmentation)
    with staged_file(output) as partial:
        partial.write_bytes(data)
    for note in source.notes:
        print(f"Note: {note}")
    print(f"Written to {output}.")


def dicom_seg(case: Case, source: SegSource) -> Segmentation:
    """The DICOM object, which references the images of `source`; `case.labels` has their geometry.

    Segments of organs that a reader corrected are SEMIAUTOMATIC, others AUTOMATIC (PS3.3, C.8.20.2: "calculated
    automatically with user assistance").

    Raises:
        DiffusionSegmentError: INPUT_VALUES without organs or with labels that report.json does not name, MODEL_UNKNOWN,
            INPUT_UNREADABLE for images that highdicom cannot express.
    """
    organs = _organs_of_labels(case)
    terms = _terms(case, organs)
    series = str(source.images[0].SeriesInstanceUID)
    algorithm = _algorithm(case)
    model, software = case.provenance.plan.model, case.provenance.software
    numbers = np.zeros(max(organ.value for organ in organs) + 1, dtype=np.uint8)
    numbers[[organ.value for organ in organs]] = np.arange(1, len(organs) + 1)
    key = result_key(case, source.images)
    segments = [
        _segment(number, organ, terms[organ.name], case=case, series=series, algorithm=algorithm)
        for number, organ in enumerate(organs, start=1)
    ]
    try:
        segmentation = Segmentation(
            source_images=source.images,
            pixel_array=numbers[case.labels.array],
            segmentation_type=SegmentationTypeValues.BINARY,
            segment_descriptions=segments,
            series_instance_uid=derived_uid(key, "segmentation series"),
            series_number=_SERIES_NUMBER,
            sop_instance_uid=derived_uid(key, "segmentation"),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=f"{model} {software.version}"[:64],
            software_versions=software.software[:64],
            # The checksum of the weights tells two builds of a model apart, as a serial number does two machines.
            device_serial_number=software.sha256[:64] or "unknown",
            content_label="DIFFUSIONSEGMENT",
            content_description=(case.model.title if case.model else model)[:64],
            series_description=f"Segmentation {'by' if case.reviewed is None else 'reviewed with'} {model}"[:64],
            specific_character_set=_UTF8,
        )
    except DAMAGE as error:
        raise _inexpressible(error) from error
    _restore_frame_numbers(segmentation, source)
    _set_dimension_organization(segmentation, derived_uid(key, "dimensions"))
    return segmentation


def _set_dimension_organization(segmentation: Segmentation, uid: str) -> None:
    """Replace the UID that highdicom drew at random for the order of the frames."""
    for item in (*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid


def _encoded(segmentation: Segmentation) -> bytes:
    buffer = BytesIO()
    try:
        segmentation.save_as(buffer)
    except DAMAGE as error:
        raise _inexpressible(error) from error
    return buffer.getvalue()


def _inexpressible(error: Exception) -> DiffusionSegmentError:
    return DiffusionSegmentError(
        ErrorCode.INPUT_UNREADABLE,
        f"DICOM SEG cannot refer to these images ({error}).",
        hint="Export the series again from where it was acquired.",
    )


def _restore_frame_numbers(segmentation: Segmentation, source: SegSource) -> None:
    """Replace frame numbers within the stack, as highdicom wrote them, by those of the multi-frame file."""
    if not source.frame_numbers:
        return
    # Frames of several segments on one slice share the item that names it.
    images = {
        id(image): image
        for frame in segmentation.PerFrameFunctionalGroupsSequence
        for derivation in frame.get("DerivationImageSequence", [])
        for image in derivation.SourceImageSequence
    }
    for image in images.values():
        image.ReferencedFrameNumber = source.frame_numbers[int(image.ReferencedFrameNumber) - 1]


def _organs_of_labels(case: Case) -> list[Organ]:
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
    """The labels of model.json by name; label values may differ between versions."""
    if case.model is None:
        raise DiffusionSegmentError(
            ErrorCode.MODEL_UNKNOWN,
            f"The model {case.provenance.plan.model}, which defines the organs' codes, is not installed.",
            hint="Install it, or export on a computer that has it.",
        )
    terms = {str(item["name"]): item for item in case.model.raw["labels"]}
    lacking = [organ.name for organ in organs if not {"code", "category", "colour"} <= terms.get(organ.name, {}).keys()]
    if lacking:
        raise DiffusionSegmentError(
            ErrorCode.MODEL_UNKNOWN,
            f"The installed {case.provenance.plan.model} has no code and colour for '{lacking[0]}'.",
            hint="Install the model's version that made the result.",
        )
    return terms


def _algorithm(case: Case) -> AlgorithmIdentificationSequence:
    software = case.provenance.software
    parameters = {key: str(value) for key, value in case.provenance.to_json().items() if key not in _NO_PARAMETERS}
    return AlgorithmIdentificationSequence(
        # Which algorithm made a segmentation from another source is not known.
        name=(("" if case.reviewed is None else "Reviewed with ") + case.provenance.plan.model)[:64],
        family=codes.DCM.ArtificialIntelligence,
        version=software.version[:64],
        source=software.software[:64],
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
    name = case.provenance.plan.model
    description = SegmentDescription(
        segment_number=number,
        segment_label=organ.title[:64],
        segmented_property_category=_concept(term["category"]),
        segmented_property_type=_concept(term["code"]),
        algorithm_type=(
            SegmentAlgorithmTypeValues.SEMIAUTOMATIC
            if organ.name in case.corrected
            else SegmentAlgorithmTypeValues.AUTOMATIC
        ),
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
