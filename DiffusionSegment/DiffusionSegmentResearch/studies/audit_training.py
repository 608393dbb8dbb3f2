"""The audit network of a study: trained on implanted errors and on those of a segmenter on degraded images."""

from __future__ import annotations

import torch
from DiffusionSegmentBackend.datasets.patch_sampler import TrainingSet
from DiffusionSegmentBackend.datasets.volumes import training_volume
from DiffusionSegmentBackend.models.model import Model
from DiffusionSegmentBackend.training.degraded_scans import degraded_prediction
from DiffusionSegmentBackend.training.loop import Budget, RunOptions
from DiffusionSegmentBackend.training.session import add_coordinates, load_cases
from tqdm import tqdm

from ..audit.network import AuditNetwork
from ..audit.segmenter_errors import with_prediction
from ..audit.training import AuditPatches, train_audit
from .degraded_predictions import degraded_predictions
from .study import StudyRequest


def trained_audit(
    request: StudyRequest, model: Model, *, minutes: float, left_out: frozenset[int]
) -> tuple[AuditNetwork, int]:
    """The network, trained on the training cases of the first data folder, resuming; and the number of cases."""
    training = audit_training_set(request, model)
    patches = AuditPatches([training], window=model.description.nominal_window, seed=request.seed, left_out=left_out)
    budget = Budget(
        steps=10**9,
        minutes=minutes,
        learning_rate=2e-3,
        ema_decay=0.995,
        processor_time=True,
        seed=request.seed,
    )
    torch.manual_seed(request.seed)
    run = RunOptions(budget=budget, folder=request.trainings / "audit", resume=True, title="audit")
    return train_audit(AuditNetwork(), patches, run=run), len({volume.name for volume in training.volumes})


def audit_training_set(request: StudyRequest, model: Model) -> TrainingSet:
    """Every training case twice, each with what the model finds in another degraded image of it."""
    cases = load_cases(request.data[:1], model.description)
    add_coordinates(cases, model.bodypart)
    folder = request.trainings / "predictions"
    volumes = []
    for number, case in enumerate(tqdm(cases, desc="errors of the segmenter")):
        volume = training_volume(case, model.bodypart, model.description.classes, trunk_stride=(1, 1, 1))
        found = degraded_predictions(case, model, degraded_prediction, folder, seed=(request.seed, number))
        volumes += [with_prediction(volume, labels) for labels in found]
    return TrainingSet(volumes)
