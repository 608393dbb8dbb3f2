"""Cases of the studies, and what a model folder records of its trainings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.models.manifest import ModelDescription
from DiffusionSegmentBackend.models.model import load_network
from DiffusionSegmentBackend.networks.backbone import Backbone
from DiffusionSegmentBackend.networks.bodypart import BodyPartRegressor
from DiffusionSegmentBackend.training.session import TRAINING_FOLDER, add_coordinates, load_cases

from .frozen_features import Cohort


def load_regressor(description: ModelDescription) -> BodyPartRegressor:
    """The body-part network of a model folder, on the CPU."""
    return cast(BodyPartRegressor, load_network(description, "bodypart"))


def load_backbone(description: ModelDescription) -> Backbone:
    """The backbone of a model folder, on the CPU."""
    return cast(Backbone, load_network(description, "backbone"))


def validation_cases(description: ModelDescription, data: Sequence[Path]) -> list[Case]:
    """Validation cases with body coordinates."""
    cases = load_cases(data, description, part="validation")
    add_coordinates(cases, load_regressor(description))
    return cases


def load_cohort(description: ModelDescription, data: Sequence[Path]) -> Cohort:
    """Training and validation cases with body coordinates."""
    training, validation = load_cases(data, description), validation_cases(description, data)
    add_coordinates(training, load_regressor(description))
    return Cohort(training + validation, len(validation), organ_names(description))


def organ_names(description: ModelDescription) -> tuple[str, ...]:
    """Names of the model's labels, background excluded."""
    return tuple(label.name for label in description.labels)


def training_budget(description: ModelDescription, network: str) -> str:
    """Steps and minutes of the training of a network."""
    record = training_record(description, network)
    if not record:
        return "not recorded"
    return f"{record['steps_done']} steps, {record['training_seconds'] / 60:.0f} minutes a training"


def training_record(description: ModelDescription, network: str) -> dict[str, Any]:
    """What `train` recorded of a network; empty where there is no record."""
    path = description.folder / TRAINING_FOLDER / f"{network}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
