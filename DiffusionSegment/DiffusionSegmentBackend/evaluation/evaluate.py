"""Dice, surface Dice, volumes and uncertainty of a model on labelled scans, in the scans' own geometry."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ..datasets.labelled_cases import CaseFiles, drawn_values, read_case_labels
from ..imaging.volume import Volume
from ..imaging.volume_io import read_volume
from ..models.model import Model, weights_sha256
from ..pipeline.islands import sink_islands
from ..pipeline.memory import memory_errors
from ..pipeline.options import options_for_scan, resolve
from ..pipeline.restore import restore_labels, restore_map
from ..pipeline.segment import open_session
from ..pipeline.session import Session
from ..pipeline.uncertainty import entropy
from ..schema.run_options import RunOptions, RunPlan
from .case_measures import (
    AnswerMeasures,
    CaseMeasures,
    OrganMeasures,
    Truth,
    coordinates_at_centroids,
    error_shares,
    island_counts,
    measure_labels,
    volume_intervals,
)
from .variants import chosen_variants, variant_probabilities, variants_of

_AIR_HU = -120


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a model reached on labelled scans; `answer` is the variant that `segment` delivers.

    `vox2vec` says whether Dice was measured by that protocol as well.
    """

    model: str
    version: str
    sha256: str
    run: RunPlan
    organs: tuple[str, ...]
    variants: tuple[str, ...]
    answer: str
    vox2vec: bool
    cases: tuple[CaseMeasures, ...]


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """Which variants are measured, None for all, and whether Dice is also measured as in vox2vec."""

    variants: tuple[str, ...] | None = None
    vox2vec: bool = False


def evaluate(
    model: Model,
    scans: Sequence[CaseFiles],
    options: RunOptions,
    *,
    measured: EvaluationOptions | None = None,
) -> Evaluation:
    """Run a model on labelled scans and measure it. Every label map is checked before the first run.

    Raises:
        DiffusionSegmentError: OPTION, TRAINING_DATA, OUT_OF_MEMORY, and what reading a scan raises.
    """
    measured = measured or EvaluationOptions()
    variants = chosen_variants(model, measured.variants)
    run = resolve(options, model)
    for scan in tqdm(scans, desc="check", disable=None, leave=False):
        _read(model, scan)
    cases = [
        _measure_case(model, scan, options, variants, vox2vec=measured.vox2vec)
        for scan in tqdm(scans, desc="evaluate", disable=None)
    ]
    return Evaluation(
        model=model.description.name,
        version=model.description.version,
        sha256=weights_sha256(model.description),
        run=run,
        organs=tuple(label.name for label in model.description.labels),
        variants=variants,
        answer=variants_of(model)[-1],
        vox2vec=measured.vox2vec,
        cases=tuple(cases),
    )


def _read(model: Model, scan: CaseFiles) -> tuple[Volume, Truth]:
    volume = read_volume(scan.image)
    labels = read_case_labels(scan, volume, model.description)
    drawn = drawn_values(scan, model.description)
    organs = {label.value: label.name for label in model.description.labels if label.value in drawn}
    return volume, Truth(Volume(labels, volume.index_to_lps), model.description.classes, organs)


def _measure_case(
    model: Model, scan: CaseFiles, options: RunOptions, variants: Sequence[str], *, vox2vec: bool
) -> CaseMeasures:
    volume, truth = _read(model, scan)
    session = open_session(volume, model, replace(options_for_scan(options), force=True), islands=True)
    began = time.perf_counter()
    on_grid = session.grid.labels_to_grid(truth.labels)
    measures: dict[str, dict[str, OrganMeasures]] = {}
    answer = None
    with torch.inference_mode(), memory_errors():
        for name in variants:
            probabilities = variant_probabilities(session.prediction, name)
            islands = sink_islands(probabilities, smallest_piece=model.description.defaults.smallest_piece)
            labels = restore_labels(probabilities, session.prediction.offset, session.grid)
            measures[name] = measure_labels(labels, truth, vox2vec=vox2vec)
            if name == variants_of(model)[-1]:
                taken_out, right = island_counts(islands, on_grid, session.prediction.offset, truth.organs)
                answer = AnswerMeasures(
                    intervals_ml=volume_intervals(probabilities, _grid_voxel_ml(session), truth.organs),
                    errors_in_most_uncertain=_error_shares(probabilities, labels, truth, volume, session),
                    islands_taken_out=taken_out,
                    islands_mostly_organ=right,
                )
    coordinates = coordinates_at_centroids(
        session.prediction.coordinates_mm.numpy(), on_grid, truth.classes, truth.organs
    )
    return CaseMeasures(
        name=scan.name,
        image=str(scan.image.resolve()),
        label=str(scan.label.resolve()),
        true_ml=truth.volumes_ml,
        variants=measures,
        answer=answer,
        body_coordinates_mm=coordinates,
        seconds={**session.seconds, "measure": round(time.perf_counter() - began, 3)},
    )


def _grid_voxel_ml(session: Session) -> float:
    return float(np.prod(session.grid.spacing)) / 1000.0


def _error_shares(
    probabilities: Tensor, labels: NDArray[np.uint8], truth: Truth, volume: Volume, session: Session
) -> dict[str, float]:
    """In the body alone; an organ that nobody drew counts as background on both sides."""
    body = volume.array > _AIR_HU
    uncertainty = restore_map(entropy(probabilities).numpy(), session.prediction.offset, session.grid)
    drawn = np.isin(np.arange(truth.classes), list(truth.organs))
    return error_shares(uncertainty[body], (np.where(drawn[labels], labels, 0) != truth.labels)[body])
