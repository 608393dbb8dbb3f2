"""More minutes for the network of a trained model: `train --more-minutes`.

A warm restart of the learning rate (Loshchilov and Hutter 2017, arXiv 1608.03983). Temperature, limits and margins stay
those of the out-of-fold predictions, whose networks are not trained further.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from ...datasets.scans import find_scans, read_volumes
from ...errors import DiffusionSegmentError, ErrorCode
from ...imaging.atomic_writes import write_text
from ...models.manifest import CARD_FILE, ModelDescription
from ...models.model import choose_device, load_network
from ...networks.bodypart import BodyPartRegressor
from ...networks.segmenter import Segmenter
from ...networks.temperature import set_temperature, temperature
from ..session import store
from .model_folder import ModelFolder
from .networks import NetworkTraining
from .stage_bar import stage_bar

_STAGE = "longer"


@dataclass(frozen=True, kw_only=True)
class LongerTrainingOptions:
    """Data, folder and minutes of training; the others are as in `ModelTrainingOptions`."""

    data: tuple[Path, ...]
    output: Path
    more_minutes: float
    unlabelled: tuple[Path, ...] = ()
    denoising_share: float = 0.2
    seed: int = 1
    device: str = "auto"
    processor_time: bool = False


def train_longer(options: LongerTrainingOptions) -> None:
    """Continue the training of the segmenter of a model; after an interruption the same call goes on.

    The weights are replaced at the end, and the model card gets a line.

    Raises:
        DiffusionSegmentError: OPTION, MODEL_UNKNOWN, TRAINING_DATA, WEIGHTS_MISSING (a model without a segmenter),
            CHECKPOINT, DISK_FULL, NO_DEVICE.
    """
    folder = ModelFolder(options.output)
    description = folder.description
    _check(options, description)
    start, regressor = load_network(description, "segmenter"), load_network(description, "bodypart")
    assert isinstance(start, Segmenter)
    assert isinstance(regressor, BodyPartRegressor)
    scans = find_scans(options.data, options.unlabelled, description)
    device = choose_device(options.device).type
    training = NetworkTraining(description, device, options.seed, options.denoising_share, options.processor_time)
    training.check()
    budget, checkpoints = training.longer_budget(options.more_minutes, seed=options.seed), folder.training / _STAGE
    with stage_bar({_STAGE: options.more_minutes}) as bar:
        bar.begin(_STAGE)
        volumes = read_volumes(scans, description, regressor, bar.note)
        network = training.continued(
            start,
            volumes.sets(without=(), denoising=options.denoising_share > 0),
            budget=budget,
            folder=checkpoints,
            report=bar.report(_STAGE, options.more_minutes),
        )
    set_temperature(network, temperature(start))
    store(
        folder.path,
        "segmenter",
        network,
        architecture=network.architecture,
        budget=budget,
        cases=scans.names,
        options={},
        checkpoints=checkpoints,
    )
    _add_to_card(folder, options)
    # So that the next call begins with these weights.
    shutil.rmtree(checkpoints)


def _check(options: LongerTrainingOptions, description: ModelDescription) -> None:
    if not options.more_minutes > 0:
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"{options.more_minutes:g} more minutes are none.", hint="Give more than 0."
        )
    if "segmenter" not in description.networks:
        raise DiffusionSegmentError(
            ErrorCode.WEIGHTS_MISSING,
            f"{options.output} holds no trained segmenter.",
            hint="Train it first, with --minutes N.",
        )


def _add_to_card(folder: ModelFolder, options: LongerTrainingOptions) -> None:
    path = folder.path / CARD_FILE
    if path.is_file():
        line = (
            f"\nThe network was trained for {options.more_minutes:g} minutes more (`--more-minutes`); temperature, "
            "limits and the Dice above are those before.\n"
        )
        write_text(path, path.read_text(encoding="utf-8") + line)
