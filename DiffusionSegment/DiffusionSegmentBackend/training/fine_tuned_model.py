"""Fine-tune a base model to the user's segments and store the result as a user model."""

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
from ..models.user_models import UserModelFacts, check_base_is_installed, check_free_name, save_user_model
from ..pipeline.checks import check_modality, shows_hounsfield
from ..pipeline.features import body_coordinates
from ..pipeline.prepare import network_input
from ..pipeline.progress import Progress, silent
from ..schema.fine_tuning_report import AnnotatedOrgan, FineTuningReport
from .fine_tuning import LabelledVolume, check_labels, fine_tune_probe
from .loop import Budget

LEARNING_RATE = 3e-3
_EMA_DECAY = 0.98
TISSUE = {"scheme": "SCT", "value": "85756007", "meaning": "Tissue"}
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
_MAX_NAME_LENGTH = 60
# Widens the body heights of the segments in both directions, as organs are small compared with later scans.
_HEIGHT_MARGIN_MM = 150.0
# A probe fitted to one scan is less confident on other scans than a model trained on many.
_USUAL_CONFIDENCE = 0.6


def fine_tuning_budget(minutes: float, *, seed: int = 0, device: str = "cpu") -> Budget:
    """The budget for `minutes` of fine-tuning, including the computation of features.

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


def fine_tune_user_model(
    cases: Sequence[LabelledVolume],
    names: Mapping[int, str],
    *,
    base: Model,
    name: str,
    minutes: float,
    replace: bool = False,
    force: bool = False,
    progress: Progress = silent,
) -> FineTuningReport:
    """Fine-tune `base` and store the result as a user model of the modality of the scans.

    Nothing is stored when `progress` raises `Cancelled`. `minutes` includes the computation of features; `replace`
    overwrites an existing model of that name; `force` accepts scans of another modality than that of the base.

    Raises:
        DiffusionSegmentError: OPTION for invalid minutes, a base that is not installed, or an invalid or existing name;
            MODALITY for scans of another modality than that of the base; GEOMETRY or TRAINING_DATA for the labels.
    """
    began, description = time.monotonic(), base.description
    check_free_name(name, replace=replace)
    check_base_is_installed(description)
    modality = scans_modality(cases, description, force=force)
    budget = fine_tuning_budget(minutes, device=base.device.type)
    labels = label_entries(names, description)
    check_labels(cases, names)
    anatomy = anatomy_limits_around(cases, names, base)
    with tempfile.TemporaryDirectory(prefix="fine-tune-") as folder:
        probe = fine_tune_probe(cases, names, base, budget=budget, folder=Path(folder), progress=progress)
    saved = save_user_model(
        name,
        probe,
        base=description,
        labels=labels,
        anatomy=anatomy,
        facts=UserModelFacts(modality=modality, training_data=f"fine-tuned by a reader on {_count(cases)}"),
        replace=replace,
    )
    return FineTuningReport(
        folder=str(saved),
        base=f"{description.name} {description.version}",
        seconds=round(time.monotonic() - began, 1),
        organs=_annotated_organs(cases, names, labels),
    )


def _count(cases: Sequence[LabelledVolume]) -> str:
    return "one scan" if len(cases) == 1 else f"{len(cases)} scans"


def _annotated_organs(
    cases: Sequence[LabelledVolume], names: Mapping[int, str], labels: list[dict[str, Any]]
) -> tuple[AnnotatedOrgan, ...]:
    drawn = [sum(np.count_nonzero(c.labels == value) * c.volume.voxel_ml for c in cases) for value in names]
    return tuple(
        AnnotatedOrgan(name=entry["name"], title=entry["title"], drawn_ml=round(ml, 2))
        for entry, ml in zip(labels, drawn, strict=True)
    )


def scans_modality(cases: Sequence[LabelledVolume], base: ModelDescription, *, force: bool = False) -> str:
    """The common modality of the scans, from their headers, else from their voxel values.

    Raises:
        DiffusionSegmentError: MODALITY if it is not that of the base, unless `force`; OPTION for several modalities.
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


def _likely_modality(case: LabelledVolume) -> str:
    """From the header, else CT if the values look like Hounsfield units, MR otherwise."""
    return case.modality or ("CT" if shows_hounsfield(case.volume.array) else "MR")


def _other_bases(case: LabelledVolume, base: ModelDescription) -> str:
    """A hint for a scan of another modality than that of the base: the installed models for its modality."""
    modality, suitable = _likely_modality(case), []
    for name in list_models():
        with contextlib.suppress(DiffusionSegmentError):
            if read_description(find_model(name)).modality == modality != base.modality:
                suitable.append(name)
    if not suitable:
        return f"There is no base for {modality}: train one with `train`."
    return f"Choose a base for {modality}: {', '.join(suitable)}."


def label_entries(names: Mapping[int, str], base: ModelDescription) -> list[dict[str, Any]]:
    """Entries of `labels` in model.json for the segments.

    Code and colour are those of the organ of that name in the base model, else "Tissue" and a colour not in use there.

    Raises:
        DiffusionSegmentError: OPTION for a duplicate name, one without letters, or one that is too long.
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
    """The name of a segment as written in model.json: "Left kidney" -> "left_kidney".

    Raises:
        DiffusionSegmentError: OPTION for a name without letters or with more than 60 characters.
    """
    name = re.sub(r"\W+", "_", given.strip().lower()).strip("_")
    if not name or len(name) > _MAX_NAME_LENGTH:
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"'{given[:80]}' cannot be a segment's name.", hint="Use 1 to 60 letters and digits."
        )
    return name


def anatomy_limits_around(cases: Sequence[LabelledVolume], names: Mapping[int, str], base: Model) -> dict[str, Any]:
    """Limits of the anatomy check around the segments: no minimum volume, and a wide range of body heights."""
    limits: dict[str, Any] = {"min_organ_ml": 0.0, "min_confidence": 0.0, "usual_confidence": _USUAL_CONFIDENCE}
    if base.description.anatomy.body_z_mm is None:
        return limits
    heights = []
    for case in cases:
        grid = model_grid(case.volume, spacing=base.description.spacing_mm)
        image = torch.from_numpy(network_input(case.volume, grid, base.description))
        drawn = grid.labels_to_grid(np.isin(case.labels, list(names)))
        heights.append(body_coordinates(image, base)[2].numpy()[drawn > 0])
    low, high = np.percentile(np.concatenate(heights), [1, 99])
    return {
        **limits,
        "body_z_mm": [round(float(low) - _HEIGHT_MARGIN_MM, 1), round(float(high) + _HEIGHT_MARGIN_MM, 1)],
    }
