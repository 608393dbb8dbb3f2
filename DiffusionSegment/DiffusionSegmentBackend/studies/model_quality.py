"""Dice and surface Dice of a whole model on labelled scans in their own geometry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..evaluation.evaluate import evaluate
from ..pipeline.model import Model
from ..pipeline.options import SegmentOptions
from ..training.data import CaseFiles
from .result_file import StudyRow

_VARIANTS = ("probe", "refiner", "ensemble")


def model_rows(model: Model, scans: Sequence[CaseFiles]) -> list[StudyRow]:
    """A row each for probe, refiner and ensemble, the last also as vox2vec measures Dice.

    The ensemble's own row carries what was measured of its uncertainty.
    """
    found = evaluate(model, scans, SegmentOptions())
    organs = [label.name for label in model.description.labels]
    rows = [
        StudyRow(
            f"{model.description.name}, {variant}",
            dice=_table(found, "dice", variant, organs),
            surface_dice=_table(found, "surface_dice_2mm", variant, organs),
        )
        for variant in _VARIANTS
    ]
    rows[-1].numbers = {
        "coverage of 90 % intervals": found["volume_interval_coverage"],
        **{
            f"wrong in top {100 * float(share):g} %": value
            for share, value in found["errors_in_most_uncertain"].items()
        },
        "islands taken out": found["islands"]["taken out"],
        "of them mostly the organ": found["islands"]["mostly the organ"],
    }
    table = _table(found, "dice_1x1x2mm", "ensemble", organs)
    return [*rows, StudyRow(f"{model.description.name}, ensemble, vox2vec's protocol", dice=table)]


def _table(found: dict[str, Any], measure: str, variant: str, organs: Sequence[str]) -> dict[str, dict[str, Any]]:
    return {case["name"]: dict(zip(organs, case[measure][variant], strict=True)) for case in found["by_case"]}
