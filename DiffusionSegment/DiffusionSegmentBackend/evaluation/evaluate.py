"""Dice and uncertainty of a model on labelled scans, native geometry: of the probe, the refiner, and their ensemble."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ..pipeline.islands import pieces_of, sink_islands
from ..pipeline.model import Model, weights_sha256
from ..pipeline.options import SegmentOptions, plan_of
from ..pipeline.prediction import Job, predict
from ..pipeline.prepare import network_input
from ..pipeline.restore import restore_labels, restore_map
from ..pipeline.session import ENSEMBLE_WEIGHT, Prediction, Stopwatch
from ..pipeline.uncertainty import entropy, volume_interval_ml
from ..training.data import CaseFiles, drawn_values, read_case_labels
from ..volume import Grid, Volume, model_grid
from ..volume_io import read_volume
from .metrics import centroid_values, dice_by_label, dice_of_vox2vec, errors_in_most_uncertain
from .surface import surface_dice_by_label

_SHARES = (0.01, 0.02, 0.05)
_AIR_HU = -120


def evaluate(model: Model, scans: Sequence[CaseFiles], options: SegmentOptions) -> dict[str, Any]:
    """Tables for metrics.json: per case and organ, their means and medians; Dice and surface Dice 0..1."""
    cases = [_evaluate_case(model, scan, options) for scan in tqdm(scans, desc="evaluate", disable=None)]
    names = [label.name for label in model.description.labels]
    variants = ("probe", "refiner", "ensemble")
    plan, samples = plan_of(options, model)
    return {
        "model": model.description.name,
        "sha256": weights_sha256(model.description),
        "options": {
            "samples": samples,
            "steps": plan.steps,
            "seed": plan.seed,
            "sampler": plan.sampler,
            "schedule": plan.schedule,
            "abar_start": plan.abar_start,
        },
        "cases": len(cases),
        "mean_dice": {v: _mean([case["dice"][v] for case in cases], np.nanmean) for v in variants},
        "median_dice": {v: _mean([case["dice"][v] for case in cases], np.nanmedian) for v in variants},
        "surface_dice_2mm": {v: _mean([case["surface_dice_2mm"][v] for case in cases], np.nanmean) for v in variants},
        "dice_1x1x2mm": {v: _mean([case["dice_1x1x2mm"][v] for case in cases], np.nanmean) for v in variants},
        "organ_dice": {
            v: {name: _rounded(np.nanmean([case["dice"][v][n] for case in cases])) for n, name in enumerate(names)}
            for v in variants
        },
        "bodypart_spread_mm": _spread([case["bodypart_at_centroids"] for case in cases]),
        "volume_interval_coverage": _rounded(np.mean([hit for case in cases for hit in case["interval_hits"]])),
        "islands": {
            count: sum(case["islands"][count] for case in cases) for count in ("taken out", "mostly the organ")
        },
        "errors_in_most_uncertain": {
            str(share): _rounded(np.mean([case["errors_in_most_uncertain"][str(share)] for case in cases]))
            for share in _SHARES
        },
        "by_case": [_without_nan(case) for case in cases],
    }


def _evaluate_case(model: Model, scan: CaseFiles, options: SegmentOptions) -> dict[str, Any]:
    volume = read_volume(scan.image)
    truth = read_case_labels(scan, volume, model.description)
    plan, samples = plan_of(options, model)
    grid = model_grid(volume, spacing=model.description.spacing_mm)
    watch = Stopwatch()
    with torch.inference_mode():
        image = torch.from_numpy(network_input(volume, grid, model.description))
        job = Job(image=image, plan=plan, samples=samples, tile=model.tile, force=True, islands=True)
        prediction = predict(job, model, watch=watch)
        # What the ensemble holds beside the probe.
        refined = (prediction.ensemble - (1 - ENSEMBLE_WEIGHT) * prediction.pre) / ENSEMBLE_WEIGHT
        maps = {"probe": prediction.pre, "refiner": refined, "ensemble": prediction.ensemble}
        share = model.description.defaults.smallest_piece
        islands = {name: sink_islands(p, smallest_piece=share) for name, p in maps.items()}["ensemble"]
        labels = {name: restore_labels(p, prediction.offset, grid) for name, p in maps.items()}
    classes = model.description.classes
    drawn = drawn_values(scan, model.description)
    unknown = np.array([value not in drawn for value in range(1, classes)])
    on_grid = grid.labels_to_grid(truth)
    x, y, z = (float(length) for length in np.linalg.norm(volume.index_to_lps[:3, :3], axis=0))
    resampled = {n: dice_of_vox2vec(p, truth, classes, index_to_lps=volume.index_to_lps) for n, p in labels.items()}
    surface = {n: surface_dice_by_label(p, truth, classes, (z, y, x)) for n, p in labels.items()}
    return {
        "name": scan.name,
        "dice": {n: _known(dice_by_label(p, truth, classes), unknown) for n, p in labels.items()},
        "surface_dice_2mm": {n: _known(values, unknown) for n, values in surface.items()},
        "dice_1x1x2mm": {n: _known(values, unknown) for n, values in resampled.items()},
        "bodypart_at_centroids": np.round(
            centroid_values(prediction.coordinates_mm.numpy(), on_grid, classes), 1
        ).tolist(),
        "islands": _islands(islands, on_grid, prediction.offset, drawn),
        "interval_hits": _interval_hits(prediction, truth, grid, volume),
        "errors_in_most_uncertain": _error_shares(
            prediction, np.where(np.isin(labels["ensemble"], list(drawn)), labels["ensemble"], 0), truth, grid, volume
        ),
        "seconds": watch.seconds,
    }


def _islands(islands: NDArray, truth: NDArray, offset: tuple[int, int, int], drawn: Collection[int]) -> dict[str, int]:
    """How many pieces of drawn organs were taken out, and how many of them were mostly the organ."""
    pieces = [(value, voxels + np.array(offset)) for value, voxels in pieces_of(islands) if value in drawn]
    right = sum(np.mean(truth[tuple(voxels.T)] == value) > 0.5 for value, voxels in pieces)
    return {"taken out": len(pieces), "mostly the organ": int(right)}


def _known(values: NDArray[np.float64], unknown: NDArray[np.bool_]) -> list[float]:
    """NaN for organs that nobody drew: they are not absent, their truth is unknown."""
    return np.where(unknown, np.nan, values).tolist()


def _interval_hits(prediction: Prediction, truth: NDArray, grid: Grid, volume: Volume) -> list[bool]:
    """For each organ that the truth shows: does the 90 % interval hold its true volume?"""
    voxel_ml = float(np.prod(grid.spacing)) / 1000.0
    hits = []
    for value in range(1, prediction.ensemble.shape[0]):
        true_ml = np.count_nonzero(truth == value) * volume.voxel_ml
        if true_ml > 0:
            low, high = volume_interval_ml(prediction.ensemble[value].numpy(), voxel_ml)
            hits.append(bool(low <= true_ml <= high))
    return hits


def _error_shares(
    prediction: Prediction, labels: NDArray, truth: NDArray, grid: Grid, volume: Volume
) -> dict[str, float]:
    body = volume.array > _AIR_HU
    doubt = restore_map(entropy(prediction.ensemble).numpy(), prediction.offset, grid)[body]
    wrong = (labels != truth)[body]
    return {str(share): _rounded(errors_in_most_uncertain(doubt, wrong, share=share)) for share in _SHARES}


def _spread(rows: list[list[list[float]]]) -> list[float] | None:
    """Deviation over patients of the body coordinate at an organ's centroid, median over organs: x, y, z in mm."""
    if len(rows) < 2:
        return None
    return [_rounded(v) for v in np.nanmedian(np.nanstd(np.array(rows, dtype=float), axis=0, ddof=1), axis=0)]


def _mean(rows: list[list[float]], average: Any) -> float:
    return _rounded(average(np.asarray(rows, dtype=float)))


def _rounded(value: Any) -> float:
    return round(float(value), 4)


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: an organ that the truth does not show becomes null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return (None if np.isnan(value) else _rounded(value)) if isinstance(value, float) else value
