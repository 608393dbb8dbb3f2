"""Bake-off of second-generation networks: arms of equal computing time from one trunk, scored out of fold.

Trunk and arms keep their checkpoints and scores in one folder, from which the study resumes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from DiffusionSegmentBackend.datasets.case_folds import is_gain
from DiffusionSegmentBackend.datasets.cutmix import CutMix
from DiffusionSegmentBackend.datasets.labelled_cases import CaseFiles
from DiffusionSegmentBackend.datasets.patch_sampler import Augmentation, TrainingSet, augmentation_for
from DiffusionSegmentBackend.datasets.volumes import TrainingVolume
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.atomic_writes import write_text
from DiffusionSegmentBackend.models.manifest import ModelDescription
from DiffusionSegmentBackend.networks.norm import GROUP
from DiffusionSegmentBackend.networks.segmenter import Segmenter, start_from_trunk
from DiffusionSegmentBackend.networks.space_to_depth import Stride
from DiffusionSegmentBackend.training.loop import Budget, RunOptions
from DiffusionSegmentBackend.training.sample_parallel import single_core_pool
from DiffusionSegmentBackend.training.segmenter import SegmenterRecipe, segmenter_budget, train_segmenter
from DiffusionSegmentBackend.training.whole_scan import dice_on_scan, whole_scan_probabilities
from numpy.typing import NDArray
from tqdm import tqdm

from .result_file import OrganScores, organ_table

TRUNK_STRIDE: Stride = (1, 2, 2)
_PARTIAL_SHARE = 0.1
# Fixed before any arm was trained.
MAX_DEFICIT_AT_HALF = 0.02
MIN_GAIN = 0.007


@dataclass(frozen=True)
class Arm:
    """A variant that is trained from the weights of the trunk.

    `fine` is that of `Segmenter` on the fine grid, or None to train at the trunk's spacing.
    """

    name: str
    title: str
    fine: str | None
    recipe: SegmenterRecipe = field(default_factory=SegmenterRecipe)
    augmentation: Augmentation = field(default_factory=Augmentation)

    def network(self, classes: int, trunk: Segmenter) -> Segmenter:
        """The network, initialised from the trunk."""
        network = self.untrained(classes, trunk.channels, norm=trunk.norm)
        start_from_trunk(network, trunk)
        return network

    def untrained(self, classes: int, channels: Sequence[int], *, norm: str = GROUP) -> Segmenter:
        """The arm's network with random weights."""
        stride = TRUNK_STRIDE if self.fine else (1, 1, 1)
        return Segmenter(classes, channels=channels, stride=stride, fine=self.fine or "none", norm=norm)


TRUNK_RECIPE = SegmenterRecipe(pool=TRUNK_STRIDE)
CONTROL = Arm("control", "3 mm continued", None, recipe=TRUNK_RECIPE)
FINE_LOSS = Arm("fine-loss", "stem, loss on the fine grid", "none")
SUB_VOXELS = Arm("sub-voxels", "stem, sub-voxel head", "sub-voxels")
FINE_PATH = Arm("fine-path", "stem, fine path", "path")


def variants_of(winner: Arm, description: ModelDescription) -> list[Arm]:
    """Variants of the best arm: CutMix with hospital augmentation, joint denoising, and larger patches."""
    title, recipe = winner.title, winner.recipe
    hospital = augmentation_for(description)
    return [
        replace(
            winner,
            name=f"{winner.name}-cutmix-hospital",
            title=f"{title}, CutMix, phases and other appearances",
            augmentation=replace(
                winner.augmentation, cutmix=CutMix(), hospital=hospital.hospital, organs=hospital.organs
            ),
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
    """How long to train, and where; minutes are processor time of `threads` cores (`Budget.processor_time`)."""

    folder: Path
    trunk_minutes: float
    arm_minutes: float
    threads: int = 2
    channels: tuple[int, ...] = (32, 64, 128, 192, 256)
    norm: str = GROUP
    seed: int = 0
    device: str = "cpu"

    @property
    def trunk_name(self) -> str:
        """Name of the folder and the score file of the trunk."""
        return "trunk" if self.norm == GROUP else f"trunk-{self.norm}"

    def budget(self, minutes: float, *, learning_rate: float, ema_decay: float) -> Budget:
        """The budget of a training, with one patch per thread."""
        return segmenter_budget(
            minutes,
            learning_rate=learning_rate,
            ema_decay=ema_decay,
            seed=self.seed,
            device=self.device,
            cores=self.threads,
            processor_time=True,
        )

    def threaded(self, recipe: SegmenterRecipe) -> SegmenterRecipe:
        """The recipe with one thread per patch on the CPU, and batches on a GPU."""
        return replace(recipe, threads=self.threads if self.device == "cpu" else 1)


@dataclass(frozen=True)
class ArmResult:
    """Dice of an arm by held-out case and organ, after half its time and at its end; None if it was stopped at half."""

    arm: Arm
    half: OrganScores
    end: OrganScores | None


@dataclass(frozen=True)
class BakeoffData:
    """Training volumes, fully and partly labelled, and the held-out labelled cases of the fold."""

    description: ModelDescription
    training: Sequence[TrainingVolume]
    partial: Sequence[TrainingVolume]
    held_out: Sequence[tuple[CaseFiles, TrainingVolume]]

    def sets(self) -> list[TrainingSet]:
        """The fully labelled cases, and the partly labelled ones with a tenth of the patches."""
        whole = TrainingSet(self.training, 1 - _PARTIAL_SHARE)
        return [whole, TrainingSet(self.partial, _PARTIAL_SHARE)] if self.partial else [whole]


def train_trunk(data: BakeoffData, plan: BakeoffPlan) -> Segmenter:
    """Train a network at the trunk's spacing from random weights; resumes from the checkpoint in `plan.folder`."""
    torch.manual_seed(plan.seed)
    network = Segmenter(data.description.classes, channels=plan.channels, stride=(1, 1, 1), fine="none", norm=plan.norm)
    return train_segmenter(
        network,
        data.sets(),
        window=data.description.nominal_window,
        recipe=plan.threaded(TRUNK_RECIPE),
        augmentation=Augmentation(),
        run=RunOptions(
            budget=plan.budget(plan.trunk_minutes, learning_rate=1e-3, ema_decay=0.998),
            folder=plan.folder / plan.trunk_name,
            resume=True,
            title=plan.trunk_name,
        ),
    )


def train_arm(arm: Arm, data: BakeoffData, trunk: Segmenter, plan: BakeoffPlan, *, until: float = 1.0) -> Segmenter:
    """Train an arm from the weights of the trunk; resumes from the checkpoint in `plan.folder`."""
    torch.manual_seed(plan.seed)
    return train_segmenter(
        arm.network(data.description.classes, trunk),
        data.sets(),
        window=data.description.nominal_window,
        recipe=plan.threaded(arm.recipe),
        augmentation=arm.augmentation,
        run=RunOptions(
            budget=plan.budget(plan.arm_minutes, learning_rate=6e-4, ema_decay=0.995),
            folder=plan.folder / arm.name,
            resume=True,
            title=arm.name,
            until=until,
        ),
    )


def run_arm(
    arm: Arm, data: BakeoffData, trunk: Segmenter, plan: BakeoffPlan, *, control: ArmResult | None = None
) -> ArmResult:
    """Train an arm and score it after half its time and at the end; resumes from checkpoints and scores.

    An arm that is two points below the control after half its time is stopped.
    """

    def scored(share: float) -> OrganScores:
        path = plan.folder / f"{arm.name}-{round(100 * share)}.json"
        network = train_arm(arm, data, trunk, plan, until=share)
        return score(network, arm.recipe, data, path, plan)

    half = scored(0.5)
    if control is not None and mean_dice(half) < mean_dice(control.half) - MAX_DEFICIT_AT_HALF:
        return ArmResult(arm, half, None)
    return ArmResult(arm, half, scored(1.0))


def score(network: Segmenter, recipe: SegmenterRecipe, data: BakeoffData, path: Path, plan: BakeoffPlan) -> OrganScores:
    """Dice by held-out case and organ in the geometry of the scans; cached in `path` case by case."""
    scores: OrganScores = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    organs = [label.name for label in data.description.labels]
    network = network.to(plan.device).eval()

    def dice(pair: tuple[CaseFiles, TrainingVolume]) -> tuple[str, dict[str, float | None]]:
        files, volume = pair
        probabilities = whole_scan_probabilities(network, volume, recipe, device=plan.device)
        return files.name, organ_table(
            dice_on_scan(probabilities, volume, files, data.description, recipe.pool), organs
        )

    missing = [pair for pair in data.held_out if pair[0].name not in scores]
    with single_core_pool(plan.threads if plan.device == "cpu" else 1) as pool:
        for name, values in tqdm(pool.map(dice, missing), desc=f"score {path.stem}", total=len(missing)):
            scores[name] = values
            write_text(path, json.dumps(scores, indent=1) + "\n")
    return scores


def better(results: Sequence[ArmResult]) -> ArmResult:
    """The best of arms in ascending order of cost: a more expensive one must be better by `keeps`.

    Raises:
        DiffusionSegmentError: TRAINING_DATA if no arm was trained to its end.
    """
    ended = [result for result in results if result.end is not None]
    if not ended:
        raise DiffusionSegmentError(
            ErrorCode.TRAINING_DATA,
            "No arm was trained to its end.",
            hint="Give more minutes, or labelled cases to hold out.",
        )
    best = ended[0]
    for result in ended[1:]:
        if keeps(result, best):
            best = result
    return best


def keeps(result: ArmResult, reference: ArmResult) -> bool:
    """Whether a change is kept: a mean paired gain of at least 0.7 points, and a gain in five of seven cases."""
    if result.end is None or reference.end is None:
        return False
    return is_gain(case_gains(result.end, reference.end), min_mean=MIN_GAIN)


def case_gains(scores: OrganScores, reference: OrganScores) -> NDArray[np.float64]:
    """Mean difference of Dice over the organs in both, for each case in both."""
    gains = []
    for case in scores.keys() & reference.keys():
        pairs = [(value, reference[case].get(organ)) for organ, value in scores[case].items()]
        known = [a - b for a, b in pairs if a is not None and b is not None]
        gains += [float(np.mean(known))] if known else []
    return np.array(gains)


def mean_dice(scores: OrganScores) -> float:
    """Mean over cases of the mean Dice over their organs; NaN without any."""
    cases = [[value for value in organs.values() if value is not None] for organs in scores.values()]
    means = [float(np.mean(values)) for values in cases if values]
    return float(np.mean(means)) if means else float("nan")
