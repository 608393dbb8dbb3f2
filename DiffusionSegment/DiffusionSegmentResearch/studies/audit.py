"""`study audit`: an audit network trained on implanted errors, tested on real errors of a network that it never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from DiffusionSegmentBackend.datasets.labelled_cases import find_cases
from DiffusionSegmentBackend.datasets.patch_sampler import TrainingSet
from DiffusionSegmentBackend.datasets.volumes import TrainingVolume, load_volumes
from DiffusionSegmentBackend.models.manifest import ModelDescription
from DiffusionSegmentBackend.training.loop import Budget, RunOptions
from numpy.typing import NDArray
from scipy.stats import rankdata
from tqdm import tqdm

from ..audit.inference import audit_organ
from ..audit.network import AuditNetwork
from ..audit.training import AuditPatches, train_audit
from .bakeoff_data import ARM_MINUTES, FOLDS, read_setup
from .out_of_fold_maps import OutOfFoldMap, out_of_fold_maps
from .result_file import StudyDescription, StudyResult, StudyRow
from .study import StudyRequest
from .study_data import load_regressor

LEFT_OUT = ("left_kidney", "aorta", "pancreas")
_MINUTES = 120.0
_NEAR_MM = 6.0
_MIN_VOXELS = 20


@dataclass(frozen=True)
class AuditData:
    """Training volumes at the spacing of the trunk, and label values that are never audited in training."""

    volumes: Sequence[TrainingVolume]
    window: tuple[float, float]
    left_out: frozenset[int]


def study(request: StudyRequest) -> StudyResult:
    """Train on the fold's training cases, resuming, and test on the out-of-fold maps of its held-out cases."""
    setup = read_setup(request, arm_minutes=ARM_MINUTES)
    held_out = {files.name for files, _ in setup.data.held_out}
    maps = list(out_of_fold_maps(setup))
    data = audit_data(request, held_out)
    minutes = request.options.minutes or _MINUTES
    run = RunOptions(
        budget=Budget(
            steps=10**9,
            minutes=minutes,
            learning_rate=2e-3,
            ema_decay=0.995,
            processor_time=True,
            seed=request.seed,
            device=setup.plan.device,
        ),
        folder=request.trainings / "audit",
        resume=True,
        title="audit",
    )
    patches = AuditPatches([TrainingSet(data.volumes)], window=data.window, seed=request.seed, left_out=data.left_out)
    network = train_audit(AuditNetwork(), patches, run=run).to("cpu")
    names = ", ".join(name.replace("_", " ") for name in LEFT_OUT)
    description = StudyDescription(
        order=56,
        title="Audit network",
        question="Does a network that knows no organs see where the outline of an organ is wrong?",
        protocol=f"Trained on errors implanted into expert masks of {len(data.volumes)} cases; {names} were never "
        f"audited in training. Tested on fold {setup.fold} of {FOLDS} of the bake-off, {len(maps)} cases, with the "
        "real errors of its control arm, a segmenter that the network never saw. AUROC of wrong against right voxels "
        "within 6 mm of the predicted surface, mean over cases.",
        budget=f"{minutes:g} minutes of one core computing",
    )
    return StudyResult(auroc_rows(network, maps, request.description, data.left_out), description)


def audit_data(request: StudyRequest, held_out: set[str]) -> AuditData:
    """The training cases of the data folders without those that are held out."""
    description = request.description
    files = [case for folder in request.data for case in find_cases(folder) if case.name not in held_out]
    regressor = load_regressor(description)
    volumes = [
        volume
        for case in tqdm(files, desc="read")
        for volume in load_volumes([case], description, regressor, trunk_stride=(1, 1, 1))
    ]
    left_out = frozenset(label.value for label in description.labels if label.name in LEFT_OUT)
    return AuditData(volumes, description.nominal_window, left_out)


def auroc_rows(
    network: AuditNetwork, maps: Sequence[OutOfFoldMap], description: ModelDescription, left_out: frozenset[int]
) -> list[StudyRow]:
    """A row per organ, and the means over organs that were audited in training and over those that were not."""
    torch.set_num_threads(1)
    values: dict[int, list[float]] = {label.value: [] for label in description.labels}
    for item in tqdm(maps, desc="audit"):
        labels = item.probabilities.argmax(axis=0).astype(np.uint8)
        for value, scores in values.items():
            audited = audit_organ(network, item.image, labels, value, spacing=item.spacing)
            if audited is None:
                continue
            wrong = (labels[audited.box] == value) != (item.truth[audited.box] == value)
            near = np.abs(audited.distance_mm) <= _NEAR_MM
            score = auroc(audited.probability[near], wrong[near])
            scores += [] if score is None else [score]
    means = {value: float(np.mean(scores)) for value, scores in values.items() if scores}
    groups = [
        ("organs audited in training", [mean for value, mean in means.items() if value not in left_out]),
        ("organs left out of training", [mean for value, mean in means.items() if value in left_out]),
    ]
    rows = [StudyRow(name, numbers={"AUROC": round(float(np.mean(scores)), 3)}) for name, scores in groups if scores]
    titles = {label.value: label.title for label in description.labels}
    return rows + [StudyRow(titles[value], numbers={"AUROC": round(mean, 3)}) for value, mean in means.items()]


def auroc(scores: NDArray[np.float32], positive: NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve by ranks; None with fewer than 20 voxels of either kind."""
    count = int(positive.sum())
    if min(count, positive.size - count) < _MIN_VOXELS:
        return None
    ranks = rankdata(scores)
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (positive.size - count)))
