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
from ..pipeline.islands import remove_islands
from ..pipeline.memory import memory_errors
from ..pipeline.options import options_for_scan, resolve
from ..pipeline.restore import restore_labels, restore_map
from ..pipeline.segment import open_session
from ..pipeline.session import Session
from ..pipeline.uncertainty import entropy
from ..schema.run_options import RunOptions, RunPlan
from .case_measures import (
    CaseMeasures,
    OrganMeasures,
    OutputMeasures,
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
    """Measures of a model on labelled scans.

    `output_variant` is the variant that `segment` outputs; `vox2vec`, whether Dice was also measured by that protocol.
    """

    model: str
    version: str
    sha256: str
    run: RunPlan
    organs: tuple[str, ...]
    variants: tuple[str, ...]
    output_variant: str
    vox2vec: bool
    cases: tuple[CaseMeasures, ...]


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """The variants to measure, None for all, and whether to measure Dice also by the protocol of vox2vec."""

    variants: tuple[str, ...] | None = None
    vox2vec: bool = False


def evaluate(
    model: Model,
    scans: Sequence[CaseFiles],
    options: RunOptions,
    *,
    measured: EvaluationOptions | None = None,
) -> Evaluation:
    """Run a model on labelled scans and measure it; all label maps are checked before the first run.

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
        output_variant=variants_of(model)[-1],
        vox2vec=measured.vox2vec,
        cases=tuple(cases),
    )


def _read(model: Model, scan: CaseFiles) -> tuple[Volume, Truth]:
    volume = read_volume(scan.image)
    labels = read_case_labels(scan, volume, model.description)
    drawn = drawn_values(scan, model.description)
    organs = {label.value: label.name for label in model.description.labels if label.value in drawn}
    return volume, Truth(Volume(labels, volume.index_to_lps), model.description.classes, organs)


@dataclass(frozen=True)
class _CaseRun:
    """A finished run on one labelled scan; `true_on_grid` (z, y, x) are the true labels on the model's grid."""

    volume: Volume
    truth: Truth
    session: Session
    true_on_grid: NDArray[np.uint8]


def _measure_case(
    model: Model, scan: CaseFiles, options: RunOptions, variants: Sequence[str], *, vox2vec: bool
) -> CaseMeasures:
    volume, truth = _read(model, scan)
    session = open_session(volume, model, replace(options_for_scan(options), force=True), keep_islands=True)
    began = time.perf_counter()
    run = _CaseRun(volume, truth, session, session.grid.labels_to_grid(truth.labels))
    with torch.inference_mode(), memory_errors():
        measured = {name: _measure_variant(run, model, name, vox2vec=vox2vec) for name in variants}
    coordinates = coordinates_at_centroids(
        session.prediction.coordinates_mm.numpy(), run.true_on_grid, truth.classes, truth.organs
    )
    return CaseMeasures(
        name=scan.name,
        image=str(scan.image.resolve()),
        label=str(scan.label.resolve()),
        true_ml=truth.volumes_ml,
        variants={name: organs for name, (organs, _) in measured.items()},
        output=next((output for _, output in measured.values() if output is not None), None),
        body_coordinates_mm=coordinates,
        seconds={**session.seconds, "measure": round(time.perf_counter() - began, 3)},
    )


def _measure_variant(
    run: _CaseRun, model: Model, name: str, *, vox2vec: bool
) -> tuple[dict[str, OrganMeasures], OutputMeasures | None]:
    """Measures by organ, and for the variant that `segment` outputs those of its uncertainty and islands."""
    session = run.session
    probabilities = variant_probabilities(session.prediction, name)
    islands = remove_islands(probabilities, smallest_piece=model.description.defaults.smallest_piece)
    labels = restore_labels(probabilities, session.prediction.offset, session.grid)
    organs = measure_labels(labels, run.truth, vox2vec=vox2vec)
    if name != variants_of(model)[-1]:
        return organs, None
    return organs, _measure_output(run, probabilities, labels, islands, tail=model.description.volume_tail)


def _measure_output(
    run: _CaseRun, probabilities: Tensor, labels: NDArray[np.uint8], islands: NDArray[np.uint8], *, tail: float
) -> OutputMeasures:
    session, truth = run.session, run.truth
    removed, mostly_organ = island_counts(islands, run.true_on_grid, session.prediction.offset, truth.organs)
    return OutputMeasures(
        intervals_ml=volume_intervals(probabilities, session.grid.voxel_ml, truth.organs, tail=tail),
        errors_in_most_uncertain=_error_shares(run, probabilities, labels),
        removed_islands=removed,
        islands_mostly_organ=mostly_organ,
    )


def _error_shares(run: _CaseRun, probabilities: Tensor, labels: NDArray[np.uint8]) -> dict[str, float]:
    """Shares within the body; an organ that was not annotated in the case counts as background in both maps."""
    body = run.volume.array > _AIR_HU
    uncertainty = restore_map(entropy(probabilities).numpy(), run.session.prediction.offset, run.session.grid)
    annotated = np.isin(np.arange(run.truth.classes), list(run.truth.organs))
    return error_shares(uncertainty[body], (np.where(annotated[labels], labels, 0) != run.truth.labels)[body])
