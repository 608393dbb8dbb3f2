"""`train --init`: create a manifest (a model.json without networks) from a table of labels and options."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import DiffusionSegmentError, ErrorCode
from ...imaging.atomic_writes import write_text
from ...models.manifest import DESCRIPTION_FILE, ModelDescription, parse_description
from ...models.user_models import check_free_name
from .label_table import LabelTable
from .networks import NetworkTraining

_SPACING_MM = (1.5, 1.5, 3.0)
_FINE_MM = 2.0
_TRUNK_TILE, _THIN_TRUNK_TILE, _THICK_SLICE_MM = 48, 32, 5.0
_CT_WINDOW, _PERCENTILES = (-125.0, 275.0), (0.5, 99.5)
_CHANNELS = (32, 64, 96, 128, 160)
_DEFAULTS = {"samples": 4, "steps": 2, "schedule": "cosine", "sampler": "ddim", "abar_start": 0.2}


@dataclass(frozen=True, kw_only=True)
class ManifestOptions:
    """Options of `train --init`; None stands for a default that depends on the modality.

    Attributes:
        name: The model's name.
        labels: The CSV file (`LabelTable`).
        output: A .json file, or a folder for a model.json.
        modality: DICOM modality of the scans: CT, MR, ...
        title: Title for display; by default from name, modality and number of labels.
        spacing_mm: Spacing of the model's grid along x, y, z in mm.
        trunk_spacing_mm: Spacing of the features, a whole multiple; by default twice the spacing where it is below 2.
        tile_voxels: Size of a tile along x, y, z, in voxels of the model's grid.
        channels: Channels of the trunk by level, finest first.
        window: Intensities that are mapped to -1 and 1, in `window_unit`.
        window_unit: HU, value or percentile.
        licence: Licence of the weights.
    """

    name: str
    labels: Path
    output: Path
    modality: str = "CT"
    title: str | None = None
    spacing_mm: tuple[float, ...] | None = None
    trunk_spacing_mm: tuple[float, ...] | None = None
    tile_voxels: tuple[int, ...] | None = None
    channels: tuple[int, ...] | None = None
    window: tuple[float, ...] | None = None
    window_unit: str | None = None
    licence: str = ""


def write_manifest(options: ManifestOptions) -> Path:
    """Write the manifest and return its path.

    Raises:
        DiffusionSegmentError: OPTION for an invalid name, grid or window, or an existing file;
            INPUT_MISSING or TRAINING_DATA for the labels, OUTPUT_UNWRITABLE or DISK_FULL.
    """
    check_free_name(options.name, replace=True)
    path = options.output if options.output.suffix == ".json" else options.output / DESCRIPTION_FILE
    if path.exists():
        raise DiffusionSegmentError(ErrorCode.OPTION, f"{path} is there already.", hint="Choose another -o.")
    raw = manifest_of(options, LabelTable(options.labels).read())
    NetworkTraining(_checked(raw, path.parent), "cpu", 0, 0.0).check()
    write_text(path, json.dumps(raw, indent=2) + "\n")
    return path


def manifest_of(options: ManifestOptions, labels: list[dict[str, Any]]) -> dict[str, Any]:
    """The content of the manifest."""
    spacing = options.spacing_mm or _SPACING_MM
    trunk = options.trunk_spacing_mm or tuple(2 * mm if mm < _FINE_MM else mm for mm in spacing)
    if min(*spacing, *trunk) <= 0:
        raise DiffusionSegmentError(ErrorCode.OPTION, "A spacing must be above 0 mm.", hint="Give it as X,Y,Z in mm.")
    is_ct = options.modality == "CT"
    unit = options.window_unit or ("HU" if is_ct else "percentile")
    window = options.window or {"HU": _CT_WINDOW, "percentile": _PERCENTILES}.get(unit)
    if window is None:
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            "A window in the scan's own values has no default.",
            hint="Give --window LOW,HIGH: what becomes black and what becomes white.",
        )
    plural = "label" if len(labels) == 1 else "labels"
    return {
        "name": options.name,
        "title": options.title or f"{options.name}, {options.modality}, {len(labels)} {plural}",
        "version": "1",
        "modality": options.modality,
        "spacing_mm": list(spacing),
        "trunk_spacing_mm": list(trunk),
        "tile_voxels": list(options.tile_voxels or _tile(spacing, trunk)),
        "window": list(window),
        "window_unit": unit,
        "orientation": "LPS",
        "labels": labels,
        "channels": list(options.channels or _CHANNELS),
        "networks": {},
        "defaults": _DEFAULTS,
        "licence": options.licence,
    }


def _tile(spacing: tuple[float, ...], trunk: tuple[float, ...]) -> list[int]:
    """Default tile: 48 voxels of the trunk per side, 32 along z for thick slices, in voxels of the model's grid."""
    sides = [_TRUNK_TILE, _TRUNK_TILE, _THIN_TRUNK_TILE if trunk[-1] >= _THICK_SLICE_MM else _TRUNK_TILE]
    return [side * round(coarse / fine) for side, coarse, fine in zip(sides, trunk, spacing, strict=False)]


def _checked(raw: dict[str, Any], folder: Path) -> ModelDescription:
    try:
        return parse_description(raw, folder)
    except (ValueError, ArithmeticError) as error:
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"No model can have this: {error}.", hint="See `diffusion-segment train --help`."
        ) from error
