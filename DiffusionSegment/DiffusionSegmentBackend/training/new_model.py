"""The model.json of a model before training, from a manifest or another model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..models.folders import bundled_models_folder
from ..models.manifest import ModelDescription
from ..models.user_models import is_model_name

LICENCE_NOT_STATED = "not stated"
_FIRST_VERSION = "1"
# No scan is refused before the limits are measured.
_UNMEASURED_ANATOMY = {"min_organ_ml": 0.0, "min_confidence": 0.0, "usual_confidence": 0.0}


def new_description(source: ModelDescription, *, folder_name: str, own: bool, licence: str = "") -> dict[str, Any]:
    """The model.json at the start of a training.

    Title, modality, grid, window, labels and defaults are those of `source`; networks, quality, training data and the
    limits of the anatomy check are empty. What was calibrated for the networks of `source` is left out.

    Args:
        source: Manifest or model.
        folder_name: Name of the model's folder.
        own: Whether `source` is a manifest of the user, which also defines name, version and licence. Otherwise the
            model is named after its folder and has version 1.
        licence: Licence of the weights.
    """
    raw = {**source.raw, "networks": {}, "quality": {}, "training_data": "", "anatomy": dict(_UNMEASURED_ANATOMY)}
    raw.pop("base", None)
    raw.pop("region_probability", None)
    raw.pop("reviewed_error", None)
    raw.pop("volume_tail", None)
    raw["labels"] = _labels_in_frame(raw["labels"])
    raw["licence"] = licence or (str(raw.get("licence") or "") if own else "") or LICENCE_NOT_STATED
    if not own:
        raw["version"] = _FIRST_VERSION
    if not own and is_model_name(folder_name) and not (bundled_models_folder() / folder_name).exists():
        raw["name"] = folder_name
    return raw


def _labels_in_frame(labels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Labels without margins, and with positions in the body frame only if all have one; otherwise it is fitted."""
    left_out = {"margin"} if all("body_mm" in label for label in labels) else {"margin", "body_mm"}
    return [{key: value for key, value in label.items() if key not in left_out} for label in labels]


def data_text(labelled: Mapping[str, int], *, unlabelled: int = 0, source: str = "") -> str:
    """`training_data` of model.json: labelled scans by the name of their folder, and scans without labels."""
    parts = [f"{count} labelled scans of {name}" for name, count in labelled.items()]
    parts += [f"{unlabelled} scans without labels"] if unlabelled else []
    text = ", ".join(parts)
    return f"{source}: {text}" if source else text
