"""`diffusion-segment train`: one network after the other into one model folder, or into several that share them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

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
from ..training.loop import Budget
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
    note_training_data,
    start_model_folder,
    store,
    store_body_range,
)

_STEPS = {"bodypart": 1400, "backbone": 20_000, "probe": 20_000, "refiner": 10_000}
_LEARNING_RATE = {"bodypart": 2e-3, "backbone": 1e-3, "probe": 2e-3, "refiner": 1.5e-3}
_EMA_DECAY = {"bodypart": 0.99, "backbone": 0.998, "probe": 0.998, "refiner": 0.998}


@dataclass(frozen=True, kw_only=True)
class Companion:
    """Another model trained along, which will share body-part network and backbone: its folder and its data."""

    output: Path
    data: Path


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What `train` was asked for; None takes the network's own value."""

    network: str
    data: tuple[Path, ...]
    output: Path
    base: str = "abdomen-ct"
    licence: str = ""
    data_source: str = ""
    companions: tuple[Companion, ...] = ()
    companion_share: float | None = None
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
    go_on: bool = False
    objective: str = "diffusion"
    use_coordinates: bool = True
    scheme: str = "recycling"
    resume: bool = False

    @property
    def shares(self) -> list[float]:
        """Part of the steps of the model and of each companion; they sum to 1.

        Raises:
            DiffusionSegmentError: OPTION when the companions leave nothing to the model.
        """
        others = len(self.companions)
        share = 1 / (others + 1) if self.companion_share is None else self.companion_share
        if others and not 0 < share * others < 1:
            raise DiffusionSegmentError(
                ErrorCode.OPTION,
                f"{others} companions with {share} of the steps each leave nothing to the model itself.",
                hint="Give --companion-share a number above 0 and below 1 / companions.",
            )
        return [1 - share * others, *[share] * others]

    @property
    def budget(self) -> Budget:
        """Time limits alone lift the limit on steps."""
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
        """Where checkpoints and the log go."""
        return self.output / TRAINING_FOLDER / self.network


@dataclass(frozen=True)
class ModelInTraining:
    """A model's folder, its description when the run began, its labelled cases, and its part of the probe's steps."""

    folder: Path
    description: ModelDescription
    data: tuple[Path, ...]
    cases: list[Case]
    share: float


def train(options: TrainOptions) -> None:
    """Train the named network; those that it builds on must already be in the folder.

    Raises:
        DiffusionSegmentError: TRAINING_DATA, CHECKPOINT, WEIGHTS_MISSING, NO_DEVICE, OPTION.
    """
    places = [(options.output, options.data), *((c.output, (c.data,)) for c in options.companions)]
    models = []
    for (folder, data), share in zip(places, options.shares, strict=True):
        _refuse_other_modality(data, model_source(folder, base=options.base))
        description = start_model_folder(folder, base=options.base, licence=options.licence)
        cases = options.fold.training(load_cases(data, description))
        _refuse_single(cases)
        models.append(ModelInTraining(folder, description, data, cases, share))
    free = load_scans(options.unlabelled, models[0].description)
    if options.network != "bodypart":
        regressor = cast(BodyPartRegressor, load_network(models[0].description, "bodypart"))
        for cases in (*(model.cases for model in models), free):
            add_coordinates(cases, regressor)
    if options.network == "bodypart":
        _bodypart(options, models, free)
    elif options.network == "backbone":
        _backbone(options, models, free)
    elif options.network == "probe":
        _probe(options, models)
    else:
        _refiner(options, models[0])
    _note_data(options, models[0], free)
    for companion in models[1:]:
        _note_data(options, companion, [])


def _note_data(options: TrainOptions, model: ModelInTraining, free: list[Case]) -> None:
    """Write what the network was trained on into the model's own model.json."""
    counts = {folder.resolve().name: len(find_cases(folder)) for folder in model.data}
    if options.fold != ALL_CASES:
        counts = {f"{name} without fold {options.fold}": count for name, count in counts.items()}
    note_training_data(
        model.folder, options.network, data_text(counts, unlabelled=len(free), source=options.data_source)
    )


def _refuse_other_modality(data: Sequence[Path], description: ModelDescription) -> None:
    for folder in data:
        case = find_cases(folder)[0]
        refuse_other_modality(f"{folder}: case {case.name}", case.image, description)


def _refuse_single(cases: list[Case]) -> None:
    """One patient says nothing about another: a network would learn him by heart.

    Raises:
        DiffusionSegmentError: TRAINING_DATA.
    """
    if len(cases) < 2:
        raise DiffusionSegmentError(
            ErrorCode.TRAINING_DATA, f"Case {cases[0].name} is the only one.", hint="Give at least two cases."
        )


def _bodypart(options: TrainOptions, models: list[ModelInTraining], free: list[Case]) -> None:
    groups = [framed_scans(model.cases, model.description.labels) for model in models]
    groups += [free_scans(free)] if free else []
    start = cast(BodyPartRegressor, load_network(models[0].description, "bodypart")) if options.go_on else None
    network = train_bodypart(groups, budget=options.budget, folder=options.folder, resume=options.resume, start=start)
    _store(options, "bodypart", network, models, free, architecture={}, record={"go_on": options.go_on})
    _share("bodypart", models)
    for model in models:
        store_body_range(model.folder, model.cases, network)


def _backbone(options: TrainOptions, models: list[ModelInTraining], free: list[Case]) -> None:
    if options.go_on or options.objective == "student":
        start = cast(Backbone, load_network(models[0].description, "backbone"))
    else:
        start = Backbone(models[0].description.channels, use_coordinates=options.use_coordinates)
    network = train_backbone(
        [case for model in models for case in model.cases] + free,
        budget=options.budget,
        folder=options.folder,
        resume=options.resume,
        patch=options.patch,
        batch=options.batch,
        objective=options.objective,
        start=start,
    )
    record = {"objective": options.objective, "coordinates": network.use_coordinates, "go_on": options.go_on}
    _store(options, "backbone", network, models, free, architecture=network.architecture, record=record)
    _share("backbone", models)


def _probe(options: TrainOptions, models: list[ModelInTraining]) -> None:
    tasks = [
        Task(
            model.description.name,
            model.cases,
            model.description.classes,
            weight=model.share,
            probe=cast(Probe, load_network(model.description, "probe")) if options.go_on else None,
        )
        for model in models
    ]
    trained = train_probe(
        tasks,
        backbone=cast(Backbone, load_network(models[0].description, "backbone")),
        budget=options.budget,
        folder=options.folder,
        resume=options.resume,
        patch=options.patch,
        batch=options.batch,
        finetune=options.finetune,
    )
    shares = {task.name: task.weight for task in tasks}
    record = {"finetune": options.finetune, "shares": shares, "go_on": options.go_on}
    for model, task in zip(models, tasks, strict=True):
        architecture = {"channels": list(trained.backbone.channels), "classes": task.classes}
        _store(options, "probe", trained.probes[task.name], [model], [], architecture=architecture, record=record)
    if options.finetune:
        save_network(options.output, "backbone", trained.backbone, architecture=trained.backbone.architecture)
    for name in ("bodypart", "backbone"):
        _share(name, models)


def _refiner(options: TrainOptions, model: ModelInTraining) -> None:
    backbone = cast(Backbone, load_network(model.description, "backbone"))
    probe = cast(Probe, load_network(model.description, "probe"))
    budget = options.budget
    if options.presegmentations is not None:
        priors = read_presegmentations(options.presegmentations, model.cases, model.description.classes)
    else:
        priors = presegment(model.cases, backbone, probe, device=budget.device, bf16=options.bf16)
    defaults = model.description.defaults
    recipe = RefinerRecipe(scheme=options.scheme, schedule=defaults.schedule, abar_start=defaults.abar_start)
    network = train_refiner(
        model.cases,
        priors,
        backbone=backbone,
        classes=model.description.classes,
        budget=budget,
        folder=options.folder,
        recipe=recipe,
        resume=options.resume,
        patch=options.patch,
        batch=options.batch,
        start=cast(Refiner, load_network(model.description, "refiner")) if options.go_on else None,
    )
    record = {**asdict(recipe), "out_of_fold": options.presegmentations is not None, "go_on": options.go_on}
    _store(options, "refiner", network, [model], [], architecture=network.architecture, record=record)


def _store(
    options: TrainOptions,
    name: str,
    network: Any,
    models: list[ModelInTraining],
    free: list[Case],
    *,
    architecture: dict[str, Any],
    record: dict[str, Any],
) -> None:
    cases = [case.name for case in [case for model in models for case in model.cases] + free]
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
    """Companions use the first model's file, which must therefore lie beside them under its own name."""
    for model in models[1:]:
        share_network(model.folder, name, models[0].folder)
