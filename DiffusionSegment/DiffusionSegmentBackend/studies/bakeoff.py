"""Which second-generation network to train for long: arms of equal computing time from one trunk, scored out of fold.

Trunk and arms keep their checkpoints and scores in one folder. Run again, the study goes on with what is missing there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ..errors import DiffusionSegmentError, ErrorCode
from ..evaluation.metrics import dice_by_label
from ..networks.bf16_check import training_dtype
from ..networks.segmenter import Segmenter, start_from_trunk
from ..networks.space_to_depth import Stride
from ..pipeline.description import ModelDescription
from ..result_folder import write_text
from ..training.cutmix import CutMix
from ..training.data import CaseFiles
from ..training.loop import Budget
from ..training.patch_sampler import Augmentation, TrainingSet
from ..training.segmenter import SegmenterRecipe, train_segmenter
from ..training.volumes import TrainingVolume
from ..training.whole_scan import scan_labels, whole_scan_probabilities
from ..volume_io import read_volume
from .result_file import organ_table

TRUNK_STRIDE: Stride = (1, 2, 2)
_PARTIAL_SHARE = 0.1


@dataclass(frozen=True)
class Arm:
    """One way to go on from the trunk.

    `fine` trains on the fine grid, with a fine path of `fine_channels` if above 0; otherwise at the trunk's spacing.
    """

    name: str
    title: str
    fine: bool = True
    fine_channels: int = 0
    recipe: SegmenterRecipe = field(default_factory=SegmenterRecipe)
    augmentation: Augmentation = field(default_factory=Augmentation)

    def network(self, classes: int, trunk: Segmenter) -> Segmenter:
        """A network that begins where the trunk is."""
        stride = TRUNK_STRIDE if self.fine else (1, 1, 1)
        network = Segmenter(classes, channels=trunk.channels, stride=stride, fine_channels=self.fine_channels)
        start_from_trunk(network, trunk)
        return network


_AT_TRUNK = SegmenterRecipe(pool=TRUNK_STRIDE)
CONTROL = Arm("control", "3 mm continued", fine=False, recipe=_AT_TRUNK)
FINE_LOSS = Arm("fine-loss", "stem, loss on the fine grid")
FINE_PATH = Arm("fine-path", "stem, fine path", fine_channels=16)


def variants_of(winner: Arm) -> list[Arm]:
    """One change each to the arm that won: CutMix, joint denoising, larger patches at equal time."""
    title, recipe = winner.title, winner.recipe
    return [
        replace(
            winner,
            name=f"{winner.name}-cutmix",
            title=f"{title}, CutMix",
            augmentation=replace(winner.augmentation, cutmix=CutMix()),
        ),
        replace(
            winner,
            name=f"{winner.name}-denoising",
            title=f"{title}, joint denoising",
            recipe=replace(recipe, denoising_share=0.25),
        ),
        replace(
            winner,
            name=f"{winner.name}-large",
            title=f"{title}, patches of 64 x 128 x 128",
            recipe=replace(recipe, patch=(64, 128, 128)),
        ),
    ]


@dataclass(frozen=True, kw_only=True)
class BakeoffPlan:
    """Minutes are computing time of one process on `threads` cores (`Budget.processor_time`)."""

    folder: Path
    trunk_minutes: float
    arm_minutes: float
    threads: int = 2
    channels: tuple[int, ...] = (32, 64, 128, 192, 256)
    seed: int = 0
    device: str = "cpu"

    def budget(self, minutes: float, *, learning_rate: float, ema_decay: float) -> Budget:
        """A budget in which a patch a thread is computed at once."""
        return Budget(
            steps=10**9,
            minutes=minutes,
            learning_rate=learning_rate,
            weight_decay=0.02,
            ema_decay=ema_decay,
            processor_time=self.device == "cpu",
            cores=self.threads,
            seed=self.seed,
            device=self.device,
            bf16=training_dtype(torch.device(self.device)) is torch.bfloat16,
        )

    def threaded(self, recipe: SegmenterRecipe) -> SegmenterRecipe:
        """A thread a patch on the CPU; batches where a GPU computes them."""
        return replace(recipe, threads=self.threads if self.device == "cpu" else 1)


@dataclass(frozen=True)
class BakeoffData:
    """What networks train on (fully and partly labelled) and the labelled cases of the fold that they never see."""

    description: ModelDescription
    training: Sequence[TrainingVolume]
    partial: Sequence[TrainingVolume]
    held_out: Sequence[tuple[CaseFiles, TrainingVolume]]

    def sets(self) -> list[TrainingSet]:
        """The labelled cases, and a tenth of the patches from partly labelled ones."""
        whole = TrainingSet(self.training, 1 - _PARTIAL_SHARE)
        return [whole, TrainingSet(self.partial, _PARTIAL_SHARE)] if self.partial else [whole]


def train_trunk(data: BakeoffData, plan: BakeoffPlan) -> Segmenter:
    """A network at the trunk's spacing, from random weights; goes on from the checkpoint in `plan.folder`."""
    torch.manual_seed(plan.seed)
    network = Segmenter(data.description.classes, channels=plan.channels, stride=(1, 1, 1), fine_channels=0)
    return train_segmenter(
        network,
        data.sets(),
        window=data.description.window,
        recipe=plan.threaded(_AT_TRUNK),
        augmentation=Augmentation(),
        budget=plan.budget(plan.trunk_minutes, learning_rate=1e-3, ema_decay=0.998),
        folder=plan.folder / "trunk",
        resume=True,
        title="trunk",
    )


def train_arm(arm: Arm, data: BakeoffData, trunk: Segmenter, plan: BakeoffPlan) -> Segmenter:
    """The arm from the trunk's weights; goes on from the checkpoint in `plan.folder`."""
    torch.manual_seed(plan.seed)
    return train_segmenter(
        arm.network(data.description.classes, trunk),
        data.sets(),
        window=data.description.window,
        recipe=plan.threaded(arm.recipe),
        augmentation=arm.augmentation,
        budget=plan.budget(plan.arm_minutes, learning_rate=6e-4, ema_decay=0.995),
        folder=plan.folder / arm.name,
        resume=True,
        title=arm.name,
    )


Scores = dict[str, dict[str, float | None]]


def score(network: Segmenter, recipe: SegmenterRecipe, data: BakeoffData, path: Path, *, device: str = "cpu") -> Scores:
    """Dice by held-out case and organ in the scans' own geometry; kept in `path` case by case and read again."""
    scores: Scores = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    organs = [label.name for label in data.description.labels]
    network = network.to(device).eval()
    for files, volume in tqdm(data.held_out, desc=f"score {path.stem}"):
        if files.name in scores:
            continue
        probabilities = whole_scan_probabilities(network, volume, recipe, device=device)
        found = scan_labels(probabilities, volume, recipe.pool)
        truth = np.asarray(read_volume(files.label).array)
        scores[files.name] = organ_table(dice_by_label(found, truth, data.description.classes), organs)
        write_text(path, json.dumps(scores, indent=1) + "\n")
    return scores


def run_arms(
    arms: Sequence[Arm], data: BakeoffData, plan: BakeoffPlan, done: Callable[[Arm, Scores], None]
) -> dict[str, Scores]:
    """Train what is missing of the arms, one after another, and score each on the held-out cases."""
    trunk = train_trunk(data, plan)
    results = {}
    for arm in arms:
        network = train_arm(arm, data, trunk, plan)
        results[arm.name] = score(network, arm.recipe, data, plan.folder / f"{arm.name}.json", device=plan.device)
        done(arm, results[arm.name])
    return results


def better_arm(results: dict[str, Scores], arms: Sequence[Arm]) -> Arm:
    """The arm with the highest mean Dice over held-out cases.

    Raises:
        DiffusionSegmentError: TRAINING_DATA where nothing was scored.
    """
    means = {arm.name: _mean(results[arm.name]) for arm in arms if results.get(arm.name)}
    if not means:
        raise DiffusionSegmentError(
            ErrorCode.TRAINING_DATA, "No arm was scored.", hint="Give labelled cases to hold out."
        )
    return max((arm for arm in arms if arm.name in means), key=lambda arm: means[arm.name])


def _mean(scores: Scores) -> float:
    values = [value for organs in scores.values() for value in organs.values() if value is not None]
    return float(np.mean(values))
