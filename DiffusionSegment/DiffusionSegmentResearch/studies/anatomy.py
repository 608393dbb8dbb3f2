"""Which scans a model accepts, warns about and refuses, and the limits that follow from training scans.

A scan of the model's own body part must never be refused; a scan of another part, and a phantom, always.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from DiffusionSegmentBackend.imaging.atomic_writes import write_text
from DiffusionSegmentBackend.imaging.volume import model_grid
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
from DiffusionSegmentBackend.pipeline.features import body_box, body_coordinates, first_stage, padded
from DiffusionSegmentBackend.pipeline.prepare import network_input
from DiffusionSegmentBackend.pipeline.progress import silent
from tqdm import tqdm

from .anatomy_scans import Scan, scans_of
from .result_file import StudyRow

# Of other body parts' scans that are refused by their heights anyway, one in so many is segmented all the same.
SEGMENTED_OTHERS = 15
MEASURES_FILE = "anatomy.json"


@dataclass(frozen=True)
class Measured:
    """A scan's share at the heights of the model's organs, and what was segmented unless that was left out."""

    scan: Scan
    share: float
    organs: OrganMeasures | None

    def verdict(self, description: ModelDescription) -> Verdict:
        """As a run gives it: refused by the heights, else by the organs; little confidence is a warning."""
        part = judge_body_part(self.share, description).verdict
        if part is Verdict.REFUSE or self.organs is None:
            return part
        organs = judge_organs(self.organs, description).verdict
        doubtful = self.organs.confidence < description.anatomy.usual_confidence
        return Verdict.WARN if organs is Verdict.ACCEPT and (part is Verdict.WARN or doubtful) else organs


def measure_all(model: Model, scans: Sequence[Scan], folder: Path) -> list[Measured]:
    """Measures of all scans; those that the file anatomy.json in `folder` has are not formed again."""
    path = folder / MEASURES_FILE
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    others = [scan for scan in scans if not scan.own]
    for scan in tqdm(scans, desc="scans"):
        key = f"{scan.group}/{scan.name}"
        if key not in known:
            every = scan.own or others.index(scan) % SEGMENTED_OTHERS == 0
            share, organs = measure(model, scan, organs=every)
            known[key] = {"share": share, "organs": None if organs is None else asdict(organs)}
            folder.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(known, indent=1) + "\n")
    found = [known[f"{scan.group}/{scan.name}"] for scan in scans]
    return [
        Measured(scan, one["share"], None if one["organs"] is None else OrganMeasures(**one["organs"]))
        for scan, one in zip(scans, found, strict=True)
    ]


def measure(model: Model, scan: Scan, *, organs: bool) -> tuple[float, OrganMeasures | None]:
    """The share in reach, and what was segmented: if asked for, or if the share does not refuse the scan anyway."""
    description, volume = model.description, scan.read()
    grid = model_grid(volume, spacing=description.spacing_mm)
    with torch.inference_mode():
        image = torch.from_numpy(network_input(volume, grid, description))
        coordinates = body_coordinates(image, model)
        share = share_in_reach(coordinates, image, description.anatomy.body_z_mm)
        assert share is not None
        if not organs and judge_body_part(share, description).verdict is Verdict.REFUSE:
            return share, None
        tile = model.tile
        box = body_box(image, min_shape=tile.voxels)
        stage = first_stage(
            padded(image[box][None], tile=tile, value=-1.0)[0],
            padded(coordinates[(slice(None), *box)], tile=tile, value=0.0),
            model,
            progress=silent,
            keep_features=False,
        )
    return share, organ_measures(stage.pre, description)


def limits_of(measured: Iterable[Measured]) -> dict[str, float]:
    """Limits as model.json has them, by the training scans alone.

    Usual is what the model's own training scans show at most or at least. A scan is refused from the geometric mean
    of that and the nearest training scan of another body part on.
    """
    setting = [one for one in measured if one.scan.sets_limits]
    own, others = [one for one in setting if one.scan.own], [one for one in setting if not one.scan.own]
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
    """A row a group with the verdicts and the ranges of the measures, and one with the limits that the rule gives."""
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


def anatomy_study(
    description: ModelDescription, data: Sequence[Path], others: Sequence[Path], folder: Path
) -> tuple[list[StudyRow], dict[str, Any]]:
    """Rows and description of the study; measures are kept in `folder`, and taken from there."""
    model = load_model(str(description.folder), "auto", with_refiner=False)
    measured = measure_all(model, scans_of(data, others), folder)
    article = "an" if description.modality == "MR" else "a"
    described = {
        "order": 12,
        "title": f"Anatomy check of {description.name}",
        "question": "Which scans are accepted, which come with a warning, and which are refused?",
        "protocol": f"Every scan as {article} {description.modality}, by the limits in model.json. Share in reach: "
        "tissue at the heights of the body where the model has its organs. "
        "Layout: mean distance in mm between the organs of the pre-segmentation "
        "(1 mL or more, at least four) and their usual places, after the best scale and shift an axis. Limits are set "
        "by training cases alone: a warning outside what the model's own training scans show, a refusal from the "
        "geometric mean of that and the nearest training scan of another body part on. Scans of other parts that are "
        f"refused by their heights are not segmented, save one in {SEGMENTED_OTHERS}.",
        "budget": "no training",
    }
    return anatomy_rows(measured, description), described
