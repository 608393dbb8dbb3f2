"""`diffusion-segment train`: one network after the other into one model folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from ..networks.backbone import Backbone
from ..networks.bodypart import BodyPartRegressor
from ..networks.probe import Probe
from ..pipeline.description import ModelDescription
from ..pipeline.model import choose_device, load_network, save_network
from .backbone import train_backbone
from .bodypart import train_bodypart
from .data import Case
from .loop import Budget
from .presegmentations import presegment
from .probe import train_probe
from .refiner import RefinerRecipe, train_refiner
from .session import TRAINING_FOLDER, add_coordinates, load_cases, start_model_folder, store

_STEPS = {"bodypart": 1400, "backbone": 20_000, "probe": 20_000, "refiner": 10_000}
_LEARNING_RATE = {"bodypart": 2e-3, "backbone": 1e-3, "probe": 2e-3, "refiner": 1.5e-3}
_EMA_DECAY = {"bodypart": 0.99, "backbone": 0.998, "probe": 0.998, "refiner": 0.998}


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What `train` was asked for; None takes the network's own value."""

    network: str
    data: tuple[Path, ...]
    output: Path
    base: str = "abdomen-ct"
    steps: int | None = None
    minutes: float | None = None
    learning_rate: float | None = None
    batch: int = 2
    patch: int = 64
    seed: int = 0
    device: str = "auto"
    bf16: bool = False
    finetune: bool = False
    use_coordinates: bool = True
    scheme: str = "recycling"
    resume: bool = False

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


def train(options: TrainOptions) -> None:
    """Train the named network; those that it builds on must already be in the folder.

    Raises:
        DiffusionSegmentError: TRAINING_DATA, CHECKPOINT, WEIGHTS_MISSING, NO_DEVICE.
    """
    description = start_model_folder(options.output, base=options.base)
    cases = load_cases(options.data, description)
    trainers = {"bodypart": _bodypart, "backbone": _backbone, "probe": _probe, "refiner": _refiner}
    if options.network != "bodypart":
        add_coordinates(cases, cast(BodyPartRegressor, load_network(description, "bodypart")))
    trainers[options.network](options, description, cases)


def _folder(options: TrainOptions) -> Path:
    return options.output / TRAINING_FOLDER / options.network


def _bodypart(options: TrainOptions, description: ModelDescription, cases: list[Case]) -> None:
    network = train_bodypart(
        cases, classes=description.classes, budget=options.budget, folder=_folder(options), resume=options.resume
    )
    store(options.output, "bodypart", network, architecture={}, budget=options.budget, cases=cases, options={})


def _backbone(options: TrainOptions, description: ModelDescription, cases: list[Case]) -> None:
    network = train_backbone(
        cases,
        classes=description.classes,
        budget=options.budget,
        folder=_folder(options),
        resume=options.resume,
        patch=options.patch,
        batch=options.batch,
        use_coordinates=options.use_coordinates,
    )
    record = {"coordinates": options.use_coordinates}
    store(options.output, "backbone", network, architecture={}, budget=options.budget, cases=cases, options=record)


def _probe(options: TrainOptions, description: ModelDescription, cases: list[Case]) -> None:
    trained = train_probe(
        cases,
        backbone=cast(Backbone, load_network(description, "backbone")),
        classes=description.classes,
        budget=options.budget,
        folder=_folder(options),
        resume=options.resume,
        patch=options.patch,
        batch=options.batch,
        finetune=options.finetune,
    )
    architecture = {"channels": list(trained.backbone.channels), "classes": description.classes}
    store(
        options.output,
        "probe",
        trained.probe,
        architecture=architecture,
        budget=options.budget,
        cases=cases,
        options={"finetune": options.finetune},
    )
    if options.finetune:
        save_network(options.output, "backbone", trained.backbone, architecture={})


def _refiner(options: TrainOptions, description: ModelDescription, cases: list[Case]) -> None:
    backbone = cast(Backbone, load_network(description, "backbone"))
    probe = cast(Probe, load_network(description, "probe"))
    budget = options.budget
    presegmentations = presegment(cases, backbone, probe, device=budget.device, bf16=options.bf16)
    defaults = description.defaults
    recipe = RefinerRecipe(scheme=options.scheme, schedule=defaults.schedule, abar_start=defaults.abar_start)
    network = train_refiner(
        cases,
        presegmentations,
        backbone=backbone,
        classes=description.classes,
        budget=budget,
        folder=_folder(options),
        recipe=recipe,
        resume=options.resume,
        patch=options.patch,
        batch=options.batch,
    )
    architecture = {"feature_channels": list(backbone.channels[:2]), "classes": description.classes}
    store(
        options.output,
        "refiner",
        network,
        architecture=architecture,
        budget=budget,
        cases=cases,
        options=json.loads(json.dumps(recipe.__dict__)),
    )
