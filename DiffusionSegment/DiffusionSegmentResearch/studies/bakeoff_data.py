"""Data and plan of a bake-off: labelled cases of a fold, and partly labelled ones, on the fine grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from DiffusionSegmentBackend.datasets.case_folds import CaseFold, stratified_folds
from DiffusionSegmentBackend.datasets.labelled_cases import CaseFiles, drawn_values, find_cases
from DiffusionSegmentBackend.datasets.volumes import TrainingVolume, load_volumes
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.models.manifest import ModelDescription
from DiffusionSegmentBackend.models.model import choose_device
from tqdm import tqdm

from .bakeoff import TRUNK_STRIDE, BakeoffData, BakeoffPlan
from .study import StudyRequest
from .study_data import load_regressor

FOLDS = 3
_TRUNK_MINUTES, _ARM_MINUTES = 60.0, 20.0


@dataclass(frozen=True)
class BakeoffSetup:
    """Data and plan of a bake-off, and its held-out fold (from 1)."""

    data: BakeoffData
    plan: BakeoffPlan
    fold: int


def read_setup(request: StudyRequest) -> BakeoffSetup:
    """The setup by the options of the request; labels, window and body-part network are those of the first model.

    Raises:
        DiffusionSegmentError: OPTION, TRAINING_DATA, WEIGHTS_MISSING.
    """
    options = request.options
    device = choose_device("auto").type
    if device == "cpu":
        torch.set_num_threads(1)  # patches and scans have their own threads
    fold = options.fold or 1
    data, _ = read_bakeoff_data(request.description, request.data, fold=fold)
    plan = BakeoffPlan(
        folder=request.trainings,
        trunk_minutes=options.trunk_minutes or _TRUNK_MINUTES,
        arm_minutes=options.minutes or _ARM_MINUTES,
        seed=request.seed,
        device=device,
    )
    return BakeoffSetup(data, plan, fold)


def read_bakeoff_data(
    description: ModelDescription, data: Sequence[Path], *, fold: int, folds: int = FOLDS
) -> tuple[BakeoffData, CaseFold]:
    """Training and validation cases of the folders, on a grid finer than the trunk's spacing `description.spacing_mm`.

    Cases with all organs annotated are split into folds; the others are always training cases.

    Raises:
        DiffusionSegmentError: OPTION for an unknown fold, TRAINING_DATA, WEIGHTS_MISSING.
    """
    if not 1 <= fold <= folds:
        raise DiffusionSegmentError(ErrorCode.OPTION, f"There is no fold {fold}.", hint=f"Choose 1 to {folds}.")
    files = [case for folder in data for case in _given_cases(folder)]
    spacing = tuple(s / step for s, step in zip(description.spacing_mm, reversed(TRUNK_STRIDE), strict=True))
    fine = replace(description, spacing_mm=spacing)  # type: ignore[arg-type]
    regressor = load_regressor(description)
    volumes: dict[str, TrainingVolume] = {}
    for case in tqdm(files, desc="read"):
        (volumes[case.name],) = load_volumes([case], fine, regressor, trunk_stride=TRUNK_STRIDE)
    organs = description.classes - 1
    complete = {case.name: case for case in files if len(drawn_values(case, fine)) == organs}
    slices = {name: volumes[name].grid.native_spacing[2] for name in complete}
    chosen = stratified_folds(slices, count=folds)[fold - 1]
    return BakeoffData(
        fine,
        training=[volumes[name] for name in chosen.training],
        partial=[volumes[case.name] for case in files if case.name not in complete],
        held_out=[(complete[name], volumes[name]) for name in chosen.held_out],
    ), chosen


def _given_cases(folder: Path) -> list[CaseFiles]:
    """Training and validation cases of a folder; without a split, all are training cases."""
    training = find_cases(folder)
    known = {case.name for case in training}
    return training + [case for case in find_cases(folder, part="validation") if case.name not in known]
