"""`diffusion-segment-research study`: one claim measured on labelled scans, one result file for the evidence page."""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from DiffusionSegmentBackend.datasets.labelled_cases import Case, find_cases
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.models.manifest import ModelDescription, read_description
from DiffusionSegmentBackend.models.model import load_model, load_network
from DiffusionSegmentBackend.networks.backbone import Backbone
from DiffusionSegmentBackend.networks.bodypart import BodyPartRegressor
from DiffusionSegmentBackend.training.loop import Budget
from DiffusionSegmentBackend.training.presegmentations import read_presegmentations
from DiffusionSegmentBackend.training.session import TRAINING_FOLDER, add_coordinates, load_cases

from .anatomy import anatomy_study
from .augmentations import augmentation_study
from .bodypart import bodypart_rows, recognition_rows
from .correction import correction_rows
from .few_labels import FROM_SCRATCH as NEW_NETWORK
from .few_labels import LABELLED as FEW_OR_ALL
from .few_labels import label_rows, starts_of
from .frozen_features import LABELLED, TIMESTEPS, Cohort, cross_validation_jobs, measure, split_job
from .model_quality import model_rows
from .recycling import recycling_rows
from .refinement import RefinerUnderTest
from .result_file import ORGAN_GROUPS, StudyRow, write_study
from .settings import SETTINGS, setting_rows
from .starts import start_rows
from .teaching import FROM_SCRATCH, every_value, parse_targets, target_rows, teaching_rows
from .teaching import ORGANS as TAUGHT_ORGANS
from .tiles import tiles_study
from .uncertainty import uncertainty_rows
from .voxel_features import FeatureSource

_FOLDS = 5
_DROPPED_ORGAN = "spleen"
_TEACHING_MINUTES = 1.5
_LABELS_BUDGET = Budget(steps=300, learning_rate=2e-3, ema_decay=0.99, bf16=True)


def run_study(
    study: str,
    models: Sequence[Path],
    data: Sequence[Path],
    output: Path,
    *,
    predictions: Path | None = None,
    trainings: Path | None = None,
    others: Sequence[Path] = (),
    targets: str | None = None,
    minutes: float | None = None,
) -> None:
    """Run the named study and write its result file; what a person wrote there about an earlier run is kept.

    `others` are scans of other body parts, for the study of the anatomy check. `trainings` keeps
    the checkpoints of a study that trains, which goes on from those it finds there. `targets` are what the study of
    teaching teaches (`parse_targets`), else two organs that its base knows, in so many `minutes` each.

    Raises:
        DiffusionSegmentError: TRAINING_DATA, WEIGHTS_MISSING, OPTION.
    """
    descriptions = [read_description(folder) for folder in models]
    studies = {
        "features": lambda: _features(descriptions, data, predictions),
        "labels": lambda: _labels(descriptions, data, trainings),
        "recycling": lambda: _recycling(descriptions, data, _needed(predictions, study)),
        "starts": lambda: _starts(descriptions[0], data, _needed(predictions, study)),
        "models": lambda: _models(descriptions, data),
        "uncertainty": lambda: _uncertainty(descriptions[0], data),
        "settings": lambda: _settings(descriptions[0], data),
        "bodypart": lambda: _bodypart(descriptions, data),
        "corrections": lambda: _corrections(descriptions[0], data),
        "teaching": lambda: _teaching(descriptions[0], data, targets, minutes or _TEACHING_MINUTES),
        "augmentations": lambda: augmentation_study(descriptions[0], data[0], output),
        "tiles": lambda: tiles_study(descriptions, data),
        "anatomy": lambda: anatomy_study(descriptions[0], data, others, _needed(predictions, study)),
    }
    rows, described = studies[study]()
    paths = " ".join(str(path) for path in models)
    folders = " ".join(f"--data {path}" for path in data)
    options = {"--predictions": predictions, "--trainings": trainings}
    more = "".join(f" {option} {folder}" for option, folder in options.items() if folder)
    more += "".join(f" --other {place}" for place in others)
    more += f" --targets {shlex.quote(targets)}" if targets else ""
    more += f" --minutes {minutes:g}" if minutes else ""
    command = f"diffusion-segment-research study {study} --models {paths} {folders} -o {output}{more}"
    write_study(output, rows, command=command, seed=0, **described)


def _needed(predictions: Path | None, study: str) -> Path:
    if predictions is None:
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"The study '{study}' needs a folder of predictions.",
            hint="Name it with --predictions: pre-segmentations of `study features`, or for anatomy any folder.",
        )
    return predictions


def _cohort(description: ModelDescription, data: Sequence[Path]) -> Cohort:
    """Training and validation cases with coordinates."""
    training, validation = load_cases(data, description), _validation(description, data)
    add_coordinates(training, cast(BodyPartRegressor, load_network(description, "bodypart")))
    return Cohort(training + validation, len(validation), _organs(description))


def _validation(description: ModelDescription, data: Sequence[Path]) -> list[Case]:
    """Validation cases with coordinates."""
    cases = load_cases(data, description, part="validation")
    add_coordinates(cases, cast(BodyPartRegressor, load_network(description, "bodypart")))
    return cases


def _organs(description: ModelDescription) -> tuple[str, ...]:
    return tuple(label.name for label in description.labels)


def _groups(organs: Sequence[str]) -> dict[str, Any]:
    groups = {name: [o for o in members if o in organs] for name, members in ORGAN_GROUPS.items()}
    return {"groups": groups} if all(groups.values()) else {}


def _features(
    descriptions: Sequence[ModelDescription], data: Sequence[Path], predictions: Path | None
) -> tuple[list[StudyRow], dict[str, Any]]:
    cohort = _cohort(descriptions[0], data)
    rows = []
    for n, description in enumerate(descriptions):
        backbone = cast(Backbone, load_network(description, "backbone"))
        backbone.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        source = FeatureSource(backbone, coordinates=backbone.use_coordinates)
        jobs = cross_validation_jobs(cohort, folds=_FOLDS)
        jobs += [split_job(cohort, f"{count} labelled", labelled=count) for count in LABELLED]
        found = measure(source, cohort, jobs, predictions=predictions if n == 0 else None)
        rows += [replace(row, name=f"{description.folder.name}, {row.name}") for row in found]
        if n == 0:
            raw = measure(replace(source, backbone=None), cohort, jobs)
            rows += [replace(row, name=f"no network, {row.name}") for row in raw]
            for t in TIMESTEPS:
                (row,) = measure(replace(source, timestep=t), cohort, [split_job(cohort, "t")])
                rows.append(replace(row, name=f"{description.folder.name}, x_t at t = {t}", x=t, series="x_t"))
    groups = _groups(cohort.organs)
    described = {
        "order": 20,
        "title": "Frozen features",
        "question": "What do frozen features know, by the way they were pretrained?",
        "protocol": "Pointwise probes (1x1x1, as vox2vec's) on intensity, body coordinates and frozen features; 'no "
        f"network' has the first two alone; {_FOLDS}-fold cross-validation over "
        f"{len(cohort.cases)} cases; rows of x_t and of few labels: training cases, tested on {cohort.validation} "
        "validation cases. Dice on the model's grid, over every second voxel along z and y.",
        "budget": _budget(descriptions[0], "backbone"),
        "reference": f"{descriptions[0].folder.name}, nonlinear",
        "plot": {"x_label": "t of 1000", "log_x": True, "y": "dice by group" if groups else "dice", "y_label": "Dice"},
        **groups,
    }
    return rows, described


def _labels(
    descriptions: Sequence[ModelDescription], data: Sequence[Path], trainings: Path | None
) -> tuple[list[StudyRow], dict[str, Any]]:
    cohort = _cohort(descriptions[0], data)
    starts = starts_of(
        {d.folder.name: cast(Backbone, load_network(d, "backbone")) for d in descriptions}, seed=_LABELS_BUDGET.seed
    )
    with tempfile.TemporaryDirectory() as passing:
        rows = label_rows(starts, cohort, budget=_LABELS_BUDGET, folder=trainings or Path(passing))
    described = {
        "order": 22,
        "title": "Few labels: from scratch, fine-tuned, frozen",
        "question": "Does pretraining save labels?",
        "protocol": "One backbone architecture under the product's own probe (3x3x3 convolutions), trained on the "
        f"first {', '.join(map(str, FEW_OR_ALL))} training cases: both new, or the backbone pretrained, which joins "
        f"after a twentieth of the steps ('fine-tuned') or not at all ('frozen'). Tested on {cohort.validation} "
        "validation cases on the model's grid.",
        "budget": f"{_LABELS_BUDGET.steps} steps of two augmented 64-voxel patches a training; pretraining beforehand: "
        f"{_budget(descriptions[0], 'backbone')}",
        "reference": f"{NEW_NETWORK}, {FEW_OR_ALL[-1]} labelled",
        "plot": {"x_label": "labelled cases", "log_x": True, "y": "dice", "y_label": "mean Dice"},
        **_groups(cohort.organs),
    }
    return rows, described


def _recycling(
    descriptions: Sequence[ModelDescription], data: Sequence[Path], predictions: Path
) -> tuple[list[StudyRow], dict[str, Any]]:
    cases = _validation(descriptions[0], data)
    priors = read_presegmentations(predictions, cases, descriptions[0].classes)
    models = [(RefinerUnderTest.load(d), *_scheme(d)) for d in descriptions]
    rows = recycling_rows(models, cases, priors, _organs(descriptions[0]))
    training = sum(len(find_cases(folder)) for folder in data)
    described = {
        "order": 30,
        "title": "Recycling, and the honesty test",
        "question": "Does Dice fall over the steps, and does diffusion beat a deterministic refiner?",
        "protocol": f"Refiners of one size on one frozen backbone, trained on {training} cases with "
        f"out-of-fold pre-segmentations, tested on {len(cases)} validation cases, on the model's grid; K = 1 unless "
        "said. 'Ensemble' is the mean of the last step and the pre-segmentation.",
        "budget": _budget(descriptions[0], "refiner"),
        "reference": _reference(rows),
        "plot": {"x_label": "reverse step", "log_x": False, "y": "dice", "y_label": "mean Dice"},
    }
    return rows, described


def _reference(rows: Sequence[StudyRow]) -> str:
    """The deterministic refiner where there is one, else the pre-segmentation."""
    return next((row.name for row in rows if row.name.startswith("deterministic")), rows[0].name)


def _starts(
    description: ModelDescription, data: Sequence[Path], predictions: Path
) -> tuple[list[StudyRow], dict[str, Any]]:
    cases, organs = _validation(description, data), _organs(description)
    priors = read_presegmentations(predictions, cases, description.classes)
    dropped = organs.index(_DROPPED_ORGAN) + 1 if _DROPPED_ORGAN in organs else 1
    rows = start_rows(RefinerUnderTest.load(description), cases, priors, organs, dropped=dropped)
    described = {
        "order": 40,
        "title": "Starting from the pre-segmentation",
        "question": "Where to start, how many steps, how many samples?",
        "protocol": f"One refiner, {len(cases)} validation cases, out-of-fold pre-segmentations, DDIM, on the model's "
        f"grid. Last column: Dice of the {organs[dropped - 1].replace('_', ' ')} when it was taken out of the "
        "pre-segmentation.",
        "budget": _budget(description, "refiner"),
        "plot": {"x_label": "steps S", "log_x": True, "y": "dice", "y_label": "mean Dice"},
    }
    return rows, described


def _uncertainty(description: ModelDescription, data: Sequence[Path]) -> tuple[list[StudyRow], dict[str, Any]]:
    model = load_model(str(description.folder), "auto")
    cases = load_cases(data, description, part="validation")
    add_coordinates(cases, model.bodypart)
    rows = uncertainty_rows(model, cases)
    described = {
        "order": 50,
        "title": f"Uncertainty of {description.name}",
        "question": "Does the uncertainty say where the model is wrong?",
        "protocol": f"{len(cases)} validation cases on the model's grid, inside the body; band ECE within 5 mm of true "
        "boundaries; AURC by the largest probability; shares and rank correlation by entropy.",
        "budget": _budget(description, "probe"),
        "reference": "probe, softmax",
    }
    return rows, described


def _settings(description: ModelDescription, data: Sequence[Path]) -> tuple[list[StudyRow], dict[str, Any]]:
    cases = load_cases(data, description, part="validation")
    described = {
        "order": 55,
        "title": f"Quicker settings of {description.name}",
        "question": "What do fewer bits, samples and steps cost in Dice and calibration?",
        "protocol": f"{len(cases)} validation cases on the model's grid, probe and samples together, on the CPU; "
        "measures as in the study of uncertainty. Seconds are those of backbone, probe and refiner.",
        "budget": _budget(description, "refiner"),
        "reference": SETTINGS[0].name,
    }
    return setting_rows(description.folder, cases), described


def _bodypart(descriptions: Sequence[ModelDescription], data: Sequence[Path]) -> tuple[list[StudyRow], dict[str, Any]]:
    regressor = cast(BodyPartRegressor, load_network(descriptions[0], "bodypart"))
    groups: list[tuple[ModelDescription, list[Case]]] = [
        (d, load_cases([place], d, part="validation")) for d, place in zip(descriptions, data, strict=True)
    ]
    rows = bodypart_rows(regressor, groups) + recognition_rows(regressor, groups)
    described = {
        "order": 10,
        "title": "Body-part regression",
        "question": "Do predicted body coordinates agree over patients, and do they tell body parts apart?",
        "protocol": "Validation cases. Spread: standard deviation over patients of the coordinate at an organ's "
        "centroid, median over organs. Order: body voxels whose coordinate grows over 12 mm along its axis. Changes: "
        "median over body voxels and cases after cutting off a quarter, noise of 30 HU, and 1.25 times the spacing.",
        "budget": _budget(descriptions[0], "bodypart"),
    }
    return rows, described


def _corrections(description: ModelDescription, data: Sequence[Path]) -> tuple[list[StudyRow], dict[str, Any]]:
    scans = find_cases(data[0], part="validation")
    rows = correction_rows(load_model(str(description.folder), "auto"), scans)
    described = {
        "order": 55,
        "title": "Corrections",
        "question": "How much does a stroke mend?",
        "protocol": f"{len(scans)} validation cases in their own geometry. A simulated reader marks the largest "
        "connected mistake of the present label map, with click, scribble and painted slice in turn, knowing the "
        "truth. Each way begins with the same result.",
        "budget": _budget(description, "refiner"),
        "reference": rows[0].name,
        "plot": {"x_label": "corrections", "log_x": False, "y": "dice", "y_label": "mean Dice"},
    }
    return rows, described


def _teaching(
    description: ModelDescription, data: Sequence[Path], targets: str | None, minutes: float
) -> tuple[list[StudyRow], dict[str, Any]]:
    base = load_model(str(description.folder), "cpu", with_refiner=False)
    lesson, tests = find_cases(data[0])[0], _validation(every_value(description), data)
    taught = parse_targets(targets or ",".join(TAUGHT_ORGANS), description)
    protocol = (
        f"Each alone from case {lesson.name}, tested on {len(tests)} validation cases on the model's grid. Taught: a "
        f"probe on the frozen features of {description.name}, begun from its own probe."
    )
    described = {
        "order": 60,
        "title": "A model of the reader's own",
        "question": "What does a reader get who teaches one organ on one scan?",
        "protocol": f"{protocol} Rival: backbone and probe of the same architecture, both new, trained on the same "
        f"scan for the same time. The backbone of {description.name} was fine-tuned with labels of these organs: one "
        "that is new to it will fare worse.",
        "budget": f"{minutes:g} minutes of the processor an organ, features included; base "
        f"{description.name} {description.version}",
        "reference": FROM_SCRATCH,
    }
    if targets is None:
        return teaching_rows(base, lesson, tests, taught, minutes=minutes), described
    rows = target_rows(base, lesson, tests, taught, minutes=minutes)
    return rows, {
        **described,
        "order": 61,
        "title": "Fine-tuning to what the base does not know",
        "question": "How much worse is a target that no training of the base was told?",
        "protocol": f"{protocol} Half an organ is cut at the middle of its volume: a boundary that nobody drew and "
        f"that no training of {description.name} was told.",
        "reference": rows[0].name,
    }


def _models(descriptions: Sequence[ModelDescription], data: Sequence[Path]) -> tuple[list[StudyRow], dict[str, Any]]:
    rows = []
    for description, place in zip(descriptions, data, strict=True):
        model = load_model(str(description.folder), "auto")
        rows += model_rows(model, find_cases(place, part="validation"))
    described = {
        "order": 5,
        "title": "The shipped models",
        "question": "How well do they segment patients they never saw?",
        "protocol": "Validation cases in their own geometry, the models' default K, S and start; organs that were not "
        "drawn in a case are left out of its mean. Surface Dice at 2 mm. vox2vec's protocol: both label maps read at "
        "1 x 1 x 2 mm by nearest voxel; an organ that a case lacks counts as 1 where none was found, else as 0.",
        "budget": "; ".join(f"{d.name}: {_budget(d, 'probe')}" for d in descriptions),
    }
    return rows, described


def _scheme(description: ModelDescription) -> tuple[str, float]:
    """What `train` wrote down about the refiner."""
    options = _record(description, "refiner").get("options", {})
    return str(options.get("scheme", "recycling")), float(options.get("abar_start", description.defaults.abar_start))


def _budget(description: ModelDescription, network: str) -> str:
    record = _record(description, network)
    if not record:
        return "not recorded"
    return f"{record['steps_done']} steps, {record['training_seconds'] / 60:.0f} minutes a training"


def _record(description: ModelDescription, network: str) -> dict[str, Any]:
    path = description.folder / TRAINING_FOLDER / f"{network}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
