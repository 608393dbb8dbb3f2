"""model.json: what a model segments, on which grid and values, its networks, limits and measured quality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import dataclass_json
from .dataclass_json import SchemaError
from .organ_margin import OrganMargin
from .region_probability import RegionProbability
from .reviewed_error import ReviewedErrorModel

NETWORKS = ("bodypart", "backbone", "segmenter", "probe", "refiner")
DEFAULT_CHANNELS = (16, 32, 64, 128, 192)
# Hounsfield units; the scan's own values; percentiles of the scan's own voxels.
WINDOW_UNITS = ("HU", "value", "percentile")
_MAX_NAME_BYTES = 200
# Of fully dependent voxels, see `pipeline.uncertainty.volume_interval_ml`.
VOLUME_TAIL = 0.05
MAX_LABELS = 254  # scribbles are uint8 and hold k + 1 for label k
_MIN_SPACING_MM, _MAX_SPACING_MM = 0.01, 100.0
Point = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class CodedTerm:
    """A coded term of a terminology, such as SCT 10200004 Liver."""

    scheme: str
    value: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class ModelLabel:
    """One organ: voxel value, machine name, title, what Slicer and DICOM SEG show of it, and its usual position.

    `colour` is red, green, blue, 0..255; `body_mm` the position of its centroid in body coordinates, in mm; `usual_ml`
    the smallest and the largest volume in the training cases; `one_piece` whether it was connected in all of them;
    `margin` that of out-of-fold segmentations, None where there were too few.
    """

    value: int
    name: str
    title: str
    category: CodedTerm | None = None
    code: CodedTerm | None = None
    modifier: CodedTerm | None = None
    colour: tuple[int, int, int] | None = None
    body_mm: Point | None = None
    usual_ml: tuple[float, float] | None = None
    one_piece: bool = False
    margin: OrganMargin | None = None

    @property
    def has_terms(self) -> bool:
        """Whether category, code and colour, which Slicer and DICOM SEG show, are all stated."""
        terms = [term for term in (self.category, self.code, self.modifier) if term is not None]
        complete = all(term.scheme and term.value and term.meaning for term in terms)
        in_range = self.colour is not None and all(0 <= channel <= 255 for channel in self.colour)
        return self.category is not None and self.code is not None and complete and in_range


@dataclass(frozen=True, kw_only=True)
class NetworkFile:
    """Weights of one network: file, its sha256, and the arguments of its class.

    The file lies beside model.json, or in the folder of the sibling or bundled `model` that shares this network.
    """

    file: str
    sha256: str
    architecture: dict[str, Any] = field(default_factory=dict)
    model: str | None = None


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """The run options that a model was measured with.

    `smallest_piece`, 0..1: pieces of an organ that are smaller than this share of its largest are set to background.
    """

    samples: int = 4
    steps: int = 2
    schedule: str = "cosine"
    sampler: str = "ddim"
    abar_start: float = 0.2
    smallest_piece: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.smallest_piece <= 1:
            raise SchemaError("smallest_piece must be 0 to 1")


@dataclass(frozen=True, kw_only=True)
class AnatomyLimits:
    """Which scans are refused as another anatomy, and which give a warning as an unusual one.

    `body_z_mm` is the range of inferior-superior body coordinates in which the organs of the training scans lie. A scan
    with less than `min_share_in_reach` of its tissue there is refused, below `usual_share_in_reach` there is a warning.
    A scan that shows more than `max_side_mm` of the body along an axis is refused: the model was trained on crops.
    So is one with less than `min_organ_ml` of organs, or whose organs lie more than `max_layout_mm` from their usual
    positions (`body_mm` of the labels) on average; beyond `usual_layout_mm` there is a warning. Without
    `max_layout_mm`, or where too few organs show, a scan with less than `min_confidence` in its organs is refused
    instead. Below `usual_confidence` there is a warning in any case.
    """

    min_organ_ml: float = 50.0
    min_confidence: float = 0.88
    usual_confidence: float = 0.9
    min_share_in_reach: float = 0.1
    usual_share_in_reach: float = 0.1
    max_layout_mm: float | None = None
    usual_layout_mm: float | None = None
    body_z_mm: tuple[float, float] | None = None
    max_side_mm: float | None = None

    @classmethod
    def from_json(cls, value: Any) -> AnatomyLimits:
        """Read the object; older files have `least_organ_ml` and `least_confidence`.

        Raises:
            SchemaError: A value is of another type.
        """
        if not isinstance(value, Mapping):
            raise SchemaError("anatomy is not an object")
        current = {key.replace("least_", "min_"): item for key, item in value.items()}
        return dataclass_json.from_json(cls, current, path="anatomy")


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """The model whose body-part network and features a fine-tuned model was trained on and uses."""

    name: str
    version: str
    weights_sha256: str


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Mean Dice 0..1 by what was measured ("ensemble", "segmenter", "probe", ...), on how many scans."""

    cases: int = 0
    mean_dice: dict[str, float] = field(default_factory=dict)
    organ_dice: dict[str, float] = field(default_factory=dict)

    @property
    def result_dice(self) -> float | None:
        """Mean Dice of what a run gives: the ensemble's, else the segmenter's; None where neither was measured."""
        return self.mean_dice.get("ensemble", self.mean_dice.get("segmenter"))


@dataclass(frozen=True, kw_only=True)
class ModelManifest:
    """The content of model.json.

    `window` is in `window_unit`, one of WINDOW_UNITS: what becomes -1 and what becomes 1. `spacing_mm` of the model's
    grid and `trunk_spacing_mm`, in which the features and the body-part network lie, go along x, y, z, as
    `tile_voxels`, which the networks see at once; `channels` are the widths of the features. `region_probability` is
    None where it was not calibrated: regions to review have no probability then. Without `reviewed_error` the model
    takes every label that it does not share for wrong. `volume_tail` is the probability above
    which voxels count for the upper end of a volume's 90 % interval; one minus it, for the lower end.
    """

    name: str
    version: str
    modality: str
    title: str = ""
    spacing_mm: Point
    trunk_spacing_mm: Point | None = None
    tile_voxels: tuple[int, int, int] | None = None
    window: tuple[float, float]
    window_unit: str = ""
    labels: tuple[ModelLabel, ...]
    networks: dict[str, NetworkFile] = field(default_factory=dict)
    defaults: Defaults = Defaults()
    anatomy: AnatomyLimits = AnatomyLimits()
    channels: tuple[int, ...] = DEFAULT_CHANNELS
    base: BaseModel | None = None
    training_data: str | None = None
    licence: str | None = None
    quality: Quality | None = None
    region_probability: RegionProbability | None = None
    reviewed_error: ReviewedErrorModel | None = None
    volume_tail: float = VOLUME_TAIL

    def __post_init__(self) -> None:
        if [label.value for label in self.labels] != list(range(1, len(self.labels) + 1)):
            raise SchemaError("label values must be 1, 2, 3, ...")
        if len(self.labels) > MAX_LABELS:
            raise SchemaError(f"there can be {MAX_LABELS} labels")
        if not (min(self.spacing_mm) >= _MIN_SPACING_MM and max(self.spacing_mm) <= _MAX_SPACING_MM):
            raise SchemaError("spacing_mm must be 0.01 to 100")
        if not 0 <= self.volume_tail <= 0.5:
            raise SchemaError("volume_tail must be 0 to 0.5")
        self._check_window()
        siblings = [network.model for network in self.networks.values() if network.model is not None]
        if not all(map(_is_plain_name, (*siblings, *(network.file for network in self.networks.values())))):
            raise SchemaError("network files lie beside model.json, or beside that of a sibling model")

    @classmethod
    def from_json(cls, value: Any) -> ModelManifest:
        """Read the object of a file.

        Raises:
            SchemaError: A value is missing, of another type or out of its range.
        """
        return dataclass_json.from_json(cls, value)

    @property
    def unit(self) -> str:
        """The unit of the window: unless it is stated, HU for CT and the scan's own values for all else."""
        return self.window_unit or ("HU" if self.modality == "CT" else "value")

    def _check_window(self) -> None:
        low, high = self.window
        if self.unit not in WINDOW_UNITS:
            raise SchemaError(f"window_unit must be one of {', '.join(WINDOW_UNITS)}, not {self.window_unit!r:.40}")
        if self.unit == "HU" and self.modality != "CT":
            raise SchemaError("window_unit HU is for CT alone")
        if not low < high:
            raise SchemaError("window must rise")
        if self.unit == "percentile" and not (low >= 0 and high <= 100):
            raise SchemaError("window must lie in 0 to 100 where it holds percentiles")


def _is_plain_name(name: str) -> bool:
    """Whether a file of that name may lie in a folder on every system."""
    return 0 < len(name.encode()) <= _MAX_NAME_BYTES and not name.startswith(".") and not set(name) & set("/\\:")
