"""Training of `Segmenter`: segmentation, and optionally denoising of a share of the patches.

Data sets with different annotated organs are trained jointly with the marginal loss; scans without labels are only
denoised.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..datasets.patch_geometry import PatchShape
from ..datasets.patch_sampler import Augmentation, Patches, PatchSampler, TrainingSet
from ..datasets.prefetch import prefetched
from ..diffusion.schedule import Schedule, add_noise, log_snr, velocity
from ..errors import DiffusionSegmentError, ErrorCode
from ..networks.bf16_check import MIN_DEEPEST_SIDE, training_dtype
from ..networks.segmenter import Logits, Segmenter
from ..networks.space_to_depth import Stride, space_to_depth
from .label_loss import label_loss
from .loop import Budget, RunOptions, Training
from .sample_parallel import backward_by_sample, single_core_pool

_TRUNK_LOSS = 0.5
_WEIGHT_DECAY = 0.02
_MIN_TIMESTEP, _MAX_TIMESTEP = 20, 980
_SEED_STRIDE = 7_000_003


@dataclass(frozen=True, kw_only=True)
class SegmenterRecipe:
    """Patches and losses of a training run.

    Attributes:
        patch: Voxels (Z, Y, X) of a patch on the grid of the data.
        pool: Average pooling (z, y, x) of the patches: (1, 1, 1), or the stride of the trunk to train at its spacing
            with labels averaged over the pooled voxels.
        batch: Patches per step.
        denoising_share: Share of the patches that are denoised instead of segmented.
        denoising_weight: Weight of the denoising loss.
        threads: If above 1, each patch of a batch is computed by its own thread.
    """

    patch: tuple[int, int, int] = (48, 96, 96)
    pool: Stride = (1, 1, 1)
    batch: int = 2
    denoising_share: float = 0.0
    denoising_weight: float = 0.15
    threads: int = 1

    def shape(self, network: Segmenter) -> PatchShape:
        """The patch size, and the voxels of it per voxel of the trunk.

        Raises:
            DiffusionSegmentError: OPTION for sides that are no multiples of the downsampling of the network, or whose
                coarsest level would be less than two voxels wide.
        """
        z, y, x = (p * s for p, s in zip(self.pool, network.stride, strict=True))
        multiples = [p * m for p, m in zip(self.pool, network.multiples, strict=True)]
        if any(n % m or n < MIN_DEEPEST_SIDE * m for n, m in zip(self.patch, multiples, strict=True)):
            sides = " x ".join(map(str, self.patch))
            raise DiffusionSegmentError(
                ErrorCode.OPTION,
                f"A patch of {sides} voxels does not fit a network of {len(network.channels)} levels.",
                hint=f"Choose multiples of {', '.join(map(str, multiples))}, at least {MIN_DEEPEST_SIDE} each.",
            )
        return PatchShape(self.patch, (z, y, x))


def segmenter_budget(
    minutes: float,
    *,
    learning_rate: float,
    ema_decay: float,
    seed: int,
    device: str,
    cores: int,
    processor_time: bool,
) -> Budget:
    """The budget of a `Segmenter`; bfloat16 where it is native and its convolutions agree with float32.

    `processor_time` (see `Budget`) applies to the CPU only.
    """
    return Budget(
        steps=10**9,
        minutes=minutes,
        learning_rate=learning_rate,
        weight_decay=_WEIGHT_DECAY,
        ema_decay=ema_decay,
        processor_time=processor_time and device == "cpu",
        cores=cores,
        seed=seed,
        device=device,
        bf16=training_dtype(torch.device(device)) is torch.bfloat16,
    )


def train_segmenter(
    network: Segmenter,
    sets: Sequence[TrainingSet],
    *,
    window: tuple[float, float],
    recipe: SegmenterRecipe,
    augmentation: Augmentation,
    run: RunOptions,
    class_weights: Tensor | None = None,
) -> Segmenter:
    """Train `network` from its present weights.

    Args:
        network: The network; it is changed in place.
        sets: Training volumes, grouped by annotated organs.
        window: Lower and upper end of the intensity window.
        recipe: Patches and losses.
        augmentation: Applied to every patch.
        run: Budget, folder of checkpoint and log, progress.
        class_weights: (classes,) float32 for the loss; None for equal weights.

    Returns:
        The moving average of the network, in evaluation mode.

    Raises:
        DiffusionSegmentError: TRAINING_DATA for a set without scans, CHECKPOINT, DISK_FULL.
    """
    budget = run.budget
    shape = recipe.shape(network)
    network = network.to(memory_format=memory_format(budget.device))  # type: ignore[call-overload]
    torch.backends.cudnn.benchmark = budget.device == "cuda"  # all patches have the same size
    training = Training(network, budget, run.folder, resume=run.resume)
    sampler = PatchSampler(
        sets,
        shape=shape,
        window=window,
        augmentation=augmentation,
        seed=budget.seed,
        device=budget.device,
    )
    step = SegmenterStep(network, recipe, budget, class_weights)

    with prefetched(lambda n: sampler.batch(n, recipe.batch), start=training.step) as batches, _threads(recipe) as pool:

        def gradients(_: float) -> dict[str, Tensor]:
            return step.gradients(next(batches), training.step, pool)

        return training.run_steps(gradients, title=run.title, until=run.until, report=run.report)


def memory_format(device: str) -> torch.memory_format:
    """Channels last on CPUs, where convolutions are faster; contiguous on GPUs, where group norm would be slower."""
    return torch.channels_last_3d if device == "cpu" else torch.contiguous_format


@contextmanager
def _threads(recipe: SegmenterRecipe) -> Iterator[ThreadPoolExecutor | None]:
    if recipe.threads <= 1:
        yield None
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with single_core_pool(recipe.threads) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class SegmenterStep:
    """Losses and gradients of a batch. The choice of denoised patches is determined by seed and step.

    Patches of scans without labels are always denoised.
    """

    network: Segmenter
    recipe: SegmenterRecipe
    budget: Budget
    class_weights: Tensor | None = None

    def gradients(self, batch: Patches, step: int, pool: ThreadPoolExecutor | None = None) -> dict[str, Tensor]:
        """Named losses of a batch; their gradients are accumulated in the parameters.

        With a `pool`, every patch is a separate job; without, all patches with the same loss form one batch.
        """
        generator = torch.Generator().manual_seed(self.budget.seed * _SEED_STRIDE + step)
        denoised = torch.rand(len(batch), generator=generator) < self.recipe.denoising_share
        denoised |= ~batch.drawn[:, 1:].any(dim=1)
        groups = [
            (kind, indices.flatten().tolist())
            for kind, indices in ((False, (~denoised).nonzero()), (True, denoised.nonzero()))
        ]
        if pool is not None:
            groups = [(kind, [n]) for kind, indices in groups for n in indices]
        jobs = [self._job(batch.samples(indices), kind, generator) for kind, indices in groups if indices]
        return backward_by_sample(
            self.network, jobs, forward=self._forward, losses=lambda outputs: self._losses(jobs, outputs), pool=pool
        )

    def _job(self, patches: Patches, denoised: bool, generator: torch.Generator) -> _Job:
        """Input and target at the spacing of the network."""
        image = F.avg_pool3d(patches.image, self.recipe.pool) if self.recipe.pool != (1, 1, 1) else patches.image
        image = image.contiguous(memory_format=memory_format(self.budget.device))
        if not denoised:
            return _Job(patches, image, patches.labels, None)
        timestep = int(torch.randint(_MIN_TIMESTEP, _MAX_TIMESTEP, (), generator=generator))
        alpha_bar = Schedule("linear").at(timestep).to(image.device).expand(len(image))
        noise = torch.randn(image.shape, generator=generator).to(image.device)
        return _Job(patches, add_noise(image, noise, alpha_bar), velocity(image, noise, alpha_bar), log_snr(alpha_bar))

    def _forward(self, job: _Job) -> tuple[Tensor, ...]:
        with self.budget.autocast():
            if job.log_snr is not None:
                return (self.network.velocity(job.image, job.patches.coordinates, job.log_snr),)
            logits: Logits = self.network(job.image, job.patches.coordinates)
        return (logits.fine,) if logits.fine is logits.trunk else (logits.fine, logits.trunk)

    def _losses(self, jobs: Sequence[_Job], outputs: Sequence[tuple[Tensor, ...]]) -> dict[str, Tensor]:
        values: dict[str, Tensor] = {}
        segmented = [(job, output) for job, output in zip(jobs, outputs, strict=True) if job.log_snr is None]
        denoised = [(job, output) for job, output in zip(jobs, outputs, strict=True) if job.log_snr is not None]
        if segmented:
            labels = torch.cat([job.target for job, _ in segmented])
            drawn = torch.cat([job.patches.drawn for job, _ in segmented])
            grids = zip(*(output for _, output in segmented), strict=True)
            for name, parts, factor in zip(("labels", "trunk"), grids, (1.0, _TRUNK_LOSS), strict=False):
                logits = torch.cat(parts)
                z, y, x = (a // b for a, b in zip(labels.shape[2:], logits.shape[2:], strict=True))
                target = space_to_depth(labels, (z, y, x))
                values[name] = factor * label_loss(logits, target, drawn, self.class_weights)
        if denoised:
            errors = [F.mse_loss(output[0].float(), job.target) for job, output in denoised]
            values["denoising"] = self.recipe.denoising_weight * torch.stack(errors).mean()
        return values


@dataclass(frozen=True)
class _Job:
    """Patches with the same loss: network input, target (labels or velocity), and log-SNR if they are denoised."""

    patches: Patches
    image: Tensor
    target: Tensor
    log_snr: Tensor | None
