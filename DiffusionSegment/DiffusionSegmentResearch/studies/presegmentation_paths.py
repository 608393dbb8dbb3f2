"""Reverse chains in which each path of the pre-segmentation into the refiner has an input of its own.

The pre-segmentation reaches the estimate of x_0 on three paths: in the state x_t, which starts from it; in the channels
of the two input convolutions; and in its logarithm, to which the network adds a correction (`networks/refiner.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from DiffusionSegmentBackend.diffusion.noise import noise_field
from DiffusionSegmentBackend.diffusion.schedule import add_noise, log_snr
from DiffusionSegmentBackend.imaging.volume import Box
from DiffusionSegmentBackend.models.model import Model
from DiffusionSegmentBackend.networks.precision import autocast
from DiffusionSegmentBackend.networks.refiner import Refiner
from DiffusionSegmentBackend.pipeline.features import Stage1
from DiffusionSegmentBackend.pipeline.sampling import PredictX0, SamplingPlan, coded, sample_steps
from torch import Tensor

PATHS = ("state", "channel", "addition")
# How x_t arises: by the reverse steps, from the state's pre-segmentation anew in every step, or as zeros.
STATE_RULES = ("chain", "renewed", "zeros")


@dataclass(frozen=True, kw_only=True)
class PathInputs:
    """Pre-segmentations (classes, z, y, x) in the tiled volume by path.

    Attributes:
        state: from which x_T' is made.
        channel: of the input convolutions.
        addition: whose logarithm is added to the correction.
        rule: one of `STATE_RULES`.
        features: whether the features of the scan are an input; zeros if not.
    """

    state: Tensor
    channel: Tensor
    addition: Tensor
    rule: str = "chain"
    features: bool = True

    @classmethod
    def same(cls, pre: Tensor) -> PathInputs:
        """One pre-segmentation on all paths, as in a run."""
        return cls(state=pre, channel=pre, addition=pre)

    def equal_in(self, other: PathInputs, tile: Box) -> bool:
        """Whether the inputs of a tile are those of `other`."""
        cut = (slice(None), *tile)
        pairs = ((self.state, other.state), (self.channel, other.channel), (self.addition, other.addition))
        same_rule = (self.rule, self.features) == (other.rule, other.features)
        return same_rule and all(a is b or torch.equal(a[cut], b[cut]) for a, b in pairs)


@dataclass
class PathChains:
    """Reverse chains of the tiles of `stage1`.

    The tiles of the first inputs are kept in half precision: a tile whose inputs are equal to them is not computed
    again.
    """

    stage1: Stage1
    model: Model
    _first: PathInputs | None = None
    _kept: dict[tuple[SamplingPlan, int, int], Tensor] = field(default_factory=dict)

    def sample(self, inputs: PathInputs, plan: SamplingPlan, *, sample: int) -> Tensor:
        """Probabilities (classes, z, y, x), float32, of one sample: the last estimate of x_0."""
        self._first = first = self._first or inputs
        tiling, refiner = self.stage1.tiling, self._refiner
        noise: dict[int, Tensor] = {}

        def noise_of(step: int) -> Tensor:
            if step not in noise:
                noise[step] = noise_field(
                    tiling.shape, channels=refiner.classes, seed=plan.seed, sample=sample, step=step
                )
            return noise[step]

        def last(index: int, tile: Box) -> Tensor:
            key = (plan, sample, index)
            shared = inputs is first or inputs.equal_in(first, tile)
            if shared and key in self._kept:
                return self._kept[key].float()
            estimate = self._tile(index, tile, inputs, plan, noise_of).half()
            if shared:
                self._kept[key] = estimate
            return estimate.float()

        return tiling.blend(last, channels=refiner.classes)

    @property
    def _refiner(self) -> Refiner:
        return cast(Refiner, self.model.refiner)

    def _tile(
        self, index: int, tile: Box, inputs: PathInputs, plan: SamplingPlan, noise: Callable[[int], Tensor]
    ) -> Tensor:
        """The last estimate of x_0 of one tile."""
        cut = (slice(None), *tile)
        state = inputs.state[cut].to(self.model.device)

        def noise_in_tile(step: int) -> Tensor:
            return noise(step)[cut].to(self.model.device)

        predict = self._predictor(index, tile, inputs, renewed_noise=noise_in_tile(0))
        *_, estimate = sample_steps(state, predict, plan, noise=noise_in_tile)
        return estimate

    def _predictor(self, index: int, tile: Box, inputs: PathInputs, *, renewed_noise: Tensor) -> PredictX0:
        """(x_t, alpha_bar, previous x_0) -> probabilities (classes, z, y, x) of one tile."""
        cut, device, dtype = (slice(None), *tile), self.model.device, self.model.dtype
        finest, second = (level.to(dtype) * inputs.features for level in self.stage1.features[index])
        addition = inputs.addition[cut][None].to(device)
        with autocast(device, dtype):
            shared = self._refiner.shared(
                finest, self._batch(self.stage1.coordinates[cut]), self._batch(inputs.channel[cut]), None
            )

        def predict(x_t: Tensor, alpha_bar: float, previous: Tensor | None) -> Tensor:
            if inputs.rule == "zeros":
                x_t = torch.zeros_like(x_t)
            elif inputs.rule == "renewed":
                x_t = add_noise(coded(inputs.state[cut].to(device)), renewed_noise, torch.tensor(alpha_bar))
            level = log_snr(torch.tensor([alpha_bar])).to(device)
            shown = None
            if previous is not None and self._refiner.self_conditioning:
                shown = self._batch(coded(previous))
            with autocast(device, dtype):
                logits = self._refiner.step(shared, second, self._batch(x_t), addition, level, shown)
                return logits.float().softmax(dim=1)[0]

        return predict

    def _batch(self, tensor: Tensor) -> Tensor:
        """A batch of one in the network's type and the memory format of its convolutions."""
        return tensor[None].to(self.model.device, self.model.dtype, memory_format=torch.channels_last_3d)


def flat(like: Tensor) -> Tensor:
    """The pre-segmentation that says nothing: all classes equally probable."""
    return torch.full_like(like, 1 / like.shape[0])


def fitted(pre: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """A pre-segmentation (classes, z, y, x) cropped or padded with background at the far end to `shape`."""
    result = torch.zeros((pre.shape[0], *shape))
    result[0] = 1
    z, y, x = (min(a, b) for a, b in zip(pre.shape[1:], shape, strict=True))
    result[:, :z, :y, :x] = pre[:, :z, :y, :x]
    return result


def without_organ(pre: Tensor, value: int) -> Tensor:
    """The pre-segmentation with the probability of one organ added to the background."""
    result = pre.clone()
    result[0] += result[value]
    result[value] = 0
    return result


def with_path(inputs: PathInputs, path: str, pre: Tensor) -> PathInputs:
    """The inputs with another pre-segmentation on one of `PATHS`."""
    if path == "state":
        return replace(inputs, state=pre)
    return replace(inputs, channel=pre) if path == "channel" else replace(inputs, addition=pre)
