"""Labelled phantoms for `evaluate`, and evaluations with made-up scores for what is done with its results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from DiffusionSegmentBackend.diffusion.reverse import SAMPLERS
from DiffusionSegmentBackend.evaluation.case_measures import AnswerMeasures, CaseMeasures, OrganMeasures
from DiffusionSegmentBackend.evaluation.evaluate import Evaluation
from DiffusionSegmentBackend.evaluation.result_files import write_evaluation
from DiffusionSegmentBackend.phantom import make_phantom
from DiffusionSegmentBackend.pipeline.options import ResolvedRun
from DiffusionSegmentBackend.pipeline.sampling import SamplingPlan
from DiffusionSegmentBackend.volume import Volume
from DiffusionSegmentBackend.volume_io import write_volume
from numpy.typing import NDArray

ORGANS = ("spleen", "right_kidney", "left_kidney")
SPACING_MM = (12.0, 12.0, 12.0)

# Case -> organ -> Dice; None for an organ that the case lacks.
MadeUp = Mapping[str, Mapping[str, float | None]]


def phantom_labels(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The organs that the tiny models know."""
    return np.where(labels <= len(ORGANS), labels, 0).astype(np.uint8)


def write_labelled_phantoms(
    data: Path, seeds: Mapping[str, int], *, spacing_mm: tuple[float, float, float] = SPACING_MM
) -> Path:
    """Write images/ and labels/ into a data folder, a phantom a name."""
    for name in ("images", "labels"):
        (data / name).mkdir(parents=True, exist_ok=True)
    for name, seed in seeds.items():
        phantom = make_phantom(seed=seed, spacing_mm=spacing_mm)
        write_volume(Volume(np.asarray(phantom.image), phantom.index_to_lps), data / "images" / f"{name}.nii.gz")
        labels = phantom_labels(np.asarray(phantom.labels))
        write_volume(Volume(labels, phantom.index_to_lps), data / "labels" / f"{name}.nii.gz")
    return data


def strict_json(path: Path) -> Any:
    """The content of a JSON file; NaN and Infinity, which are no JSON, fail."""

    def refuse(name: str) -> float:
        raise AssertionError(f"{path} holds {name}")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def made_up_evaluation(dice: MadeUp, *, variant: str = "ensemble", organs: Sequence[str] = ORGANS) -> Evaluation:
    """An evaluation whose surface Dice is half its Dice; every organ that shows has 100 mL, 90 of them predicted."""
    plan = SamplingPlan(schedule="cosine", sampler=SAMPLERS[0], steps=1, abar_start=0.2, seed=0)
    return Evaluation(
        model="made-up",
        version="1.0",
        sha256="0" * 64,
        run=ResolvedRun(plan, 1, (1, 2, 3), None),
        organs=tuple(organs),
        variants=(variant,),
        answer=variant,
        vox2vec=False,
        cases=tuple(_case(name, scores, variant) for name, scores in dice.items()),
    )


def _case(name: str, scores: Mapping[str, float | None], variant: str) -> CaseMeasures:
    return CaseMeasures(
        name=name,
        image=f"images/{name}.nii.gz",
        label=f"labels/{name}.nii.gz",
        true_ml={organ: 0.0 if score is None else 100.0 for organ, score in scores.items()},
        variants={
            variant: {
                organ: OrganMeasures(
                    dice=score, surface_dice_2mm=None if score is None else score / 2, predicted_ml=90.0
                )
                for organ, score in scores.items()
            }
        },
        answer=AnswerMeasures(
            intervals_ml=dict.fromkeys(scores, (80.0, 110.0)),
            errors_in_most_uncertain={"0.01": 0.2, "0.02": 0.3, "0.05": 0.5},
            islands_taken_out=2,
            islands_mostly_organ=1,
        ),
        body_coordinates_mm={organ: (1.0, 2.0, 3.0) if score is not None else None for organ, score in scores.items()},
        seconds={"measure": 0.1},
    )


def write_made_up(path: Path, dice: MadeUp, **described: Any) -> Path:
    """Write such an evaluation as `evaluate` does."""
    write_evaluation(path, made_up_evaluation(dice, **described), [], part=None)
    return path
