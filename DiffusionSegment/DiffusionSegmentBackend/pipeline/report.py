"""report.json: volumes with intervals, confidence, regions to review, timings, memory, scales, provenance."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from .. import __version__
from ..models.manifest import ModelDescription
from ..models.model import Model, weights_sha256
from ..schema.model_manifest import ModelLabel
from ..schema.provenance import Provenance, Software
from ..schema.report import AlarmKind, MapScale, OrganAlarm, OrganResult, RemovedIslands, Report
from .checks import organ_confidence
from .islands import pieces_of
from .options import drawn
from .organ_alarms import LabelMapOnGrid, organ_alarms
from .review import ReviewList
from .session import GIVEN_WEIGHT
from .uncertainty import error_of_best, volume_interval_ml

if TYPE_CHECKING:
    from .session import Session

# An organ is cut off where more than this fraction of its voxels lies in one face of the scan.
_MAX_FACE_FRACTION = 0.02
# Mean probability that a model gives to the labels of a reviewed segmentation, below which there is a warning.
_MIN_AGREEMENT = 0.5
# Minimum volume of removed islands of an organ for a warning.
_MIN_ISLAND_ML = 1.0


def build_report(
    *,
    labels: NDArray[np.uint8],
    prediction: NDArray[np.float32],
    review: ReviewList,
    session: Session,
    model: Model,
    seconds: dict[str, float],
) -> Report:
    """Build the report of a run.

    Args:
        labels: the segmentation in the scan's own geometry (k, j, i).
        prediction: the final probabilities (classes, z, y, x) on the model's grid.
        review: the regions to review, largest score first, and what is expected to be wrong.
        session: the run.
        model: the networks of the run.
        seconds: seconds by stage.
    """
    counts, voxel_ml = _counts(labels, model.description.classes), session.grid.voxel_ml
    chosen = [label for label in model.description.labels if not session.wanted or label.value in session.wanted]
    best = prediction.argmax(axis=0)
    organs = _organs(prediction, best, chosen, counts * session.voxel_ml, session.grid.voxel_ml, model.description)
    organs, confidence = _judged(organs, organ_confidence(torch.from_numpy(prediction)), session)
    alarms = _organ_alarms(best, chosen, session)
    removed = _removed_islands(session.prediction.islands.numpy(), best, chosen, voxel_ml)
    return Report(
        organs=organs,
        review=tuple(review.regions),
        alarms=alarms,
        expected_wrong_ml=round(review.expected_wrong_ml, 1),
        confidence=round(confidence, 4),
        taken_out=removed,
        warnings=(
            *([session.notice] if session.notice else []),
            *session.prediction.warnings,
            *_confidence_warnings(confidence, session, model.description),
            *_warnings(labels, counts, _without_absent(organs, alarms), session.run.region),
            *_island_warnings(removed),
            *(alarm.sentence for alarm in alarms),
        ),
        timings_s=with_total(seconds),
        peak_memory_mb=round(peak_memory_mb()),
        predicted_memory_mb=round(session.memory_plan.bytes / 2**20),
        scales=scales(model.description.classes),
        provenance=_provenance(session, model, chosen),
    )


def _judged(
    organs: tuple[OrganResult, ...], confidence: float, session: Session
) -> tuple[tuple[OrganResult, ...], float]:
    """Organs and mean confidence as the model alone judges them, also where a segmentation is reviewed."""
    return (organs, confidence) if session.reviewed is None else (_in_given(organs), _confidence_in_given(confidence))


def _confidence_warnings(confidence: float, session: Session, description: ModelDescription) -> list[str]:
    return (_unusual_appearance if session.reviewed is None else _low_agreement)(confidence, description)


def _without_absent(organs: Sequence[OrganResult], alarms: Sequence[OrganAlarm]) -> list[OrganResult]:
    """The organs whose absence no alarm states already."""
    absent = {alarm.organ for alarm in alarms if alarm.kind is AlarmKind.ABSENT}
    return [organ for organ in organs if organ.name not in absent]


def _organ_alarms(best: NDArray[np.intp], chosen: Sequence[ModelLabel], session: Session) -> tuple[OrganAlarm, ...]:
    """Alarms of the rules about whole organs; none for a part of the scan.

    The rules apply to the organs that the result shows, and to all organs that a reviewed segmentation covers, so that
    one without voxels is absent.
    """
    if session.run.region is not None:
        return ()
    labels = best.astype(np.uint8)
    covered = {label.value for label in chosen if session.reviewed is not None or (labels == label.value).any()}
    return organ_alarms(LabelMapOnGrid(labels, session.grid, session.prediction.offset, covered), chosen)


def _confidence_in_given(mean: float) -> float:
    """The mean probability, 0..1, that the model alone gives to labels whose mean in the ensemble is `mean`."""
    return round(1 - float(error_of_best(torch.tensor(mean), given_weight=GIVEN_WEIGHT)), 4)


def _in_given(organs: Sequence[OrganResult]) -> tuple[OrganResult, ...]:
    return tuple(replace(organ, confidence=_confidence_in_given(organ.confidence), margin=None) for organ in organs)


def with_total(seconds: dict[str, float]) -> dict[str, float]:
    """Seconds by stage, and their sum."""
    return {**seconds, "total": round(sum(seconds.values()), 3)}


def scales(classes: int) -> dict[str, MapScale]:
    """Units of the maps: 0 to 1, entropies in nats divided by their maximum, ln(classes)."""
    nats = round(math.log(classes), 4)
    return {
        "uncertainty": MapScale(quantity="entropy / ln(classes)", classes=classes, nats_at_1=nats),
        "mutual_information": MapScale(quantity="mutual information / ln(classes)", classes=classes, nats_at_1=nats),
    }


def _provenance(session: Session, model: Model, chosen: Sequence[ModelLabel]) -> Provenance:
    description = model.description
    return Provenance(
        software=Software(
            software=f"DiffusionSegment {__version__}",
            version=description.version,
            sha256=weights_sha256(description),
            torch=torch.__version__,
        ),
        plan=replace(
            drawn(session.run, model),
            model=description.name,
            organs=tuple(label.name for label in chosen) if session.wanted else None,
            device=model.device.type,
            precision=str(model.dtype).removeprefix("torch."),
        ),
    )


def _organs(
    prediction: NDArray[np.float32],
    best: NDArray[np.intp],
    chosen: Sequence[ModelLabel],
    volumes_ml: NDArray[np.floating],
    voxel_ml: float,
    description: ModelDescription,
) -> tuple[OrganResult, ...]:
    """The results of organs with `volumes_ml` by label value; voxels of the model's grid have `voxel_ml`."""
    return tuple(
        _organ(
            label,
            prediction[label.value],
            best == label.value,
            float(volumes_ml[label.value]),
            volume_interval_ml(prediction[label.value], voxel_ml, tail=description.volume_tail),
        )
        for label in chosen
    )


def _organ(
    label: ModelLabel,
    probability: NDArray[np.float32],
    inside: NDArray[np.bool_],
    volume_ml: float,
    interval_ml: tuple[float, float],
) -> OrganResult:
    low, high = interval_ml
    return OrganResult(
        name=label.name,
        title=label.title,
        value=label.value,
        volume_ml=round(volume_ml, 2),
        volume_interval_ml=(round(min(low, volume_ml), 2), round(max(high, volume_ml), 2)),
        confidence=round(float(probability[inside].mean()), 4) if inside.any() else 0.0,
        margin=label.margin if inside.any() else None,
    )


def _removed_islands(
    islands: NDArray[np.uint8], best: NDArray[np.intp], chosen: Sequence[ModelLabel], voxel_ml: float
) -> tuple[RemovedIslands, ...]:
    """Number and mL of the islands that were removed, by organ; without those that a correction has restored."""
    pieces = [(value, voxels) for value, voxels in pieces_of(islands) if np.mean(best[tuple(voxels.T)] == value) < 0.5]
    removed = []
    for label in chosen:
        sizes = [len(voxels) for value, voxels in pieces if value == label.value]
        if sizes:
            volume_ml = round(sum(sizes) * voxel_ml, 2)
            removed.append(RemovedIslands(name=label.name, title=label.title, pieces=len(sizes), volume_ml=volume_ml))
    return tuple(removed)


def _island_warnings(removed: Sequence[RemovedIslands]) -> list[str]:
    large = [f"{o.title.lower()} {o.volume_ml:.1f} mL" for o in removed if o.volume_ml >= _MIN_ISLAND_ML]
    if not large:
        return []
    return [f"Removed small separate pieces, not counted above: {', '.join(large)}. A brush stroke restores one."]


def _unusual_appearance(confidence: float, description: ModelDescription) -> list[str]:
    """A warning of low confidence, as for a scan outside the training distribution."""
    if confidence >= description.anatomy.usual_confidence:
        return []
    return [
        f"Unusual contrast, dose or disease: mean confidence is {100 * confidence:.0f} %, below that of the training "
        f'scans of the model "{description.title}". Check each organ.'
    ]


def _low_agreement(confidence: float, description: ModelDescription) -> list[str]:
    """A warning of a reviewed segmentation most of which the model sees elsewhere."""
    if confidence >= _MIN_AGREEMENT:
        return []
    return [
        f'The model "{description.title}" gives {100 * confidence:.0f} % to the given labels on average: is this the '
        "segmentation of another scan, or are its sides or names mixed up?"
    ]


def _counts(labels: NDArray[np.uint8], classes: int) -> NDArray[np.intp]:
    """Number of voxels of each label; slice by slice, because `bincount` takes eight bytes per voxel."""
    return sum((np.bincount(part.ravel(), minlength=classes) for part in labels), np.zeros(classes, dtype=np.intp))


def _warnings(
    labels: NDArray[np.uint8],
    counts: NDArray[np.intp],
    organs: Sequence[OrganResult],
    region: tuple[float, ...] | None,
) -> list[str]:
    """Warnings of organs that are cut off by a face of the scan, and of organs without any voxel."""
    warnings = []
    faces = [_counts(labels.take([n], axis=axis), len(counts)) for axis in range(3) for n in (0, -1)]
    at_edge = np.max(faces, axis=0) > _MAX_FACE_FRACTION * counts
    cut = [organ.title.lower() for organ in organs if at_edge[organ.value]]
    if cut:
        warnings.append(f"Cut off by the edge of the scan; volume may be incomplete: {', '.join(cut)}.")
    missing = [organ.title.lower() for organ in organs if organ.volume_ml == 0]
    if missing:
        where = "" if region is None else " in the region of interest"
        warnings.append(f"Not found{where}: {', '.join(missing)}.")
    return warnings


def peak_memory_mb() -> float:
    """Peak resident set size of this process in MB (2^20 bytes)."""
    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):
        # On Windows, where Python has no module `resource`.
        return float(memory.peak_wset) / 2**20
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage / (1024.0 * 1024.0 if sys.platform == "darwin" else 1024.0)
