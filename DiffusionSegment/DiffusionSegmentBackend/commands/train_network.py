"""`diffusion-segment train NETWORK`: train one network of a model of the first generation.

Several models can be trained jointly; they then share the body-part network and the backbone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from torch import nn

from ..datasets.folds import ALL_CASES, Fold
from ..datasets.labelled_cases import Case, find_cases
from ..datasets.scans import refuse_other_modality
from ..errors import DiffusionSegmentError, ErrorCode
from ..models.manifest import ModelDescription
from ..models.model import choose_device, load_network, save_network, share_network
from ..networks.backbone import Backbone
from ..networks.bodypart import BodyPartRegressor
from ..networks.probe import Probe
from ..networks.refiner import Refiner
from ..training.backbone import train_backbone
from ..training.bodypart import framed_scans, free_scans, train_bodypart
from ..training.loop import Budget, RunOptions
from ..training.new_model import data_text
from ..training.presegmentations import presegment, read_presegmentations
from ..training.probe import Task, train_probe
from ..training.refiner import train_refiner
from ..training.schemes import RefinerRecipe
from ..training.session import (
    TRAINING_FOLDER,
    add_coordinates,
    load_cases,
    load_scans,
    model_source,
    record_training_data,
    start_model_folder,
    store,
    store_body_range,
)

_STEPS = {"bodypart": 1400, "backbone": 20_000, "probe": 20_000, "refiner": 10_000}
_LEARNING_RATE = {"bodypart": 2e-3, "backbone": 1e-3, "probe": 2e-3, "refiner": 1.5e-3}
_EMA_DECAY = {"bodypart": 0.99, "backbone": 0.998, "probe": 0.998, "refiner": 0.998}
_Network = TypeVar("_Network", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class JointModel:
    """Another model that is trained jointly and shares body-part network and backbone: its folder and its data."""

    output: Path
    data: Path


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of `train NETWORK`; None stands for the default of the network.

    Attributes:
        network: "bodypart", "backbone", "probe" or "refiner".
        data: Folders with images/ and labels/.
        output: Folder of the model.
        base: Model or manifest (.json) that a new folder is initialised from.
        licence: Licence of the weights, for model.json.
        data_source: Origin of the scans, for model.json.
        joint_with: Models that are trained jointly.
        joint_share: Share of the steps for each of `joint_with`.
        unlabelled: Folders with scans without labels, for body-part network and backbone.
        fold: Which cases are held out.
        presegmentations: Folder written by `presegment`, for the refiner; None computes them with the probe.
        steps: Maximum number of steps.
        minutes: Maximum training time.
        learning_rate: Maximum learning rate.
        batch: Patches per step.
        patch: Side of a patch in voxels.
        seed: Seed of weights, patches and noise.
        device: "auto", "cpu" or "cuda".
        bf16: Mixed precision in bfloat16.
        finetune: Train the backbone together with the probe.
        init_from_weights: Start from the weights in the folder.
        objective: Pretraining objective of the backbone.
        use_coordinates: Whether the backbone has body coordinates as input.
        scheme: Training scheme of the refiner.
        resume: Continue from the last checkpoint.
    """

    network: str
    data: tuple[Path, ...]
    output: Path
    base: str = "abdomen-ct"
    licence: str = ""
    data_source: str = ""
    joint_with: tuple[JointModel, ...] = ()
    joint_share: float | None = None
    unlabelled: tuple[Path, ...] = ()
    fold: Fold = ALL_CASES
    presegmentations: Path | None = None
    steps: int | None = None
    minutes: float | None = None
    learning_rate: float | None = None
    batch: int = 2
    patch: int = 64
    seed: int = 0
    device: str = "auto"
    bf16: bool = False
    finetune: bool = False
    init_from_weights: bool = False
    objective: str = "diffusion"
    use_coordinates: bool = True
    scheme: str = "recycling"
    resume: bool = False

    @property
    def shares(self) -> list[float]:
        """Share of the steps for the model and for each joint model; they sum to 1.

        Raises:
            DiffusionSegmentError: OPTION when the joint models leave no steps for the model.
        """
        others = len(self.joint_with)
        share = 1 / (others + 1) if self.joint_share is None else self.joint_share
        if others and not 0 < share * others < 1:
            raise DiffusionSegmentError(
                ErrorCode.OPTION,
                f"{others} joint models with {share} of the steps each leave nothing to the model itself.",
                hint="Give --joint-share a number above 0 and below 1 / (number of joint models).",
            )
        return [1 - share * others, *[share] * others]

    @property
    def budget(self) -> Budget:
        """The budget; the number of steps is unlimited if only `minutes` is given."""
        steps = self.steps or (_STEPS[self.network] if self.minutes is None else 10**9)
        return Budget(
            steps=steps,
            minutes=self.minutes or float("inf"),
            seed=self.seed,
            bf16=self.bf16,
            learning_rate=self.learning_rate or _LEARNING_RATE[self.network],
            ema_decay=_EMA_DECAY[self.network],
            device=choose_device(self.device).type,
        )

    @property
    def folder(self) -> Path:
        """Folder of checkpoint and log."""
        return self.output / TRAINING_FOLDER / self.network

    def run_options(self, title: str) -> RunOptions:
        """Options of the training loop."""
        return RunOptions(budget=self.budget, folder=self.folder, resume=self.resume, title=title)


@dataclass(frozen=True)
class ModelInTraining:
    """A model's folder, its description at the start, its labelled cases, and its share of the probe's steps."""

    folder: Path
    description: ModelDescription
    data: tuple[Path, ...]
    cases: list[Case]
    share: float


def train(options: TrainOptions) -> None:
    """Train the network; those that it depends on must be in the folder.

    Raises:
        DiffusionSegmentError: TRAINING_DATA, CHECKPOINT, WEIGHTS_MISSING, NO_DEVICE, OPTION.
    """
    models = _models_in_training(options)
    unlabelled = load_scans(options.unlabelled, models[0].description)
    if options.network != "bodypart":
        regressor = _loaded(models[0], "bodypart", BodyPartRegressor)
        for cases in (*(model.cases for model in models), unlabelled):
            add_coordinates(cases, regressor)
    if options.network == "bodypart":
        _bodypart(options, models, unlabelled)
    elif options.network == "backbone":
        _backbone(options, models, unlabelled)
    elif options.network == "probe":
        _probe(options, models)
    else:
        _refiner(options, models[0])
    _record_data(options, models[0], unlabelled)
    for model in models[1:]:
        _record_data(options, model, [])


def _models_in_training(options: TrainOptions) -> list[ModelInTraining]:
    """The model and its joint models, with their folders created and their cases loaded."""
    folders = [(options.output, options.data), *((joint.output, (joint.data,)) for joint in options.joint_with)]
    models = []
    for (folder, data), share in zip(folders, options.shares, strict=True):
        _refuse_other_modality(data, model_source(folder, base=options.base))
        description = start_model_folder(folder, base=options.base, licence=options.licence)
        cases = options.fold.training(load_cases(data, description))
        _refuse_single(cases)
        models.append(ModelInTraining(folder, description, data, cases, share))
    return models


def _loaded(model: ModelInTraining, name: str, kind: type[_Network]) -> _Network:
    """A network in the folder of the model."""
    network = load_network(model.description, name)
    assert isinstance(network, kind)
    return network


def _record_data(options: TrainOptions, model: ModelInTraining, unlabelled: list[Case]) -> None:
    """Record the training data of the network in model.json."""
    counts = {folder.resolve().name: len(find_cases(folder)) for folder in model.data}
    if options.fold != ALL_CASES:
        counts = {f"{name} without fold {options.fold}": count for name, count in counts.items()}
    text = data_text(counts, unlabelled=len(unlabelled), source=options.data_source)
    record_training_data(model.folder, options.network, text)


def _refuse_other_modality(data: Sequence[Path], description: ModelDescription) -> None:
    for folder in data:
        case = find_cases(folder)[0]
        refuse_other_modality(f"{folder}: case {case.name}", case.image, description)


def _refuse_single(cases: list[Case]) -> None:
    """Refuse a single case: a network would only memorise it.

    Raises:
        DiffusionSegmentError: TRAINING_DATA.
    """
    if len(cases) < 2:
        raise DiffusionSegmentError(
            ErrorCode.TRAINING_DATA, f"Case {cases[0].name} is the only one.", hint="Give at least two cases."
        )


def _bodypart(options: TrainOptions, models: list[ModelInTraining], unlabelled: list[Case]) -> None:
    groups = [framed_scans(model.cases, model.description.labels) for model in models]
    groups += [free_scans(unlabelled)] if unlabelled else []
    start = _loaded(models[0], "bodypart", BodyPartRegressor) if options.init_from_weights else None
    network = train_bodypart(groups, budget=options.budget, folder=options.folder, resume=options.resume, start=start)
    record = {"init_from_weights": options.init_from_weights}
    _store(options, "bodypart", network, models, unlabelled, architecture={}, record=record)
    _share("bodypart", models)
    for model in models:
        store_body_range(model.folder, model.cases, network)


def _backbone(options: TrainOptions, models: list[ModelInTraining], unlabelled: list[Case]) -> None:
    if options.init_from_weights or options.objective == "student":
        start = _loaded(models[0], "backbone", Backbone)
    else:
        start = Backbone(models[0].description.channels, use_coordinates=options.use_coordinates)
    network = train_backbone(
        [case for model in models for case in model.cases] + unlabelled,
        budget=options.budget,
        folder=options.folder,
        resume=options.resume,
        patch=options.patch,
        batch=options.batch,
        objective=options.objective,
        start=start,
    )
    record = {
        "objective": options.objective,
        "coordinates": network.use_coordinates,
        "init_from_weights": options.init_from_weights,
    }
    _store(options, "backbone", network, models, unlabelled, architecture=network.architecture, record=record)
    _share("backbone", models)


def _probe(options: TrainOptions, models: list[ModelInTraining]) -> None:
    tasks = [
        Task(
            model.description.name,
            model.cases,
            model.description.classes,
            weight=model.share,
            probe=_loaded(model, "probe", Probe) if options.init_from_weights else None,
        )
        for model in models
    ]
    trained = train_probe(
        tasks,
        backbone=_loaded(models[0], "backbone", Backbone),
        budget=options.budget,
        folder=options.folder,
        resume=options.resume,
        patch=options.patch,
        batch=options.batch,
        finetune=options.finetune,
    )
    shares = {task.name: task.weight for task in tasks}
    record = {"finetune": options.finetune, "shares": shares, "init_from_weights": options.init_from_weights}
    for model, task in zip(models, tasks, strict=True):
        architecture = {"channels": list(trained.backbone.channels), "classes": task.classes}
        _store(options, "probe", trained.probes[task.name], [model], [], architecture=architecture, record=record)
    if options.finetune:
        save_network(options.output, "backbone", trained.backbone, architecture=trained.backbone.architecture)
    for name in ("bodypart", "backbone"):
        _share(name, models)


def _refiner(options: TrainOptions, model: ModelInTraining) -> None:
    backbone, probe = _loaded(model, "backbone", Backbone), _loaded(model, "probe", Probe)
    if options.presegmentations is not None:
        priors = read_presegmentations(options.presegmentations, model.cases, model.description.classes)
    else:
        priors = presegment(model.cases, backbone, probe, device=options.budget.device, bf16=options.bf16)
    defaults = model.description.defaults
    recipe = RefinerRecipe(scheme=options.scheme, schedule=defaults.schedule, abar_start=defaults.abar_start)
    network = train_refiner(
        model.cases,
        priors,
        backbone=backbone,
        recipe=recipe,
        run=options.run_options(f"refiner, {recipe.scheme}"),
        patch=options.patch,
        batch=options.batch,
        start=_loaded(model, "refiner", Refiner) if options.init_from_weights else None,
    )
    record = {
        **asdict(recipe),
        "out_of_fold": options.presegmentations is not None,
        "init_from_weights": options.init_from_weights,
    }
    _store(options, "refiner", network, [model], [], architecture=network.architecture, record=record)


def _store(
    options: TrainOptions,
    name: str,
    network: nn.Module,
    models: list[ModelInTraining],
    unlabelled: list[Case],
    *,
    architecture: dict[str, object],
    record: Mapping[str, object],
) -> None:
    cases = [case.name for case in [case for model in models for case in model.cases] + unlabelled]
    store(
        models[0].folder,
        name,
        network,
        architecture=architecture,
        budget=options.budget,
        cases=cases,
        options={**record, "fold": str(options.fold)},
        checkpoints=options.folder,
    )


def _share(name: str, models: list[ModelInTraining]) -> None:
    """Let joint models refer to the weights of the first model, whose folder must lie beside theirs."""
    for model in models[1:]:
        share_network(model.folder, name, models[0].folder)
