"""Small DICOM series with their headers at hand: one data set a slice, to be changed before it is written."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from DiffusionSegmentBackend.volume import Volume
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

ROOT = "1.2.826.0.1.3680043.8.498."
SHAPE = (8, 12, 10)


def small_ct(step: tuple[float, float, float] = (0.0, 0.0, 2.5), shape: tuple[int, int, int] = SHAPE) -> Volume:
    """HU with air, whose voxels all differ; `step` leads from slice to slice, in LPS mm."""
    matrix = np.eye(4)
    matrix[0, 0], matrix[1, 1], matrix[:3, 2] = 0.8, 1.1, step
    matrix[:3, 3] = (-120.0, 33.5, 801.0)
    array = np.random.default_rng(0).integers(-1024, 2000, shape).astype(np.int16)
    return Volume(array, matrix)


def slices(volume: Volume, uid: str = "2", **tags: Any) -> list[Dataset]:
    """A CT of one data set a slice, in the order of k; a tag may be a function of k, or None to be left out.

    Stored values are HU + 1024, unsigned, 12 of 16 bits.
    """
    axes = volume.index_to_lps[:3, :3] / volume.spacing
    found = []
    for k, pixels in enumerate(volume.array):
        image = Dataset()
        image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, f"{ROOT}5.{uid}.{k + 1}"
        image.StudyInstanceUID, image.SeriesInstanceUID = f"{ROOT}1", f"{ROOT}{uid}"
        image.FrameOfReferenceUID, image.Modality = f"{ROOT}3", "CT"
        image.SeriesNumber, image.SeriesDescription, image.InstanceNumber = uid, "abdomen", str(k + 1)
        image.ImageType, image.PatientName, image.PatientID = ["ORIGINAL", "PRIMARY", "AXIAL"], "Phantom^A", "P1"
        image.AcquisitionNumber = "1"
        image.ImagePositionPatient = [f"{v:.6f}" for v in volume.index_to_lps[:3] @ (0, 0, k, 1)]
        image.ImageOrientationPatient = [f"{v:.9f}" for v in (*axes[:, 0], *axes[:, 1])]
        image.PixelSpacing = [f"{volume.spacing[1]:.6f}", f"{volume.spacing[0]:.6f}"]
        image.SliceThickness = "2.5"
        image.Rows, image.Columns = pixels.shape
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
        image.RescaleIntercept, image.RescaleSlope, image.RescaleType = "-1024", "1", "HU"
        image.PixelData = (pixels.astype(np.int32) + 1024).astype("<u2").tobytes()
        for name, value in tags.items():
            value = value(k) if isinstance(value, Callable) else value  # type: ignore[arg-type]
            if value is None:
                delattr(image, name)
            else:
                setattr(image, name, value)
        found.append(image)
    return found


def save(image: Dataset, path: Path, syntax: str = ExplicitVRLittleEndian) -> Path:
    """One file, its folder made where there is none."""
    image.file_meta = FileMetaDataset()
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.file_meta.TransferSyntaxUID = syntax
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(path, enforce_file_format=True)
    return path


def write(images: Sequence[Dataset], folder: Path, name: str = "{:03d}.dcm", **options: Any) -> Path:
    """A folder of files, named by their number."""
    for n, image in enumerate(images):
        save(image, folder / name.format(n), **options)
    return folder


def item(**values: Any) -> list[Dataset]:
    """A sequence of one item."""
    found = Dataset()
    for name, value in values.items():
        setattr(found, name, value)
    return [found]


def multi_frame(images: Sequence[Dataset]) -> Dataset:
    """The slices as one enhanced CT whose frames are stored in the order given."""
    first = images[0]
    whole = copy.deepcopy(first)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(whole, name)
    for name in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
        delattr(whole, name)
    whole.SOPClassUID, whole.SOPInstanceUID = EnhancedCTImageStorage, f"{first.SOPInstanceUID}.9"
    whole.NumberOfFrames, whole.PixelData = len(images), b"".join(image.PixelData for image in images)
    whole.SharedFunctionalGroupsSequence = item(
        PlaneOrientationSequence=item(ImageOrientationPatient=first.ImageOrientationPatient),
        PixelMeasuresSequence=item(PixelSpacing=first.PixelSpacing, SliceThickness="2.5"),
    )
    whole.PerFrameFunctionalGroupsSequence = [
        item(
            PlanePositionSequence=item(ImagePositionPatient=image.ImagePositionPatient),
            PixelValueTransformationSequence=item(
                RescaleIntercept=image.RescaleIntercept, RescaleSlope=image.RescaleSlope, RescaleType="HU"
            ),
            FrameContentSequence=item(TemporalPositionIndex=int(image.get("TemporalPositionIndex", 1))),
        )[0]
        for image in images
    ]
    return whole


def secondary_capture(number: int, *, colour: bool, **tags: Any) -> Dataset:
    """A screen capture of 16 x 16 pixels, without a place in the patient."""
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = SecondaryCaptureImageStorage, f"{ROOT}8.{number + 1}"
    image.StudyInstanceUID, image.SeriesInstanceUID = f"{ROOT}1", f"{ROOT}8"
    image.Modality, image.SeriesNumber, image.SeriesDescription = "OT", "900", "3D renderings"
    image.Rows = image.Columns = 16
    image.SamplesPerPixel, image.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    image.PlanarConfiguration = 0
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit, image.PixelRepresentation = 7, 0
    image.PixelData = bytes(16 * 16 * (3 if colour else 1))
    for name, value in tags.items():
        setattr(image, name, value)
    return image
