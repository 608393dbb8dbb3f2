"""report.json: volumes with intervals, confidence, regions to review, timings, memory, scales, provenance."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from .. import __version__
from ..models.manifest import Label, ModelDescription
from ..models.model import Model, weights_sha256
from .checks import organ_confidence
from .islands import pieces_of
from .review import ReviewRegion
from .uncertainty import volume_interval_ml

if TYPE_CHECKING:
    from .session import Session

_EDGE_SHARE = 0.02
_NOTABLE_ML = 1.0


def build_report(
    *,
    labels: NDArray[np.uint8],
    prediction: NDArray[np.float32],
    review: Sequence[ReviewRegion],
    session: Session,
    model: Model,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """The report of one run: `labels` in the scan's geometry, `prediction` the final probabilities on the grid."""
    counts = _counts(labels, model.description.classes)
    voxel_ml = float(np.prod(session.grid.spacing)) / 1000.0
    wanted = session.wanted
    chosen = [label for label in model.description.labels if not wanted or label.value in wanted]
    best = prediction.argmax(axis=0)
    organs = [
        _organ(label, prediction[label.value], best == label.value, counts[label.value] * session.voxel_ml, voxel_ml)
        for label in chosen
    ]
    confidence = organ_confidence(torch.from_numpy(prediction))
    taken_out = _taken_out(session.prediction.islands.numpy(), best, chosen, voxel_ml)
    return {
        "organs": organs,
        "review": [asdict(region) for region in review],
        "confidence": round(confidence, 4),
        "taken_out": taken_out,
        "warnings": [session.notice] * bool(session.notice)
        + list(session.prediction.warnings)
        + _unusual_appearance(confidence, model.description)
        + _warnings(labels, counts, organs, session.region)
        + _notable(taken_out),
        "timings_s": with_total(seconds),
        "peak_memory_mb": round(peak_memory_mb()),
        "predicted_memory_mb": round(session.way.bytes / 2**20),
        "scales": scales(model.description.classes),
        "provenance": _provenance(session, model, chosen),
    }


def with_total(seconds: dict[str, float]) -> dict[str, float]:
    """Seconds by stage, and their sum."""
    return {**seconds, "total": round(sum(seconds.values()), 3)}


def scales(classes: int) -> dict[str, dict[str, Any]]:
    """What the values of the maps mean: 0 to 1, entropies in nats divided by the largest possible, ln(classes)."""
    nats = round(math.log(classes), 4)
    return {
        "uncertainty": {"quantity": "entropy / ln(classes)", "classes": classes, "nats_at_1": nats},
        "mutual_information": {"quantity": "mutual information / ln(classes)", "classes": classes, "nats_at_1": nats},
    }


def _provenance(session: Session, model: Model, chosen: Sequence[Label]) -> dict[str, Any]:
    plan = session.plan
    return {
        "software": f"DiffusionSegment {__version__}",
        "model": model.description.name,
        "version": model.description.version,
        "sha256": weights_sha256(model.description),
        "seed": plan.seed,
        "samples": session.samples if model.refiner is not None else 0,
        "steps": plan.steps if model.refiner is not None else 0,
        "schedule": plan.schedule,
        "sampler": plan.sampler,
        "abar_start": plan.abar_start,
        "organs": [label.name for label in chosen] if session.wanted else None,
        "region": list(session.region) if session.region is not None else None,
        "device": model.device.type,
        "precision": str(model.dtype).removeprefix("torch."),
        "torch": torch.__version__,
    }


def _organ(
    label: Label, probability: NDArray[np.float32], inside: NDArray[np.bool_], volume_ml: float, voxel_ml: float
) -> dict[str, Any]:
    low, high = volume_interval_ml(probability, voxel_ml)
    return {
        "name": label.name,
        "title": label.title,
        "value": label.value,
        "volume_ml": round(volume_ml, 2),
        "volume_interval_ml": [round(min(low, volume_ml), 2), round(max(high, volume_ml), 2)],
        "confidence": round(float(probability[inside].mean()), 4) if inside.any() else 0.0,
    }


def _taken_out(
    islands: NDArray[np.uint8], best: NDArray[np.intp], chosen: Sequence[Label], voxel_ml: float
) -> list[dict[str, Any]]:
    """Pieces and mL of each organ that were taken out as islands; not those that a reader has brought back."""
    pieces = [(value, voxels) for value, voxels in pieces_of(islands) if np.mean(best[tuple(voxels.T)] == value) < 0.5]
    found = []
    for label in chosen:
        sizes = [len(voxels) for value, voxels in pieces if value == label.value]
        if sizes:
            volume_ml = round(sum(sizes) * voxel_ml, 2)
            found.append({"name": label.name, "title": label.title, "pieces": len(sizes), "volume_ml": volume_ml})
    return found


def _notable(taken_out: Sequence[dict[str, Any]]) -> list[str]:
    large = [f"{o['title'].lower()} {o['volume_ml']:.1f} mL" for o in taken_out if o["volume_ml"] >= _NOTABLE_ML]
    if not large:
        return []
    return [f"Removed small separate pieces, not counted above: {', '.join(large)}. The alternatives show them."]


def _unusual_appearance(confidence: float, description: ModelDescription) -> list[str]:
    """A scan outside the training distribution gives organs of low confidence, wherever in the body it lies."""
    if confidence >= description.anatomy.usual_confidence:
        return []
    return [
        f"Unusual contrast, dose or disease: mean confidence is {100 * confidence:.0f} %, below that of the training "
        f'scans of the model "{description.title}". Check each organ.'
    ]


def _counts(labels: NDArray[np.uint8], classes: int) -> NDArray[np.intp]:
    """Voxels of each label; slice by slice, because counting takes eight bytes a voxel."""
    return sum((np.bincount(part.ravel(), minlength=classes) for part in labels), np.zeros(classes, dtype=np.intp))


def _warnings(
    labels: NDArray[np.uint8],
    counts: NDArray[np.intp],
    organs: list[dict[str, Any]],
    region: tuple[float, ...] | None,
) -> list[str]:
    """Organs cut off by the first or last slices of any axis, and organs not found."""
    warnings = []
    faces = [_counts(labels.take([n], axis=axis), len(counts)) for axis in range(3) for n in (0, -1)]
    at_edge = np.max(faces, axis=0) > _EDGE_SHARE * counts
    cut = [organ["title"].lower() for organ in organs if at_edge[organ["value"]]]
    if cut:
        warnings.append(f"Cut off by the edge of the scan; volume may be incomplete: {', '.join(cut)}.")
    missing = [organ["title"].lower() for organ in organs if organ["volume_ml"] == 0]
    if missing:
        where = "" if region is None else " in the region of interest"
        warnings.append(f"Not found{where}: {', '.join(missing)}.")
    return warnings


def peak_memory_mb() -> float:
    """Largest resident size of this process so far, in MB."""
    held = psutil.Process().memory_info()
    if hasattr(held, "peak_wset"):
        # Windows, whose Python has no module resource.
        return float(held.peak_wset) / 2**20
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage / (1024.0 * 1024.0 if sys.platform == "darwin" else 1024.0)
