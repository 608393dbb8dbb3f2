"""Checks of a model from another computer before its installation: complete, consistent, not too large."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import DiffusionSegmentError
from .archive import FINE_TUNED, MANIFEST_FILE, ArchiveManifest, refusal, weights_file
from .manifest import DESCRIPTION_FILE, ModelDescription, find_model, label_without_terms, read_description
from .model import check_base, load_model, load_network, weights_missing

_SIZES = ("spacing_mm", "trunk_spacing_mm", "tile_voxels")
INHERITED_FIELDS = (*_SIZES, "modality", "window", "window_unit")
# Limits of an untrusted description, which must not exhaust the memory.
_MIN_SPACING_MM = 0.05
_MAX_TILE_VOXELS = 4_000_000
_MAX_STRIDE = 8


def check_model(folder: Path, manifest: ArchiveManifest, source: Path) -> None:
    """Refuse the model in a folder if it is incomplete, does not fit its networks, or takes too much memory.

    Raises:
        DiffusionSegmentError: INPUT_UNREADABLE, WEIGHTS_CORRUPT, WEIGHTS_MISSING.
    """
    check = _check_fine_tuned if manifest.format == FINE_TUNED else _check_whole
    try:
        check(read_description(folder), manifest.name, source)
    except DiffusionSegmentError as error:
        # The folder is a temporary one, which the user does not know.
        raise DiffusionSegmentError(
            error.code, error.message.replace(str(folder), str(source)), hint=error.hint
        ) from error


def _check_fine_tuned(description: ModelDescription, name: str, source: Path) -> None:
    shared = {network for network, entry in description.networks.items() if entry.model is not None}
    own = set(description.networks) - shared
    if description.base is None or description.name != name or own != {"probe"} or "bodypart" not in shared:
        raise refusal(source, "it is not a fine-tuned model")
    check_base(description)
    base = read_description(find_model(description.base.name))
    if shared != shared_networks(base):
        raise refusal(source, "it is not a fine-tuned model")
    # Sizes must be those of the base: a grid or a network of an untrusted description could exhaust the memory.
    expected = probe_architecture(base, description.classes)
    same = all(description.raw.get(key) == base.raw.get(key) for key in _SIZES) and all(
        description.networks[name].architecture == base.networks[name].architecture for name in shared
    )
    if not same or description.networks["probe"].architecture != expected:
        raise refusal(source, f"it does not fit {base.name}, its base")
    load_network(description, "probe")


def _check_whole(description: ModelDescription, name: str, source: Path) -> None:
    files = {network: weights_file(network) for network in description.needed_networks}
    if description.name != name or description.base is not None:
        raise refusal(source, f"{DESCRIPTION_FILE} is not that of the whole model that {MANIFEST_FILE} names")
    if {network: entry.file for network, entry in description.networks.items()} != files or any(
        entry.model is not None for entry in description.networks.values()
    ):
        raise refusal(source, f"it has not just the networks of a model: {', '.join(files)}")
    incomplete = label_without_terms(description.raw)
    if incomplete:
        raise refusal(source, f"the label {incomplete} has no category, code or colour")
    # A grid or a tile of an untrusted description could exhaust the memory.
    if min(description.spacing_mm) < _MIN_SPACING_MM or _voxels(description) > _MAX_TILE_VOXELS:
        raise refusal(source, "its grid or its tile is too fine")
    wrong = [network for network in files if not _fits(description, network)]
    if wrong:
        raise refusal(source, f"{DESCRIPTION_FILE} does not fit its {wrong[0]}")
    load_model(str(description.folder), "cpu", precision="float32")


def _voxels(description: ModelDescription) -> int:
    z, y, x = description.tile.voxels
    return z * y * x


def _fits(description: ModelDescription, network: str) -> bool:
    """Whether a network has the channels and classes of model.json."""
    architecture, channels = description.networks[network].architecture, list(description.channels)
    fitting: dict[str, dict[str, Any]] = {
        "bodypart": {},
        "backbone": {"channels": channels},
        "segmenter": {"channels": channels, "classes": description.classes},
        "probe": {"channels": channels, "classes": description.classes},
        "refiner": {"feature_channels": channels[:2], "classes": description.classes},
    }
    stride = architecture.get("stride", 1)
    small = all(
        isinstance(n, int) and 1 <= n <= _MAX_STRIDE for n in (stride if isinstance(stride, list) else [stride])
    )
    return small and all(architecture.get(key) == value for key, value in fitting[network].items())


def shared_networks(base: ModelDescription) -> set[str]:
    """The networks that a model fine-tuned on `base` shares with it: all but heads and refiner."""
    return set(base.needed_networks) - {"probe", "refiner"}


def probe_architecture(base: ModelDescription, classes: int) -> dict[str, Any]:
    """Architecture of a probe fine-tuned on `base`: that of its own probe, or one on the features of its segmenter."""
    if "probe" in base.networks:
        return {**base.networks["probe"].architecture, "classes": classes}
    return {"channels": list(base.channels), "classes": classes}


def why_unusable(folder: Path) -> str | None:
    """Why an installed model cannot be used, and the next step, in a line; None if it can.

    Weights are not read: changed files are detected when the model is loaded.
    """
    try:
        description = read_description(folder)
        for network in description.needed_networks:
            path = description.file_of(network)
            if path is None or not path.is_file():
                raise weights_missing(description, network)
        incomplete = label_without_terms(description.raw)
    except DiffusionSegmentError as error:
        return f"{error.message} {error.hint}".strip()
    if incomplete:
        return f"Slicer's panel leaves it out: its label '{incomplete}' has no category, code or colour. Add them."
    return None
