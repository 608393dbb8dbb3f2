"""From a reader's segments to a model of the reader's own: names, colours and codes, limits, probe, folder."""

from __future__ import annotations

import contextlib
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.volume import model_grid
from ..models.manifest import ModelDescription, find_model, list_models, read_description
from ..models.model import Model
from ..models.user_models import check_base_is_installed, check_free_name, save_user_model
from ..pipeline.checks import check_modality, shows_hounsfield
from ..pipeline.features import body_coordinates
from ..pipeline.prepare import network_input
from ..pipeline.progress import Progress, silent
from .loop import Budget
from .teaching import TaughtCase, check_lesson, teach

LEARNING_RATE = 3e-3
_EMA_DECAY = 0.98
TISSUE = {"scheme": "SCT", "value": "85756007", "meaning": "Tissue"}
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
_LONGEST_NAME = 60
# A taught organ may be small and the scan long: what must be shown of its heights is widened by so much each way.
_REACH_MM = 150.0
# Learnt from one scan, a probe is less sure of its organs on the next than a model of many.
_USUAL_CONFIDENCE = 0.6


def teaching_budget(minutes: float, *, seed: int = 0, device: str = "cpu") -> Budget:
    """The budget of a teaching of so many minutes, features included.

    Raises:
        DiffusionSegmentError: OPTION for minutes that are not above 0 and at most 60.
    """
    if not 0 < minutes <= 60:
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"Training cannot take {minutes:g} minutes.", hint="Choose above 0, at most 60."
        )
    return Budget(
        steps=10**9, minutes=minutes, learning_rate=LEARNING_RATE, ema_decay=_EMA_DECAY, seed=seed, device=device
    )


def teach_user_model(
    cases: Sequence[TaughtCase],
    names: Mapping[int, str],
    *,
    base: Model,
    name: str,
    minutes: float,
    title: str | None = None,
    replace: bool = False,
    force: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Fine-tune and store the user model `name`; what came of it. Nothing is stored when `progress` raises `Cancelled`.

    The model is for the modality of the scans; `force` goes on where that is not the base's. The report has folder,
    base, seconds, and of each organ its title and the mL that were drawn.

    Raises:
        DiffusionSegmentError: OPTION for minutes, a base that is not installed or a name that is bad or taken, MODALITY
            for scans of another modality than the base's, GEOMETRY or TRAINING_DATA for labels.
    """
    began = time.monotonic()
    check_free_name(name, replace=replace)
    check_base_is_installed(base.description)
    modality = scans_modality(cases, base.description, force=force)
    budget = teaching_budget(minutes, device=base.device.type)
    labels = label_entries(names, base.description)
    check_lesson(cases, names)
    anatomy = taught_anatomy(cases, names, base)
    with tempfile.TemporaryDirectory(prefix="teach-") as folder:
        probe = teach(cases, names, base, budget=budget, folder=Path(folder), progress=progress)
    scans = "one scan" if len(cases) == 1 else f"{len(cases)} scans"
    place = save_user_model(
        name,
        probe,
        base=base.description,
        labels=labels,
        anatomy=anatomy,
        title=title,
        modality=modality,
        training=f"fine-tuned by a reader on {scans}",
        replace=replace,
    )
    return {
        "folder": str(place),
        "base": f"{base.description.name} {base.description.version}",
        "seconds": round(time.monotonic() - began, 1),
        "organs": _drawn_organs(cases, names, labels),
    }


def _drawn_organs(
    cases: Sequence[TaughtCase], names: Mapping[int, str], labels: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Name, title and the mL that were drawn of each organ."""
    drawn = [sum(np.count_nonzero(c.labels == value) * c.volume.voxel_ml for c in cases) for value in names]
    return [
        {"name": entry["name"], "title": entry["title"], "drawn_ml": round(ml, 2)}
        for entry, ml in zip(labels, drawn, strict=True)
    ]


def scans_modality(cases: Sequence[TaughtCase], base: ModelDescription, *, force: bool = False) -> str:
    """The modality of the scans: by their headers, else by their values the base's.

    Raises:
        DiffusionSegmentError: MODALITY where it is not the base's, unless `force`; OPTION for scans of several.
    """
    modalities = set()
    for case in cases:
        try:
            check_modality(case.volume.array, expected=base.modality, stated=case.modality)
            modalities.add(base.modality)
        except DiffusionSegmentError as error:
            if not force:
                raise DiffusionSegmentError(error.code, error.message, hint=_other_bases(case, base)) from error
            modalities.add(_likely_modality(case))
    if len(modalities) > 1:
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"The scans are of several modalities: {', '.join(sorted(modalities))}.",
            hint="Fine-tune a model for each.",
        )
    return next(iter(modalities), base.modality)


def _likely_modality(case: TaughtCase) -> str:
    """By the header, else by the values: Hounsfield units or not."""
    return case.modality or ("CT" if shows_hounsfield(case.volume.array) else "MR")


def _other_bases(case: TaughtCase, base: ModelDescription) -> str:
    """What to do with a scan of another modality than the base's: the installed models for its own."""
    modality, fitting = _likely_modality(case), []
    for name in list_models():
        with contextlib.suppress(DiffusionSegmentError):
            if read_description(find_model(name)).modality == modality != base.modality:
                fitting.append(name)
    if not fitting:
        return f"There is no base for {modality}: train one with `train`."
    return f"Choose a base for {modality}: {', '.join(fitting)}."


def label_entries(names: Mapping[int, str], base: ModelDescription) -> list[dict[str, Any]]:
    """Labels as in model.json: code and colour of the base's organ of that name, else tissue in a colour of its own.

    Raises:
        DiffusionSegmentError: OPTION for a name without letters, too long, or given twice.
    """
    known = {item["name"]: item for item in base.raw["labels"]}
    taken = {tuple(item["colour"]) for item in known.values()}
    free = [colour for colour in COLOURS if colour not in taken]
    entries: list[dict[str, Any]] = []
    for value, given in enumerate(names.values(), start=1):
        name = machine_name(given)
        if any(entry["name"] == name for entry in entries):
            raise DiffusionSegmentError(
                ErrorCode.OPTION, f"Two segments are called '{given}'.", hint="Give each a name of its own."
            )
        fresh = {
            "title": given.strip()[:1].upper() + given.strip()[1:],
            "category": TISSUE,
            "code": TISSUE,
            "colour": list(free[(value - 1) % len(free)]),
        }
        entries.append({**known.get(name, fresh), "name": name, "value": value})
    return entries


def machine_name(given: str) -> str:
    """A segment's name as model.json writes it: "Left kidney" -> "left_kidney".

    Raises:
        DiffusionSegmentError: OPTION for a name without letters, or longer than 60.
    """
    name = re.sub(r"\W+", "_", given.strip().lower()).strip("_")
    if not name or len(name) > _LONGEST_NAME:
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"'{given[:80]}' cannot be a segment's name.", hint="Use 1 to 60 letters and digits."
        )
    return name


def taught_anatomy(cases: Sequence[TaughtCase], names: Mapping[int, str], base: Model) -> dict[str, Any]:
    """Limits for a model of few, perhaps small organs: no least volume, and body heights wide around the segments."""
    limits: dict[str, Any] = {"least_organ_ml": 0.0, "least_confidence": 0.0, "usual_confidence": _USUAL_CONFIDENCE}
    if base.description.anatomy.body_z_mm is None:
        return limits
    heights = []
    for case in cases:
        grid = model_grid(case.volume, spacing=base.description.spacing_mm)
        image = torch.from_numpy(network_input(case.volume, grid, base.description))
        drawn = grid.labels_to_grid(np.isin(case.labels, list(names)))
        heights.append(body_coordinates(image, base)[2].numpy()[drawn > 0])
    low, high = np.percentile(np.concatenate(heights), [1, 99])
    return {**limits, "body_z_mm": [round(float(low) - _REACH_MM, 1), round(float(high) + _REACH_MM, 1)]}
