"""`study anatomy`: which scans a model accepts and refuses, and the limits that follow from its training scans.

A scan of the model's own body part must never be refused; a scan of another part, and a phantom, always.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from DiffusionSegmentBackend.imaging.atomic_writes import write_text
from DiffusionSegmentBackend.models.manifest import ModelDescription
from DiffusionSegmentBackend.models.model import Model, load_model
from DiffusionSegmentBackend.pipeline.checks import (
    OrganMeasures,
    Verdict,
    judge_body_part,
    judge_organs,
    organ_measures,
    share_in_reach,
)
from DiffusionSegmentBackend.pipeline.features import first_stage
from DiffusionSegmentBackend.pipeline.progress import silent
from tqdm import tqdm

from .anatomy_scans import Scan, scans_of
from .prepared_scan import prepare_scan
from .result_file import StudyDescription, StudyResult, StudyRow
from .study import StudyRequest

# Scans of other body parts that are refused by their heights are not segmented, except one of this many.
SEGMENTED_OTHERS = 15
MEASURES_FILE = "anatomy.json"


class _StoredMeasures(TypedDict):
    """Measures of a scan in anatomy.json."""

    share: float
    organs: dict[str, Any] | None


@dataclass(frozen=True)
class Measured:
    """Measures of one scan.

    Attributes:
        scan: the scan.
        share: share of its tissue at the heights of the model's organs.
        organs: measures of its segmentation, None if it was not segmented.
    """

    scan: Scan
    share: float
    organs: OrganMeasures | None

    def verdict(self, description: ModelDescription) -> Verdict:
        """The verdict of a run: by the heights, then by the organs; low confidence is a warning."""
        part = judge_body_part(self.share, description).verdict
        if part is Verdict.REFUSE or self.organs is None:
            return part
        organs = judge_organs(self.organs, description).verdict
        unconfident = self.organs.confidence < description.anatomy.usual_confidence
        return Verdict.WARN if organs is Verdict.ACCEPT and (part is Verdict.WARN or unconfident) else organs


def measure_all(model: Model, scans: Sequence[Scan], folder: Path) -> list[Measured]:
    """Measures of all scans; those in the file anatomy.json in `folder` are not measured again."""
    path = folder / MEASURES_FILE
    known: dict[str, _StoredMeasures] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    others = [scan for scan in scans if not scan.own]
    for scan in tqdm(scans, desc="scans"):
        key = f"{scan.group}/{scan.name}"
        if key not in known:
            segmented = scan.own or others.index(scan) % SEGMENTED_OTHERS == 0
            share, organs = measure(model, scan, organs=segmented)
            known[key] = {"share": share, "organs": None if organs is None else asdict(organs)}
            folder.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(known, indent=1) + "\n")
    return [_measured(scan, known[f"{scan.group}/{scan.name}"]) for scan in scans]


def _measured(scan: Scan, stored: _StoredMeasures) -> Measured:
    organs = stored["organs"]
    return Measured(scan, stored["share"], None if organs is None else OrganMeasures(**organs))


def measure(model: Model, scan: Scan, *, organs: bool) -> tuple[float, OrganMeasures | None]:
    """The share at the heights of the organs, and measures of the segmentation.

    A scan that is refused by its share is segmented only with `organs`.
    """
    description = model.description
    with torch.inference_mode():
        prepared = prepare_scan(scan.read(), model)
        share = share_in_reach(prepared.coordinates_mm, prepared.image, description.anatomy.body_z_mm)
        assert share is not None
        if not organs and judge_body_part(share, description).verdict is Verdict.REFUSE:
            return share, None
        stage = first_stage(*prepared.tile_input(model), model, progress=silent, keep_features=False)
    return share, organ_measures(stage.pre, description)


def limits_of(measured: Iterable[Measured]) -> dict[str, float]:
    """Limits as in model.json, from the training scans alone.

    The usual value is the extreme of the model's own training scans. The limit of refusal is the geometric mean of that
    and the nearest value among training scans of other body parts.
    """
    training = [one for one in measured if one.scan.sets_limits]
    own, others = [one for one in training if one.scan.own], [one for one in training if not one.scan.own]
    share = min(one.share for one in own)
    layout = max(_layouts(own))
    return {
        "usual_share_in_reach": math.floor(100 * share) / 100,
        "min_share_in_reach": round(math.sqrt(share * max(one.share for one in others)), 2),
        "usual_layout_mm": math.ceil(layout),
        "max_layout_mm": round(math.sqrt(layout * min(_layouts(others)))),
        "usual_confidence": math.floor(100 * min(one.organs.confidence for one in own if one.organs)) / 100,
    }


def anatomy_rows(measured: Sequence[Measured], description: ModelDescription) -> list[StudyRow]:
    """A row per group with verdicts and ranges of the measures, and one with the limits from the training scans."""
    groups = {one.scan.group: [other for other in measured if other.scan.group == one.scan.group] for one in measured}
    rows = [StudyRow(name, numbers=_counts(group, description)) for name, group in groups.items()]
    return [*rows, StudyRow("limits by the rule", numbers=limits_of(measured))]


def _counts(group: Sequence[Measured], description: ModelDescription) -> dict[str, float]:
    verdicts = [one.verdict(description) for one in group]
    numbers = {
        "scans": float(len(group)),
        "accepted": float(verdicts.count(Verdict.ACCEPT)),
        "with a warning": float(verdicts.count(Verdict.WARN)),
        "refused": float(verdicts.count(Verdict.REFUSE)),
        "least share in reach": min(one.share for one in group),
        "largest share in reach": max(one.share for one in group),
    }
    layouts, known = _layouts(group), [one.organs for one in group if one.organs]
    if layouts:
        numbers |= {"least layout, mm": min(layouts), "largest layout, mm": max(layouts)}
    if known:
        numbers |= {"least confidence": min(o.confidence for o in known), "segmented": float(len(known))}
    return {name: round(value, 3) for name, value in numbers.items()}


def _layouts(group: Iterable[Measured]) -> list[float]:
    return [one.organs.layout_mm for one in group if one.organs and one.organs.layout_mm is not None]


def study(request: StudyRequest) -> StudyResult:
    """The verdicts on all scans; measures are kept in the folder of predictions and read from there."""
    description = request.description
    model = load_model(str(description.folder), "auto", with_refiner=False)
    measured = measure_all(model, scans_of(request.data, request.options.others), request.predictions)
    return StudyResult(anatomy_rows(measured, description), _description(description))


def _description(model: ModelDescription) -> StudyDescription:
    article = "an" if model.modality == "MR" else "a"
    return StudyDescription(
        order=12,
        title=f"Anatomy check of {model.name}",
        question="Which scans are accepted, which come with a warning, and which are refused?",
        protocol=f"Every scan as {article} {model.modality}, by the limits in model.json. Share in reach: "
        "tissue at the heights of the body where the model has its organs. "
        "Layout: mean distance in mm between the organs of the pre-segmentation "
        "(1 mL or more, at least four) and their usual positions, after the best scale and shift an axis. Limits are "
        "set by training cases alone: a warning outside what the model's own training scans show, a refusal from the "
        "geometric mean of that and the nearest training scan of another body part on. Scans of other parts that are "
        f"refused by their heights are not segmented, except one of {SEGMENTED_OTHERS}.",
        budget="no training",
    )
