"""Reading of a DICOM SEG from any source, with the names and codes of its segments."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from ..errors import DiffusionSegmentError, ErrorCode
from ..schema.model_manifest import CodedTerm
from ..schema.segment_matching import SegmentName
from .dicom_scan import DicomScan
from .dicom_values import DAMAGE, first_item, lenient, text
from .segment_layers import Layer, merged
from .volume import Volume, check_geometry

_MODALITY = "SEG"
_THIS_SCAN = "Choose the segmentation of this scan, or run again with --force."


def read_dicom_seg(path: Path, scan: DicomScan | None, *, force: bool = False) -> tuple[Volume, dict[int, SegmentName]]:
    """The segments of a DICOM SEG, numbered from 1, as one label map (k, j, i) on the slices of the file.

    Args:
        path: the file.
        scan: the series that was segmented, if it is DICOM.
        force: accept a segmentation of another patient or frame of reference.

    Raises:
        DiffusionSegmentError: INPUT_UNREADABLE for another object, a damaged file or slices that form no volume,
            INPUT_VALUES for overlapping segments and for shares of voxels, GEOMETRY for another patient or frame of
            reference than the scan's.
    """
    with lenient():
        try:
            segmentation = _read(path)
        except DAMAGE as error:
            raise _unreadable(path, f"cannot be read ({type(error).__name__})") from error
        if scan is not None and not force:
            _check_patient(segmentation, scan, path)
        try:
            names = {
                number: _name(segmentation.get_segment_description(item), number)
                for number, item in enumerate(segmentation.segment_numbers, start=1)
            }
            frame = segmentation.get_volume_geometry(allow_missing_positions=True)
            if frame is None:
                raise ValueError("its slices do not form a volume")
            layers = _layers(segmentation, names, path)
            volume = Volume(merged(layers, tuple(frame.spatial_shape), path), _matrix(frame.affine))
        except (*DAMAGE, RuntimeError) as error:
            raise _unreadable(path, f"cannot be read: {str(error)[:200]}") from error
    check_geometry(volume.index_to_lps, what=str(path))
    return volume, names


def _read(path: Path) -> Any:
    if text(dcmread(path, stop_before_pixels=True, specific_tags=["Modality"]), "Modality") != _MODALITY:
        raise _unreadable(path, "is a DICOM file, but no segmentation (DICOM SEG)")
    from highdicom.seg import segread

    return segread(path)


def _layers(segmentation: Any, names: dict[int, SegmentName], path: Path) -> Iterator[Layer]:
    """One segment at a time, because all together take as many times the memory of the scan as there are segments."""
    for number, item in enumerate(segmentation.segment_numbers, start=1):
        mask = segmentation.get_volume(
            segment_numbers=[item], combine_segments=False, allow_missing_positions=True
        ).array[..., 0]
        if mask.dtype.kind == "f" and not np.isin(mask, (0, 1)).all():
            raise DiffusionSegmentError(
                ErrorCode.INPUT_VALUES,
                f"{path} holds shares of voxels (FRACTIONAL), no labels.",
                hint="Export it as a binary segmentation.",
            )
        yield Layer(names[number].name, mask > 0)


def _matrix(affine: Any) -> Any:
    """The matrix from (i, j, k, 1) to LPS mm of one from (k, j, i, 1)."""
    return np.asarray(affine, dtype=np.float64)[:, [2, 1, 0, 3]]


def _name(description: Any, number: int) -> SegmentName:
    kind = first_item(description, "SegmentedPropertyTypeCodeSequence")
    return SegmentName(
        name=text(description, "SegmentLabel") or f"segment {number}",
        code=_term(kind),
        modifier=_term(first_item(kind, "SegmentedPropertyTypeModifierCodeSequence")),
    )


def _term(item: Dataset) -> CodedTerm | None:
    """A coded term; of a code of SNOMED RT, which older files have, the one of SNOMED CT."""
    scheme, value = text(item, "CodingSchemeDesignator"), text(item, "CodeValue")
    if not scheme or not value:
        return None
    if scheme in ("SRT", "SNM3"):
        from pydicom.sr._snomed_dict import mapping

        scheme, value = "SCT", mapping["SRT"].get(value, value)
    return CodedTerm(scheme=scheme, value=value, meaning=text(item, "CodeMeaning"))


def _check_patient(segmentation: Dataset, scan: DicomScan, path: Path) -> None:
    """Refuse a segmentation whose patient or frame of reference is not the scan's; the message names neither.

    Raises:
        DiffusionSegmentError: GEOMETRY.
    """
    tags = {"FrameOfReferenceUID": "frame of reference", "PatientID": "patient"}
    header = dcmread(scan.series.path, stop_before_pixels=True, force=True, specific_tags=list(tags))
    for tag, what in tags.items():
        ours, theirs = text(header, tag), text(segmentation, tag)
        if ours and theirs and ours != theirs:
            raise DiffusionSegmentError(
                ErrorCode.GEOMETRY, f"{path} is of another {what} than the scan.", hint=_THIS_SCAN
            )


def _unreadable(path: Path, what: str) -> DiffusionSegmentError:
    return DiffusionSegmentError(
        ErrorCode.INPUT_UNREADABLE, f"{path} {what}.", hint="Give a DICOM SEG, NIfTI, NRRD or MHA of labels."
    )
