"""MODEL_CARD.md, and the entry `quality` of model.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...imaging.atomic_writes import write_text
from ...models.manifest import CARD_FILE, ModelDescription
from .model_folder import ModelFolder
from .options import ModelTrainingOptions
from .time_plan import TimePlan

_CARD = """# Model card: {name} {version}

{title}. For research; **not for diagnosis**, not for treatment planning.

## Must not be used for
Anything that a patient's care depends on; other body parts, other modalities than {modality}, and anatomy, contrast or
disease that its training scans do not show. The uncertainty cannot be trusted to say so.

## Data
{data}.

## Licence
Weights: {licence}.

## Training
    {command}

Minutes of each stage; {reserved:.3g} of them are for reading the scans and for scoring those that were held out.

| stage | minutes |
|---|---|
{stages}

## Measured
Dice in the scans' own geometry, out of fold: each of {cases} cases was segmented by a network that never saw it, one of
{folds}, trained for {fold_minutes:.3g} minutes; the model itself was trained on all cases for {minutes:.3g} minutes.

| Dice | cases | mean | median | lowest |
|---|---|---|---|---|
{organs}

Temperature fitted on the same predictions.
"""


def write_card(
    folder: ModelFolder,
    options: ModelTrainingOptions,
    plan: TimePlan,
    dice: Mapping[str, NDArray[np.float64]],
) -> None:
    """Write the model card and `quality`; `dice` contains (organs,) by the name of the held-out case."""
    description = folder.description
    table = np.stack([*dice.values()])
    folder.change(quality=quality(description, table))
    text = _CARD.format(
        name=description.name,
        version=description.version,
        title=description.title,
        modality=description.modality,
        data=description.raw.get("training_data", ""),
        licence=description.raw.get("licence", ""),
        reserved=sum(plan.reserved.values()),
        command=command(options),
        stages="\n".join(f"| {name} | {minutes:.3g} |" for name, minutes in plan.stages.items() if minutes),
        cases=len(dice),
        folds=options.folds,
        fold_minutes=plan.fold_trunk + plan.fold_segmenter,
        minutes=plan.trunk + plan.segmenter,
        organs="\n".join(_rows(description, table)),
    )
    write_text(folder.path / CARD_FILE, text)


def quality(description: ModelDescription, table: NDArray[np.float64]) -> dict[str, object]:
    """The entry `quality` of model.json from Dice (cases, organs)."""
    by_organ = np.nanmean(table, axis=0)
    return {
        "cases": len(table),
        "mean_dice": {"segmenter": round(float(np.nanmean(np.nanmean(table, axis=1))), 4)},
        "organ_dice": {
            label.name: round(float(value), 4) for label, value in zip(description.labels, by_organ, strict=True)
        },
    }


def command(options: ModelTrainingOptions) -> str:
    """The command that trains such a model, with the names of the folders instead of their paths."""
    parts = ["diffusion-segment train"]
    parts += [f"--data {path.name}" for path in options.data]
    parts += [f"--unlabelled {path.name}" for path in options.unlabelled]
    parts += [f"--manifest {Path(options.manifest).name}"] if options.manifest else []
    parts += [f"-o {options.output.name}", f"--minutes {options.minutes:g}", f"--folds {options.folds}"]
    parts += [f"--denoising-share {options.denoising_share:g}", f"--seed {options.seed}"]
    parts += ["--pseudo-labels"] if options.pseudo_labels else []
    parts += ["--processor-time"] if options.processor_time else []
    return " ".join(parts)


def _rows(description: ModelDescription, table: NDArray[np.float64]) -> list[str]:
    rows = [
        _row(label.title, values[np.isfinite(values)])
        for label, values in zip(description.labels, table.T, strict=True)
    ]
    return [*rows, _row("**Mean**", np.nanmean(table, axis=1))]


def _row(title: str, values: NDArray[np.float64]) -> str:
    if not len(values):
        return f"| {title} | 0 | - | - | - |"
    return f"| {title} | {len(values)} | {values.mean():.3f} | {np.median(values):.3f} | {values.min():.3f} |"
