"""`study features`: probes on frozen features of several backbones, over timesteps and numbers of labelled cases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from DiffusionSegmentBackend.models.manifest import ModelDescription

from .frozen_features import LABELLED, TIMESTEPS, Cohort, cross_validation_jobs, measure, split_job
from .result_file import PlotAxes, StudyDescription, StudyResult, StudyRow, organ_groups
from .study import StudyRequest
from .study_data import load_backbone, load_cohort, training_budget
from .voxel_features import FeatureSource

FOLDS = 5


def study(request: StudyRequest) -> StudyResult:
    """Probes on the backbone of each model; timesteps and probes without a network for the first one."""
    first = request.description
    cohort = load_cohort(first, request.data)
    jobs = cross_validation_jobs(cohort, folds=FOLDS)
    jobs += [split_job(cohort, f"{count} labelled", labelled=count) for count in LABELLED]
    rows: list[StudyRow] = []
    for description in request.descriptions:
        source = _source(description)
        predictions = request.options.predictions if description is first else None
        name = description.folder.name
        rows += _renamed(name, measure(source, cohort, jobs, predictions=predictions))
        if description is first:
            rows += _renamed("no network", measure(replace(source, backbone=None), cohort, jobs))
            rows += _timestep_rows(name, source, cohort)
    return StudyResult(rows, _description(request, cohort))


def _source(description: ModelDescription) -> FeatureSource:
    backbone = load_backbone(description)
    backbone.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return FeatureSource(backbone, coordinates=backbone.use_coordinates)


def _renamed(prefix: str, rows: list[StudyRow]) -> list[StudyRow]:
    return [replace(row, name=f"{prefix}, {row.name}") for row in rows]


def _timestep_rows(name: str, source: FeatureSource, cohort: Cohort) -> Iterator[StudyRow]:
    for t in TIMESTEPS:
        (row,) = measure(replace(source, timestep=t), cohort, [split_job(cohort, "t")])
        yield replace(row, name=f"{name}, x_t at t = {t}", x=t, series="x_t")


def _description(request: StudyRequest, cohort: Cohort) -> StudyDescription:
    groups = organ_groups(cohort.organs)
    return StudyDescription(
        order=20,
        title="Frozen features",
        question="What do frozen features encode, depending on the pretraining?",
        protocol="Pointwise probes (1x1x1, as vox2vec's) on intensity, body coordinates and frozen features; 'no "
        f"network' has the first two alone; {FOLDS}-fold cross-validation over "
        f"{len(cohort.cases)} cases; rows of x_t and of few labels: training cases, tested on {cohort.validation} "
        "validation cases. Dice on the model's grid, over every second voxel along z and y.",
        budget=training_budget(request.description, "backbone"),
        reference=f"{request.description.folder.name}, nonlinear",
        plot=PlotAxes(x_label="t of 1000", log_x=True, y="dice by group" if groups else "dice", y_label="Dice"),
        groups=groups,
    )
