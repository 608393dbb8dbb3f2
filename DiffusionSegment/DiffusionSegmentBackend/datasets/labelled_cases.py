"""Labelled scans for training: listed from a folder, loaded and resampled to the model's grid."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.label_maps import read_label_map
from ..imaging.volume import Grid, Volume, model_grid
from ..imaging.volume_io import read_volume
from ..models.manifest import ModelDescription
from ..models.tile_shape import TileShape
from ..pipeline.features import body_box, padded
from ..pipeline.prepare import network_input

# Lower bound of tissue in an image in -1..1.
TISSUE_THRESHOLD = -0.95
_SUFFIXES = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".nhdr", ".mha", ".mhd")


@dataclass(frozen=True)
class CaseFiles:
    """One scan and its label map on disk; `organs` are the names of the annotated ones, None for all of the model."""

    name: str
    image: Path
    label: Path
    organs: tuple[str, ...] | None = None


@dataclass
class Case:
    """One scan on the model's grid, cropped to the body.

    Attributes:
        name: Name of the case.
        image: (z, y, x) in -1..1.
        labels: (z, y, x).
        grid: The model's grid over the whole scan.
        offset: First voxel (z, y, x) of the crop on `grid`.
        coordinates: Body coordinates (3, z, y, x) in mm, None until they are computed.
        drawn: Annotated label values, None for all. Voxels of other organs may have the label 0.
    """

    name: str
    image: NDArray[np.float32]
    labels: NDArray[np.uint8]
    grid: Grid
    offset: tuple[int, int, int] = (0, 0, 0)
    coordinates: NDArray[np.float16] | None = None
    drawn: frozenset[int] | None = None

    def padded(self, tile: TileShape) -> tuple[Tensor, Tensor]:
        """Image (z, y, x) and coordinates in mm (3, z, y, x), float32, padded at the far end to the size of a tile.

        Raises:
            ValueError: The case has no coordinates.
        """
        if self.coordinates is None:
            raise ValueError(f"case {self.name} has no body coordinates")
        image = padded(torch.from_numpy(self.image)[None], tile=tile, value=-1.0)[0]
        return image, padded(torch.from_numpy(self.coordinates).float(), tile=tile, value=0.0)

    def lps(self, indices: NDArray[Any]) -> NDArray[np.float64]:
        """LPS in mm (..., 3) of voxels (..., 3) = z, y, x of the image."""
        return self.grid.lps(indices + np.array(self.offset))


def find_cases(folder: Path, *, part: str = "train") -> list[CaseFiles]:
    """Cases of `folder`/images and /labels; only those of `part` if there is a splits.json in or above the folder.

    An annotated.json in the folder (case -> names of annotated organs) lists cases with partial labels.

    Raises:
        DiffusionSegmentError: TRAINING_DATA when there are no images or a label map is missing.
    """
    cases = paired_cases(folder / "images", folder / "labels", names=_split(folder, part))
    if not cases:
        raise DiffusionSegmentError(
            ErrorCode.TRAINING_DATA,
            f"There are no {part} cases in {folder}.",
            hint="It needs a folder 'images' and a folder 'labels' with files of the same names.",
        )
    return cases


def paired_cases(images: Path, labels: Path, *, names: Collection[str] | None = None) -> list[CaseFiles]:
    """Scans in the folder `images` with the label maps of the same names in `labels`; only those of `names`, if given.

    An annotated.json beside `images` (case -> names of annotated organs) lists cases with partial labels.

    Raises:
        DiffusionSegmentError: TRAINING_DATA when a label map is missing.
    """
    annotated = _annotated(images.parent)
    cases = []
    for image in sorted(p for p in images.glob("*") if is_scan(p)):
        name = _stem(image)
        if names is not None and name not in names:
            continue
        label = next((p for s in _SUFFIXES if (p := labels / f"{name}{s}").is_file()), None)
        if label is None:
            raise DiffusionSegmentError(
                ErrorCode.TRAINING_DATA, f"Case {name} has no label map.", hint=f"Put one into {labels}."
            )
        cases.append(CaseFiles(name, image, label, annotated.get(name)))
    return cases


def scan_paths(folders: Sequence[Path]) -> list[Path]:
    """All scans in the folders: image files, and subfolders with a DICOM series each.

    Raises:
        DiffusionSegmentError: TRAINING_DATA if a path is not a folder.
    """
    for folder in folders:
        if not folder.is_dir():
            raise DiffusionSegmentError(
                ErrorCode.TRAINING_DATA, f"{folder} is not a folder.", hint="Name a folder with scans in it."
            )
    return [path for folder in folders for path in sorted(folder.iterdir()) if path.is_dir() or is_scan(path)]


def is_scan(path: Path) -> bool:
    """Whether a file has the suffix of a scan."""
    return path.name.lower().endswith(_SUFFIXES)


def _stem(path: Path) -> str:
    suffix = next(s for s in _SUFFIXES if path.name.lower().endswith(s))
    return path.name[: -len(suffix)]


def _split(folder: Path, part: str) -> set[str] | None:
    parts = read_parts(folder)
    return set(parts[part]) if part in parts else None


def read_parts(folder: Path) -> dict[str, list[str]]:
    """Names of the cases of each part ("train", ...) from a splits.json in or above a data folder; empty without one.

    Raises:
        DiffusionSegmentError: TRAINING_DATA for an invalid splits.json.
    """
    parts: dict[str, list[str]] = {}
    for parent in (folder.resolve().parent, folder):
        path = parent / "splits.json"
        if path.is_file():
            try:
                splits = json.loads(path.read_text(encoding="utf-8"))
                own = splits.get(folder.resolve().name, splits)
                parts |= {str(part): names for part, names in own.items() if isinstance(names, list)}
            except (ValueError, AttributeError) as error:
                raise DiffusionSegmentError(
                    ErrorCode.TRAINING_DATA,
                    f"{path} is not a table of parts and their cases.",
                    hint='Write it as {"validation": ["case", ...], ...}.',
                ) from error
    return parts


def _annotated(folder: Path) -> dict[str, tuple[str, ...]]:
    path = folder / "annotated.json"
    if not path.is_file():
        return {}
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return {str(case): tuple(str(organ) for organ in organs) for case, organs in raw.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise DiffusionSegmentError(
            ErrorCode.TRAINING_DATA,
            f"{path} is not a table of cases and their organs.",
            hint='Write it as {"case": ["organ", ...]}.',
        ) from error


def drawn_values(files: CaseFiles, description: ModelDescription) -> frozenset[int]:
    """The annotated label values of a case; names are compared without case and punctuation.

    Raises:
        DiffusionSegmentError: TRAINING_DATA for a name that is not in the model file.
    """
    known = {_plain(label.name): label.value for label in description.labels}
    if files.organs is None:
        return frozenset(known.values())
    unknown = [organ for organ in files.organs if _plain(organ) not in known]
    if unknown:
        raise DiffusionSegmentError(
            ErrorCode.TRAINING_DATA,
            f"Case {files.name}: annotated.json names {', '.join(unknown)}, which the model file does not.",
            hint="Use the names of model.json.",
        )
    return frozenset(known[_plain(organ)] for organ in files.organs)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def load_scan(path: Path, description: ModelDescription) -> Case:
    """Read a scan without labels, resample it to the model's grid and crop it to the body."""
    volume = read_volume(path)
    return _case(path.name, volume, None, description, frozenset())


def load_case(files: CaseFiles, description: ModelDescription) -> Case:
    """Read a case, resample it to the model's grid and crop it to the body.

    Raises:
        DiffusionSegmentError: TRAINING_DATA for a label map in another geometry, an unknown label value or an empty
            label map.
    """
    drawn = drawn_values(files, description)
    image = read_volume(files.image)
    labels = read_case_labels(files, image, description)
    if not labels.any():
        raise _invalid(files, "the label map is empty.", "Leave the case out, or label it.")
    return _case(files.name, image, labels, description, drawn)


def read_case_labels(files: CaseFiles, image: Volume, description: ModelDescription) -> NDArray[np.uint8]:
    """The label map of a case in the geometry of its image (k, j, i).

    Raises:
        DiffusionSegmentError: TRAINING_DATA for a label map in another geometry or with an unknown label value,
            INPUT_VALUES for a file that is not a label map.
    """
    try:
        labels = read_label_map(files.label, image, hint="Resample the label map to the image.")
    except DiffusionSegmentError as error:
        if error.code is not ErrorCode.GEOMETRY:
            raise
        raise _invalid(files, error.message, error.hint) from error
    unknown = set(np.unique(labels).tolist()) - {0} - {item.value for item in description.labels}
    if unknown:
        what = f"label values {sorted(unknown)} are not in the model file."
        raise _invalid(files, what, "Add them to model.json, or set them to 0.")
    return labels


def _case(
    name: str, volume: Volume, drawn_labels: NDArray[Any] | None, description: ModelDescription, drawn: frozenset[int]
) -> Case:
    grid = model_grid(volume, spacing=description.spacing_mm)
    image = network_input(volume, grid, description, what=f"Case {name}")
    labels = grid.labels_to_grid(drawn_labels) if drawn_labels is not None else np.zeros(image.shape, np.uint8)
    box = body_box(torch.from_numpy(image), min_shape=(1, 1, 1))
    corner = (box[0].start, box[1].start, box[2].start)
    crop = (np.ascontiguousarray(image[box]), np.ascontiguousarray(labels[box]))
    return Case(name, crop[0], crop[1], grid, offset=corner, drawn=drawn)


def _invalid(files: CaseFiles, message: str, hint: str) -> DiffusionSegmentError:
    return DiffusionSegmentError(ErrorCode.TRAINING_DATA, f"Case {files.name}: {message}", hint=hint)
