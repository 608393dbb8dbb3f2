"""Descriptions of installed models: model.json with its folder, its tile shape and the files of its networks."""

from __future__ import annotations

import contextlib
import difflib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DiffusionSegmentError, ErrorCode
from ..schema.model_manifest import (
    VOLUME_TAIL,
    AnatomyLimits,
    BaseModel,
    Defaults,
    ModelLabel,
    ModelManifest,
    NetworkFile,
    Quality,
)
from ..schema.region_probability import RegionProbability
from ..schema.reviewed_error import ReviewedErrorModel
from .folders import installed_descriptions, model_folders
from .tile_shape import TILE_SIDE, TileShape

DESCRIPTION_FILE = "model.json"
CARD_FILE = "MODEL_CARD.md"
_MAX_STRIDE, _MAX_TILE_SIDE = 8, 512
_STRIDE_TOLERANCE = 1e-3
# Minimum similarity (0 to 1, as in `difflib`) of a name that is suggested for another.
_MIN_NAME_SIMILARITY = 0.65
# The range of the networks' input, which training patches have where the window is one of percentiles.
_INPUT_RANGE = (-1.0, 1.0)


@dataclass(frozen=True)
class ModelDescription:
    """The content of model.json.

    `window`, in `window_unit`, are the values scaled to -1 and 1. `spacing_mm` of the model's grid and
    `trunk_spacing_mm`, that of features and body-part network, are along x, y, z; `channels` are those of the features;
    `tile` is the shape of the networks' input.
    """

    name: str
    title: str
    version: str
    modality: str
    spacing_mm: tuple[float, float, float]
    trunk_spacing_mm: tuple[float, float, float]
    tile: TileShape
    window: tuple[float, float]
    window_unit: str
    labels: tuple[ModelLabel, ...]
    networks: dict[str, NetworkFile]
    defaults: Defaults
    anatomy: AnatomyLimits
    channels: tuple[int, ...]
    base: BaseModel | None
    raw: dict[str, Any]
    folder: Path
    region_probability: RegionProbability | None = None
    reviewed_error: ReviewedErrorModel | None = None
    quality: Quality | None = None
    volume_tail: float = VOLUME_TAIL

    @property
    def classes(self) -> int:
        """Number of classes, background included."""
        return len(self.labels) + 1

    @property
    def in_hounsfield(self) -> bool:
        """Whether the values of the window are HU."""
        return self.window_unit == "HU"

    @property
    def nominal_window(self) -> tuple[float, float]:
        """The value range of training patches: the window, or -1..1 for a window of percentiles."""
        return _INPUT_RANGE if self.window_unit == "percentile" else self.window

    @property
    def needed_networks(self) -> tuple[str, ...]:
        """The networks of a model of this kind: of the first generation unless it has a segmenter."""
        if "segmenter" in self.networks:
            return ("bodypart", "segmenter", *(("probe",) if self.base is not None else ()))
        return ("bodypart", "backbone", "probe", *(("refiner",) if self.base is None else ()))

    def file_of(self, network: str) -> Path | None:
        """The weights file of a network, None if not listed; a shared one is in a sibling or an installed model."""
        listed = self.networks.get(network)
        if listed is None:
            return None
        if listed.model is None:
            return self.folder / listed.file
        parents = (self.folder.parent, *model_folders())
        files = [parent / listed.model / listed.file for parent in parents]
        return next((file for file in files if file.is_file()), files[0])

    def label_named(self, name: str) -> ModelLabel:
        """The organ with that name or title, in any case, with spaces, hyphens or underscores between its words.

        Raises:
            DiffusionSegmentError: OPTION for an organ that the model does not know; the hint names the nearest.
        """
        wanted = _plain(name)
        names = {_plain(label.title): label for label in self.labels} | {
            _plain(label.name): label for label in self.labels
        }
        if (label := names.get(wanted)) is not None:
            return label
        close = [known for known in names if wanted and wanted in known]
        close += difflib.get_close_matches(wanted, names, n=6, cutoff=_MIN_NAME_SIMILARITY)
        titles = list(dict.fromkeys(names[match].title for match in close))[:3]
        every = ", ".join(label.title for label in self.labels)
        hint = f"Did you mean {' or '.join(repr(title) for title in titles)}?" if titles else f"Its organs: {every}."
        raise DiffusionSegmentError(ErrorCode.OPTION, f"The model {self.name} has no organ '{name}'.", hint=hint)


def _plain(name: str) -> str:
    """An organ's name normalised for comparison of machine names and titles."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def list_models() -> tuple[str, ...]:
    """Names of the installed models: the bundled ones sorted, then the user's own sorted."""
    return tuple(installed_descriptions())


def find_model(name_or_folder: str) -> Path:
    """The folder of a bundled model, of a model of the user's own, or of any folder with a model.json.

    Raises:
        DiffusionSegmentError: MODEL_UNKNOWN.
    """
    with contextlib.suppress(OSError, ValueError):  # invalid file names
        for folder in (*(parent / name_or_folder for parent in model_folders()), Path(name_or_folder)):
            if (folder / DESCRIPTION_FILE).is_file():
                return folder
    raise DiffusionSegmentError(
        ErrorCode.MODEL_UNKNOWN,
        f"There is no model '{name_or_folder}'.",
        hint=f"Installed: {', '.join(list_models()) or 'none'}.",
    )


def is_installed(folder: Path) -> bool:
    """Whether a model's folder is in a folder in which models are looked up by name."""
    return folder.resolve().parent in {parent.resolve() for parent in model_folders()}


def read_description(folder: Path) -> ModelDescription:
    """Read and check `folder`/model.json.

    Raises:
        DiffusionSegmentError: MODEL_UNKNOWN without the file, WEIGHTS_CORRUPT for invalid content.
    """
    path = folder / DESCRIPTION_FILE
    if not path.is_file():
        raise DiffusionSegmentError(
            ErrorCode.MODEL_UNKNOWN,
            f"{folder} holds no {DESCRIPTION_FILE}.",
            hint="Choose one of the installed models.",
        )
    return _read(path)


def read_manifest(path: Path) -> ModelDescription:
    """Read and check a file that is a model.json without networks, from which a model is trained.

    Raises:
        DiffusionSegmentError: MODEL_UNKNOWN without the file, WEIGHTS_CORRUPT for invalid content.
    """
    if not path.is_file():
        raise DiffusionSegmentError(ErrorCode.MODEL_UNKNOWN, f"There is no model file {path}.", hint="Check the path.")
    return _read(path)


def _read(path: Path) -> ModelDescription:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return parse_description(raw, path.parent)
    except (ValueError, LookupError, TypeError, AttributeError, OSError, RecursionError, ArithmeticError) as error:
        raise DiffusionSegmentError(
            ErrorCode.WEIGHTS_CORRUPT,
            f"{path} is damaged ({type(error).__name__}: {str(error)[:200]}).",
            hint="Install the model again.",
        ) from error


def parse_description(raw: dict[str, Any], folder: Path) -> ModelDescription:
    """The content of a model.json that is, or will be, in `folder`.

    Raises:
        ValueError, ArithmeticError: a value is missing, of another type or out of its range.
    """
    manifest = ModelManifest.from_json(raw)
    trunk, tile = _geometry(manifest)
    return ModelDescription(
        name=manifest.name,
        title=manifest.title,
        version=manifest.version,
        modality=manifest.modality,
        spacing_mm=manifest.spacing_mm,
        trunk_spacing_mm=trunk,
        tile=tile,
        window=manifest.window,
        window_unit=manifest.unit,
        labels=manifest.labels,
        networks=manifest.networks,
        defaults=manifest.defaults,
        anatomy=manifest.anatomy,
        channels=manifest.channels,
        base=manifest.base,
        raw=raw,
        folder=folder,
        region_probability=manifest.region_probability,
        reviewed_error=manifest.reviewed_error,
        quality=manifest.quality,
        volume_tail=manifest.volume_tail,
    )


def _geometry(manifest: ModelManifest) -> tuple[tuple[float, float, float], TileShape]:
    """Spacing of the trunk's grid along x, y, z in mm, and the tile; `tile_voxels` of model.json are along x, y, z."""
    x, y, z = manifest.trunk_spacing_mm or manifest.spacing_mm
    ratios = [trunk / fine for trunk, fine in zip((z, y, x), reversed(manifest.spacing_mm), strict=True)]
    sz, sy, sx = (round(ratio) for ratio in ratios)
    steps = (sz, sy, sx)
    whole = (abs(ratio - n) < _STRIDE_TOLERANCE for ratio, n in zip(ratios, steps, strict=True))
    if not (all(1 <= n <= _MAX_STRIDE for n in steps) and all(whole)):
        raise ValueError(f"trunk_spacing_mm must be spacing_mm times 1 to {_MAX_STRIDE}, whole")
    tile = TileShape.cube(TILE_SIDE, steps)
    if manifest.tile_voxels is not None:
        tx, ty, tz = manifest.tile_voxels
        tile = TileShape((tz, ty, tx), steps)
    if not all(step <= n <= _MAX_TILE_SIDE and n % step == 0 for n, step in zip(tile.voxels, steps, strict=True)):
        raise ValueError(f"tile_voxels must be whole voxels of the trunk, at most {_MAX_TILE_SIDE}")
    return (x, y, z), tile


def label_without_terms(raw: dict[str, Any]) -> str | None:
    """The name of the first label without category, code or colour, which Slicer and DICOM SEG show; else None."""
    return next((label.name for label in ModelManifest.from_json(raw).labels if not label.has_terms), None)
