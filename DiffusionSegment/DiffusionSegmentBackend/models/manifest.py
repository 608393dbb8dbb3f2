"""model.json: what a model sees, what it names, which networks it consists of, and what was measured."""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from ..errors import DiffusionSegmentError, ErrorCode
from .folders import installed_descriptions, model_folders
from .tile_shape import TILE_SIDE, TileShape

DESCRIPTION_FILE = "model.json"
CARD_FILE = "MODEL_CARD.md"
NETWORKS = ("bodypart", "backbone", "segmenter", "probe", "refiner")
DEFAULT_CHANNELS = (16, 32, 64, 128, 192)
MAX_LABELS = 254  # marks are uint8 and hold k + 1 for label k
_SPACING_MM = (0.01, 100.0)
_MAX_STRIDE, _MAX_TILE_SIDE = 8, 512
_WHOLE = 1e-3
# How alike (0 to 1, as `difflib`) two names are of which one is suggested for the other.
_CLOSE_NAMES = 0.65
# Hounsfield units; the scan's own values; percentiles of the scan's own voxels.
WINDOW_UNITS = ("HU", "value", "percentile")
# Where percentiles stand in for values, a training patch has those of the networks' input.
_INPUT_RANGE = (-1.0, 1.0)
# Fields of `Anatomy` by their keys in model.json, where these differ.
_ANATOMY_FIELDS = {"least_organ_ml": "min_organ_ml", "least_confidence": "min_confidence"}
_Part = TypeVar("_Part")
_TYPES: dict[str, Any] = {"int": int, "float": (int, float), "str": str}


@dataclass(frozen=True)
class Label:
    """One organ: the voxel value, a machine name, a name for people, and its place in the body frame in mm if known."""

    value: int
    name: str
    title: str
    body_mm: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class NetworkFile:
    """Weights of one network: file, its sha256, and the arguments of its class.

    The file lies beside model.json, or in the folder of the sibling or bundled `model` that shares this network.
    """

    file: str
    sha256: str
    architecture: dict[str, Any] = field(default_factory=dict)
    model: str | None = None


@dataclass(frozen=True)
class Defaults:
    """What a run does unless told otherwise; chosen from the measured table.

    `smallest_piece`, 0..1: pieces of an organ that are smaller than this share of its largest go to the background.
    """

    samples: int = 4
    steps: int = 2
    schedule: str = "cosine"
    sampler: str = "ddim"
    abar_start: float = 0.2
    smallest_piece: float = 0.0


@dataclass(frozen=True)
class Anatomy:
    """Limits by which scans of another anatomy are refused, and unusual ones get a warning.

    Attributes:
        min_organ_ml: a scan with a smaller volume of organs is refused ("least_organ_ml" of model.json).
        min_confidence: a scan with a lower confidence is refused where the layout cannot be measured, because
            `max_layout_mm` is not given or too few organs are visible ("least_confidence" of model.json).
        usual_confidence: a lower confidence is a warning.
        min_share_in_reach: a scan with a smaller fraction of its tissue in `body_z_mm` is refused.
        usual_share_in_reach: a smaller fraction is a warning.
        max_layout_mm: a scan whose organs lie farther from their usual positions, on average, is refused.
        usual_layout_mm: a larger distance is a warning.
        body_z_mm: range of the inferior-superior body coordinates of the organs of the training scans.
    """

    min_organ_ml: float = 50.0
    min_confidence: float = 0.88
    usual_confidence: float = 0.9
    min_share_in_reach: float = 0.1
    usual_share_in_reach: float = 0.1
    max_layout_mm: float | None = None
    usual_layout_mm: float | None = None
    body_z_mm: tuple[float, float] | None = None


@dataclass(frozen=True)
class Base:
    """The model whose body-part network and features a taught model was taught on and uses."""

    name: str
    version: str
    weights_sha256: str


@dataclass(frozen=True)
class ModelDescription:
    """The content of model.json.

    `window` is in `window_unit`, one of `WINDOW_UNITS`: what becomes -1 and what becomes 1. `spacing_mm` of the model's
    grid and `trunk_spacing_mm`, in which the features and the body-part network lie, go along x, y, z; `channels` are
    the widths of the features; `tile` is what the networks see at once.
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
    labels: tuple[Label, ...]
    networks: dict[str, NetworkFile]
    defaults: Defaults
    anatomy: Anatomy
    channels: tuple[int, ...]
    base: Base | None
    raw: dict[str, Any]
    folder: Path

    @property
    def classes(self) -> int:
        """Number of classes, background included."""
        return len(self.labels) + 1

    @property
    def in_hounsfield(self) -> bool:
        """Whether the window's values are HU, so that what is known of tissues in HU holds for the model's scans."""
        return self.window_unit == "HU"

    @property
    def nominal_window(self) -> tuple[float, float]:
        """The values between which training changes gray levels: the window itself, or -1..1 for one of percentiles.

        Percentiles are other values in each scan. Where only the share of the window counts, any range will do.
        """
        return _INPUT_RANGE if self.window_unit == "percentile" else self.window

    @property
    def needed_networks(self) -> tuple[str, ...]:
        """The networks that a model of this kind has: of the first generation unless it names a segmenter."""
        if "segmenter" in self.networks:
            return ("bodypart", "segmenter", *(("probe",) if self.base is not None else ()))
        return ("bodypart", "backbone", "probe", *(("refiner",) if self.base is None else ()))

    def file_of(self, network: str) -> Path | None:
        """Where the weights of a network lie, if the model lists them; a shared one beside it, or with the bundled."""
        listed = self.networks.get(network)
        if listed is None:
            return None
        if listed.model is None:
            return self.folder / listed.file
        places = (self.folder.parent, *model_folders())
        files = [place / listed.model / listed.file for place in places]
        return next((file for file in files if file.is_file()), files[0])

    def label_named(self, name: str) -> Label:
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
        close += difflib.get_close_matches(wanted, names, n=6, cutoff=_CLOSE_NAMES)
        titles = list(dict.fromkeys(names[match].title for match in close))[:3]
        every = ", ".join(label.title for label in self.labels)
        hint = f"Did you mean {' or '.join(repr(title) for title in titles)}?" if titles else f"Its organs: {every}."
        raise DiffusionSegmentError(ErrorCode.OPTION, f"The model {self.name} has no organ '{name}'.", hint=hint)


def _plain(name: str) -> str:
    """An organ's name without the differences between a machine name and a title."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def list_models() -> tuple[str, ...]:
    """Names of the installed models: the bundled ones sorted, then the user's own sorted."""
    return tuple(installed_descriptions())


def find_model(name_or_folder: str) -> Path:
    """The folder of a bundled model, of a model of the user's own, or of any folder with a model.json.

    Raises:
        DiffusionSegmentError: MODEL_UNKNOWN.
    """
    with contextlib.suppress(OSError, ValueError):  # of a name that no file could have
        for folder in (*(place / name_or_folder for place in model_folders()), Path(name_or_folder)):
            if (folder / DESCRIPTION_FILE).is_file():
                return folder
    raise DiffusionSegmentError(
        ErrorCode.MODEL_UNKNOWN,
        f"There is no model '{name_or_folder}'.",
        hint=f"Installed: {', '.join(list_models()) or 'none'}.",
    )


def is_installed(folder: Path) -> bool:
    """Whether a model's folder lies where models are looked for by name."""
    return folder.resolve().parent in {place.resolve() for place in model_folders()}


def read_description(folder: Path) -> ModelDescription:
    """Read and check `folder`/model.json.

    Raises:
        DiffusionSegmentError: MODEL_UNKNOWN without the file, WEIGHTS_CORRUPT when its content is not as agreed.
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
        DiffusionSegmentError: MODEL_UNKNOWN without the file, WEIGHTS_CORRUPT when its content is not as agreed.
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
    """The content of a model.json that lies, or will lie, in `folder`.

    Raises:
        ValueError, LookupError, TypeError, AttributeError, ArithmeticError: when it is not as agreed.
    """
    labels = tuple(_label(item) for item in raw["labels"])
    if [label.value for label in labels] != list(range(1, len(labels) + 1)):
        raise ValueError("label values must be 1, 2, 3, ...")
    if len(labels) > MAX_LABELS:
        raise ValueError(f"there can be {MAX_LABELS} labels")
    x, y, z = (_finite(v) for v in raw["spacing_mm"])
    if not (_SPACING_MM[0] <= min(x, y, z) and max(x, y, z) <= _SPACING_MM[1]):
        raise ValueError("spacing_mm must be 0.01 to 100")
    window, window_unit = _window(raw)
    trunk, tile = _geometry(raw, (x, y, z))
    networks = {
        str(key): NetworkFile(str(n["file"]), str(n["sha256"]), dict(n.get("architecture", {})), n.get("model"))
        for key, n in raw.get("networks", {}).items()
    }
    defaults = _typed(Defaults, raw.get("defaults", {}))
    if not 0 <= defaults.smallest_piece <= 1:
        raise ValueError("smallest_piece must be 0 to 1")
    siblings = [n.model for n in networks.values() if n.model is not None]
    if not all(map(_is_plain_name, (*siblings, *(n.file for n in networks.values())))):
        raise ValueError("network files lie beside model.json, or beside that of a sibling model")
    return ModelDescription(
        name=str(raw["name"]),
        title=str(raw["title"]),
        version=str(raw["version"]),
        modality=str(raw["modality"]),
        spacing_mm=(x, y, z),
        trunk_spacing_mm=trunk,
        tile=tile,
        window=window,
        window_unit=window_unit,
        labels=labels,
        networks=networks,
        defaults=defaults,
        anatomy=_anatomy(raw.get("anatomy", {})),
        channels=tuple(int(c) for c in raw.get("channels", DEFAULT_CHANNELS)),
        base=_typed(Base, raw["base"]) if "base" in raw else None,
        raw=raw,
        folder=folder,
    )


def _window(raw: dict[str, Any]) -> tuple[tuple[float, float], str]:
    """The window and its unit: unless model.json names one, HU for CT and the scan's own values for all else."""
    low, high = (_finite(v) for v in raw["window"])
    is_ct = raw["modality"] == "CT"
    unit = raw.get("window_unit", "HU" if is_ct else "value")
    if unit not in WINDOW_UNITS:
        raise ValueError(f"window_unit must be one of {', '.join(WINDOW_UNITS)}, not {unit!r:.40}")
    if unit == "HU" and not is_ct:
        raise ValueError("window_unit HU is for CT alone")
    if not low < high:
        raise ValueError("window must rise")
    if unit == "percentile" and not (low >= 0 and high <= 100):
        raise ValueError("window must lie in 0 to 100 where it holds percentiles")
    return (low, high), str(unit)


def _geometry(raw: dict[str, Any], spacing: tuple[float, float, float]) -> tuple[tuple[float, float, float], TileShape]:
    """Spacing of the trunk along x, y, z in mm, and the tile; in model.json `tile_voxels` go along x, y, z as well."""
    x, y, z = (_finite(v) for v in raw.get("trunk_spacing_mm", spacing))
    ratios = [trunk / fine for trunk, fine in zip((z, y, x), reversed(spacing), strict=True)]
    sz, sy, sx = (round(ratio) for ratio in ratios)
    steps = (sz, sy, sx)
    if not all(1 <= n <= _MAX_STRIDE and abs(ratio - n) < _WHOLE for ratio, n in zip(ratios, steps, strict=True)):
        raise ValueError(f"trunk_spacing_mm must be spacing_mm times 1 to {_MAX_STRIDE}, whole")
    tile = TileShape.cube(TILE_SIDE, steps)
    if "tile_voxels" in raw:
        tx, ty, tz = (int(n) for n in raw["tile_voxels"])
        tile = TileShape((tz, ty, tx), steps)
    if not all(step <= n <= _MAX_TILE_SIDE and n % step == 0 for n, step in zip(tile.voxels, steps, strict=True)):
        raise ValueError(f"tile_voxels must be whole voxels of the trunk, at most {_MAX_TILE_SIDE}")
    return (x, y, z), tile


def _label(item: dict[str, Any]) -> Label:
    place = item.get("body_mm")
    x, y, z = place if place is not None else (0.0, 0.0, 0.0)
    known = None if place is None else (_finite(x), _finite(y), _finite(z))
    return Label(int(item["value"]), str(item["name"]), str(item["title"]), known)


def _anatomy(item: dict[str, Any]) -> Anatomy:
    known = {_ANATOMY_FIELDS.get(key, key): value for key, value in item.items()}
    span = known.pop("body_z_mm", None)
    usual, largest = (known.pop(name, None) for name in ("usual_layout_mm", "max_layout_mm"))
    return replace(
        _typed(Anatomy, known),
        body_z_mm=None if span is None else (_finite(span[0]), _finite(span[1])),
        usual_layout_mm=None if usual is None else _finite(usual),
        max_layout_mm=None if largest is None else _finite(largest),
    )


def label_without_terms(raw: dict[str, Any]) -> str | None:
    """The name of the first label that lacks what Slicer and DICOM SEG show of it: category, code, colour; else None.

    Category, code and, where there is one, modifier are coded terms of three texts; colour is red, green, blue, 0..255.
    """
    for item in raw["labels"]:
        terms = [item.get("category"), item.get("code"), *([item["modifier"]] if "modifier" in item else [])]
        if not (all(map(_is_coded_term, terms)) and _is_colour(item.get("colour"))):
            return str(item["name"])
    return None


def _is_coded_term(term: Any) -> bool:
    return isinstance(term, dict) and all(
        isinstance(term.get(key), str) and term[key] for key in ("scheme", "value", "meaning")
    )


def _is_colour(colour: Any) -> bool:
    return isinstance(colour, list) and len(colour) == 3 and all(type(n) is int and 0 <= n <= 255 for n in colour)


def _typed(kind: type[_Part], item: dict[str, Any]) -> _Part:
    """A part of the description, each entry of its field's own type; a mere number would be found out in a run only."""
    for field_ in fields(kind):  # type: ignore[arg-type]
        value = item.get(field_.name, field_.default)
        if isinstance(value, bool) or not isinstance(value, _TYPES.get(str(field_.type), object)):
            raise TypeError(f"{field_.name} must not be {value!r:.40}")
        if isinstance(value, (int, float)):
            _finite(value)
    return kind(**item)


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r:.40} is no number to work with")
    return number


def _is_plain_name(name: object) -> bool:
    return isinstance(name, str) and bool(name) and not name.startswith(".") and not set(name) & set("/\\:")
