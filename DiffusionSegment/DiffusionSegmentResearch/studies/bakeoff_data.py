"""The scans of the bake-off: labelled cases of a fold, partly labelled ones besides, read onto the fine grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from DiffusionSegmentBackend.datasets.case_folds import CaseFold, stratified_folds
from DiffusionSegmentBackend.datasets.labelled_cases import CaseFiles, drawn_values, find_cases
from DiffusionSegmentBackend.datasets.volumes import TrainingVolume, load_volumes
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.models.manifest import ModelDescription
from DiffusionSegmentBackend.models.model import load_network
from DiffusionSegmentBackend.networks.bodypart import BodyPartRegressor
from tqdm import tqdm

from .bakeoff import TRUNK_STRIDE, BakeoffData

FOLDS = 3


def read_bakeoff_data(
    description: ModelDescription, data: Sequence[Path], *, fold: int, folds: int = FOLDS
) -> tuple[BakeoffData, CaseFold]:
    """All given cases of the folders, training and validation together, on a grid finer than the trunk's spacing.

    `description.spacing_mm` is the trunk's. Cases with all organs drawn are split into folds; the others always train.

    Raises:
        DiffusionSegmentError: OPTION for a fold that there is not, TRAINING_DATA, WEIGHTS_MISSING.
    """
    if not 1 <= fold <= folds:
        raise DiffusionSegmentError(ErrorCode.OPTION, f"There is no fold {fold}.", hint=f"Choose 1 to {folds}.")
    files = [case for folder in data for case in _given_cases(folder)]
    spacing = tuple(s / step for s, step in zip(description.spacing_mm, reversed(TRUNK_STRIDE), strict=True))
    fine = replace(description, spacing_mm=spacing)  # type: ignore[arg-type]
    regressor = cast(BodyPartRegressor, load_network(description, "bodypart"))
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
    """Training and validation cases of a folder; where it knows no parts, all are training cases."""
    training = find_cases(folder)
    known = {case.name for case in training}
    return training + [case for case in find_cases(folder, part="validation") if case.name not in known]
