"""Fuzz targets of scans: NIfTI, NRRD and MetaImage files, and DICOM folders with damaged headers."""

from __future__ import annotations

import gzip
from io import BytesIO
from pathlib import Path
from random import Random

import numpy as np
import pydicom
import SimpleITK as sitk
from DiffusionSegmentBackend.imaging.dicom_values import DAMAGE, lenient
from DiffusionSegmentBackend.imaging.volume import Volume, model_grid, same_geometry
from DiffusionSegmentBackend.imaging.volume_io import read_scan, read_volume, to_image, write_volume
from DiffusionSegmentBackend.pipeline.memory import memory_errors
from DiffusionSegmentBackend.pipeline.prepare import windowed
from DiffusionSegmentBackend.pipeline.restore import restore_map
from fixtures.dicom_files import multi_frame, save, slices, small_ct, write
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless

from .dicom_oracle import check_by_hand
from .independent_reader import check_against_itk
from .mutation import damaged
from .target import Content, demand

_WINDOW = (-125.0, 275.0)
_READERS = {".nii": "NiftiImageIO", ".nrrd": "NrrdImageIO", ".nhdr": "NrrdImageIO", ".mh": "MetaImageIO"}


def small_scan(dtype: type = np.int16) -> Volume:
    """An oblique scan of 6 x 7 x 8 voxels."""
    angle = np.deg2rad(12.0)
    matrix = np.eye(4)
    turned = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])
    matrix[:3, :3] = turned * (4.0, 3.5, 5.0)
    matrix[:3, 3] = (-120.0, 33.5, 801.0)
    return Volume(np.random.default_rng(0).integers(-1000, 1000, (6, 7, 8)).astype(dtype), matrix)


def run_scan(path: Path, written: Path, *, reader: str = "") -> Volume:
    """Read a scan, resample it to the model's grid, and write a label map in its geometry; returns the scan.

    With the name of an ITK `reader`, voxels and geometry must be equal to those that it reads.

    Raises:
        DiffusionSegmentError: the scan was refused.
        Broken: a result is invalid.
    """
    volume = read_scan(path).volume
    if reader:
        check_against_itk(path, volume, reader)
    with memory_errors():
        grid = model_grid(volume, spacing=(3.0, 3.0, 3.0))
        image = windowed(grid.to_grid(volume.array), _WINDOW)
        back = restore_map(image, (0, 0, 0), grid, outside=None)
    demand(image.shape == grid.shape and np.isfinite(image).all(), "the grid holds NaN or infinity")
    demand(float(np.abs(image).max()) <= 1.0001, "the grid is not within -1 to 1")
    demand(back.shape == volume.array.shape, "the restored map has another shape")
    labels = Volume((back > 0).astype(np.uint8), volume.index_to_lps)
    write_volume(labels, written)
    again = read_volume(written)
    demand(np.array_equal(again.array, labels.array), "the label map changed on disk")
    demand(same_geometry(again, labels), "the label map has another geometry than the scan")
    return volume


class _ScanFile:
    """One file, damaged in its bytes or in its decompressed content."""

    allowed = frozenset({"out", "scan"})

    def __init__(self, sandbox: Path) -> None:
        self._sandbox = sandbox
        (sandbox / "out").mkdir(exist_ok=True)
        self._seeds: list[tuple[str, bytes]] = []

    def _add(self, name: str, volume: Volume, *, compressed: bool = False) -> None:
        path = self._sandbox / "out" / name
        if name.endswith((".nii", ".nii.gz")):
            write_volume(volume, path)
        else:
            sitk.WriteImage(to_image(volume), str(path), useCompression=compressed)
        self._seeds.append((name, path.read_bytes()))

    def make(self, rng: Random) -> Content:
        """One damaged file."""
        name, data = rng.choice(self._seeds)
        if name.endswith(".gz") and rng.random() < 0.8:
            return {f"scan/{name}": gzip.compress(damaged(rng, gzip.decompress(data), head=352), 1)}
        return {f"scan/{name}": damaged(rng, data, head=400)}

    def consume(self, content: Content) -> None:
        """Run on the file, and compare with another reader."""
        path = self._sandbox / next(iter(content))
        reader = next(name for suffix, name in _READERS.items() if suffix in path.name)
        run_scan(path, self._sandbox / "out" / "labels.nii.gz", reader=reader)


class NiftiTarget(_ScanFile):
    """NIfTI, plain and compressed, of integers and floats."""

    def __init__(self, sandbox: Path) -> None:
        super().__init__(sandbox)
        self._add("scan.nii", small_scan())
        self._add("float.nii", small_scan(np.float32))
        # Of a pair x.nii and x.nii.gz ITK always reads the first.
        self._add("packed.nii.gz", small_scan())
        self._add("double.nii.gz", small_scan(np.float64))


class NrrdTarget(_ScanFile):
    """NRRD and MetaImage, plain and compressed, and with detached data."""

    def __init__(self, sandbox: Path) -> None:
        super().__init__(sandbox)
        for suffix in ("nrrd", "mha"):
            self._add(f"scan.{suffix}", small_scan())
            self._add(f"packed.{suffix}", small_scan(), compressed=True)
            self._add(f"float.{suffix}", small_scan(np.float32))
        self._add("apart.nhdr", small_scan())
        self._add("apart.mhd", small_scan())
        (sandbox / "scan").mkdir(exist_ok=True)
        for data in (sandbox / "out").glob("apart.*raw*"):
            (sandbox / "scan" / data.name).write_bytes(data.read_bytes())


class DicomTarget:
    """Folders of DICOM files of which one or two are damaged, in their bytes or in a value of the header.

    Five slices written by ITK, a tilted series with a different rescale for each slice, a compressed series, and a
    multi-frame image. Accepted series are compared with a second reader.
    """

    allowed = frozenset({"out", "series", "tilted", "packed", "frames"})

    def __init__(self, sandbox: Path) -> None:
        self._sandbox = sandbox
        (sandbox / "out").mkdir(exist_ok=True)
        (sandbox / "series").mkdir(exist_ok=True)
        write_series(sandbox / "series", small_scan())
        write(tilted_slices(), sandbox / "tilted")
        write(compressed_slices(), sandbox / "packed", syntax=JPEGLSLossless)
        save(multi_frame(tilted_slices()), sandbox / "frames" / "enhanced.dcm")
        self._files = {
            kind: {f"{kind}/{p.name}": p.read_bytes() for p in sorted((sandbox / kind).iterdir())}
            for kind in sorted(self.allowed - {"out"})
        }

    def make(self, rng: Random) -> Content:
        """All files of a folder, some of them damaged."""
        files = self._files[rng.choice(sorted(self._files))]
        chosen = rng.sample(sorted(files), min(len(files), rng.choice((1, 1, 1, 2))))
        damage = _with_changed_value if rng.random() < 0.5 else _damaged_bytes
        return {name: damage(rng, data) if name in chosen else data for name, data in files.items()}

    def consume(self, content: Content) -> None:
        """Run on the folder."""
        folder = self._sandbox / next(iter(content)).partition("/")[0]
        check_by_hand(run_scan(folder, self._sandbox / "out" / "labels.nii.gz"), folder)


def _damaged_bytes(rng: Random, data: bytes) -> bytes:
    return damaged(rng, data, head=max(1, len(data) - 100))


_FIELDS = (
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"),
    *("RescaleType", "BitsStored", "HighBit", "BitsAllocated", "PixelRepresentation", "Rows", "Columns"),
    *("NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PixelPaddingValue", "SeriesInstanceUID"),
    *("SOPInstanceUID", "SOPClassUID", "Modality", "ImageType", "AcquisitionNumber", "TemporalPositionIndex"),
    *("SpecificCharacterSet", "SeriesNumber", "SeriesDescription", "InstanceNumber"),
)
_WORDS = (
    "",
    "0",
    "1",
    "-1",
    "2",
    "8",
    "12",
    "16",
    "65535",
    "1e30",
    "nan",
    "1.5",
    "-1024",
    "CT",
    "MR",
    "RGB",
    "HU",
    "US",
)


def _with_changed_value(rng: Random, data: bytes) -> bytes:
    """The file with one value of its header replaced, removed or changed slightly."""
    with lenient():
        image = pydicom.dcmread(BytesIO(data))
        buffer = BytesIO()
        try:
            _change_value(rng, image)
            image.save_as(buffer)
        except DAMAGE:  # pydicom cannot write such a value
            return _damaged_bytes(rng, data)
    return buffer.getvalue()


def _change_value(rng: Random, image: Dataset) -> None:
    name = rng.choice(_FIELDS)
    datasets = [image, *(image.get("PerFrameFunctionalGroupsSequence") or [])]
    datasets += [item for frame in datasets[1:] for sequence in frame for item in sequence.value or []]
    dataset = rng.choice([d for d in datasets if name in d] or datasets[:1])
    value, chance = dataset.get(name), rng.random()
    if chance < 0.2 and value is not None:
        delattr(dataset, name)
    elif chance < 0.7 and isinstance(value, MultiValue) and name != "ImageType":
        n = rng.randrange(len(value))
        value[n] = f"{float(value[n]) + rng.choice((-1, 1)) * rng.choice((1e-4, 0.01, 0.3, 1.0, 40.0)):.6f}"
    else:
        word = rng.choice(_WORDS)
        kind = dictionary_VR(name)
        dataset.add(DataElement(name, "US", int(word) % 65536) if kind[:2] == "US" else DataElement(name, kind, word))


def tilted_slices() -> list[Dataset]:
    """Eight tilted slices with different intercepts, and with padding in every second one."""
    volume = small_ct((0.0, 0.9, 2.5))
    images = slices(volume, RescaleIntercept=lambda k: str(-1024 - 10 * k))
    for image in images[::2]:
        image.PixelPaddingValue = 4095
    return images


def compressed_slices() -> list[Dataset]:
    """Eight slices with pixels in JPEG-LS."""
    images = slices(small_ct())
    for image in images:
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.compress(JPEGLSLossless, generate_instance_uid=False)
    return images


def write_series(folder: Path, volume: Volume) -> None:
    """Write a volume as a CT series, one file per slice."""
    image = to_image(volume)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for n in range(image.GetDepth()):
        part = image[:, :, n]
        position = image.TransformIndexToPhysicalPoint((0, 0, n))
        tags = {
            "0008|0060": "CT",
            "0020|000e": "1.2.826.0.1.3680043.2.1125.1",
            "0020|000d": "1.2.826.0.1.3680043.2.1125.2",
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"1.2.826.0.1.3680043.2.1125.3.{n + 1}",
            "0020|0013": str(n + 1),
            "0020|0032": "\\".join(f"{v:.6f}" for v in position),
            "0018|0050": "5.0",
            "0020|0037": "\\".join(f"{v:.6f}" for v in direction[:, :2].T.ravel()),
            "0020|0011": "1",
        }
        for tag, value in tags.items():
            part.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{n:03d}.dcm"))
        writer.Execute(part)
