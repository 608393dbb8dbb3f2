"""Estimate the time for reading all scans and scoring the held-out ones, from measurements on a few."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from ...datasets.labelled_cases import CaseFiles, load_case
from ...datasets.scans import Note, ScanFiles, complete_cases
from ...datasets.volumes import TrainingVolume, training_volume
from ...models.manifest import ModelDescription
from ...networks.bodypart import BodyPartRegressor
from .networks import NetworkTraining
from .out_of_fold import predict_out_of_fold
from .time_plan import Preparation

# Safety factor.
_MARGIN = 1.15
_Result = TypeVar("_Result")


def measure_preparation(scans: ScanFiles, training: NetworkTraining, note: Note, *, pseudo_labels: bool) -> Preparation:
    """Read the smallest and the largest scan, segment one with an untrained network, and extrapolate.

    Time is assumed to be proportional to the size of the image files, and is counted on the same clock as training.
    """
    clock = _clock(training)
    began = clock()
    description, regressor = training.description, BodyPartRegressor().eval()
    coarse = replace(description, spacing_mm=description.trunk_spacing_mm)
    ordered = sorted(scans.cases, key=lambda case: file_bytes(case.image))
    chosen = ordered[:: max(1, len(ordered) - 1)][:2]
    sampled = sum(file_bytes(case.image) for case in chosen)
    seconds = {"trunk": 0.0, "grid": 0.0}
    volumes: list[tuple[CaseFiles, TrainingVolume]] = []
    for number, case in enumerate(chosen, start=1):
        note(f"timing scan {number} of {len(chosen)}")
        seconds["trunk"] += _timed(clock, partial(load_case, case, coarse))[0]
        took, volume = _timed(clock, partial(_volume, case, regressor, description))
        seconds["grid"] += took
        volumes.append((case, volume))
    scoring = _timed(clock, partial(_score, training, *volumes[0]))[0] / file_bytes(volumes[0][0].image)
    total = sum(file_bytes(case.image) for case in scans.cases) + sum(map(file_bytes, scans.unlabelled))
    held_out = sum(file_bytes(case.image) for case in complete_cases(scans.cases, description))
    per_minute = _MARGIN / 60
    return Preparation(
        timing=(clock() - began) / 60,
        trunk_reading=seconds["trunk"] / sampled * total * per_minute,
        reading=seconds["grid"] / sampled * total * per_minute,
        scoring=scoring * held_out * per_minute,
        labelling=scoring * total * per_minute if pseudo_labels else 0.0,
    )


def _clock(training: NetworkTraining) -> Callable[[], float]:
    """The clock of the training budget, in seconds."""
    if training.processor_time and training.device == "cpu":
        return lambda: time.process_time() / torch.get_num_threads()
    return time.monotonic


def _timed(clock: Callable[[], float], action: Callable[[], _Result]) -> tuple[float, _Result]:
    began = clock()
    result = action()
    return clock() - began, result


def _volume(files: CaseFiles, regressor: BodyPartRegressor, description: ModelDescription) -> TrainingVolume:
    case = load_case(files, description)
    return training_volume(case, regressor, description.classes, trunk_stride=description.tile.stride)


def _score(training: NetworkTraining, case: CaseFiles, volume: TrainingVolume) -> None:
    network = training.untrained().eval()
    predict_out_of_fold(network, volume, case, training.description, training.recipe(), device=training.device)


def file_bytes(path: Path) -> int:
    """Size of a file or of all files of a DICOM series in bytes, at least 1."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    return max(1, sum(file.stat().st_size for file in files))
