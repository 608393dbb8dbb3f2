"""`train` from manifest and scans to a model: runs the stages in order, starting with the first unfinished one."""

from __future__ import annotations

from dataclasses import replace

from ...datasets.scans import ScanFiles, find_scans
from ...models.model import choose_device
from .model_folder import ModelFolder
from .model_run import ModelRun
from .networks import NetworkTraining
from .options import ModelTrainingOptions
from .preparation import measure_preparation
from .stage_bar import preparation_bar, stage_bar
from .stages import STAGE_FUNCTIONS
from .time_plan import TimePlan, plan_time


def train_model(options: ModelTrainingOptions) -> None:
    """Train a model, or run the single stage in `options`. Finished stages are skipped.

    The folder receives model.json, weights and MODEL_CARD.md, and under `training` checkpoints, loss curves,
    out-of-fold predictions and a record of each stage.

    Raises:
        DiffusionSegmentError: OPTION, TRAINING_DATA, MODEL_UNKNOWN, WEIGHTS_MISSING (a stage before those that
            it depends on), CHECKPOINT, DISK_FULL, NO_DEVICE.
    """
    options.check()
    plan_time(options.minutes, folds=options.folds, pseudo_labels=options.pseudo_labels)
    device = choose_device(options.device).type
    folder = ModelFolder(options.output)
    manifest = folder.manifest(options.manifest)
    scans = find_scans(options.data, options.unlabelled, manifest)
    training = NetworkTraining(manifest, device, options.seed, options.denoising_share, options.processor_time)
    training.check()
    folder.check(options)
    plan = _plan(options, folder, training, scans)
    folder.begin(options, scans, plan.preparation)
    training = replace(training, description=folder.description)
    stages = [options.stage] if options.stage is not None else [*STAGE_FUNCTIONS]
    with stage_bar(plan.stages) as bar:
        run = ModelRun(folder, options, training, plan, scans, bar)
        for stage in stages:
            bar.begin(stage)
            if folder.record(stage) is None:
                folder.finish(stage, **STAGE_FUNCTIONS[stage](run))


def _plan(options: ModelTrainingOptions, folder: ModelFolder, training: NetworkTraining, scans: ScanFiles) -> TimePlan:
    """The time plan; the time for reading and scoring is measured at the start and kept by a resumed run."""
    preparation = folder.preparation
    if preparation is None:
        with preparation_bar() as note:
            preparation = measure_preparation(scans, training, note, pseudo_labels=options.pseudo_labels)
    return plan_time(options.minutes, folds=options.folds, pseudo_labels=options.pseudo_labels, preparation=preparation)
