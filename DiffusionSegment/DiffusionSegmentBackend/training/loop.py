"""The training loop of all networks: budget, learning-rate schedule, moving average of weights, log, checkpoints."""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.atomic_writes import write_text

CHECKPOINT_FILE = "checkpoint.pt"
LOG_FILE = "losses.jsonl"
_LOG_INTERVAL = 20

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Length and optimiser settings of a training run, which ends at `steps` or `minutes`, whichever comes first.

    With `processor_time`, `minutes` counts the CPU time of this process divided by `cores`, so that runs on a shared
    machine are comparable.
    """

    steps: int
    minutes: float = float("inf")
    learning_rate: float = 1e-3
    warmup: float = 0.03
    checkpoint_seconds: float = 120.0
    ema_decay: float = 0.998
    weight_decay: float = 1e-4
    processor_time: bool = False
    cores: int = 1
    seed: int = 0
    device: str = "cpu"
    bf16: bool = False

    def clock(self) -> float:
        """Seconds on the clock that `minutes` refers to, from an arbitrary origin."""
        return time.process_time() / self.cores if self.processor_time else time.monotonic()

    def autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision on the training device: bfloat16 if `bf16`, else float32."""
        return torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16, enabled=self.bf16)


@dataclass(frozen=True)
class StepReport:
    """State after a training step: used share of the budget (0..1), number of steps, and the losses of the step."""

    share: float
    step: int
    losses: dict[str, float]


StepCallback = Callable[[StepReport], None]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of one call of `Training.run`.

    Attributes:
        budget: Length and optimiser settings.
        folder: Receives checkpoint and log.
        resume: Continue from the checkpoint in `folder`, if there is one.
        title: Label of the progress bar.
        until: Used share of the budget (0..1) at which the run pauses.
        report: Called after every step instead of showing a progress bar.
    """

    budget: Budget
    folder: Path
    resume: bool = False
    title: str = "network"
    until: float = 1.0
    report: StepCallback | None = None


class Training(Generic[Network]):
    """Trains a network: `run` takes a function that draws a batch and returns its losses.

    `folder` receives checkpoint.pt (weights, moving average, optimiser, counters, random states) at least every
    `checkpoint_seconds`, written atomically, and losses.jsonl.
    """

    def __init__(self, network: Network, budget: Budget, folder: Path, *, resume: bool = False) -> None:
        self.network = network.to(budget.device)
        self.budget = budget
        self.folder = folder
        self.step = 0
        self.seconds = 0.0
        self.average = deepcopy(network).eval().requires_grad_(False)
        trainable = [p for p in network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            trainable, lr=budget.learning_rate, weight_decay=budget.weight_decay, fused=budget.device == "cuda"
        )
        folder.mkdir(parents=True, exist_ok=True)
        if resume and (folder / CHECKPOINT_FILE).is_file():
            self._load()
        else:
            seed_everything(budget.seed)

    @property
    def progress(self) -> float:
        """Used share of the budget, 0..1."""
        return min(1.0, max(self.step / self.budget.steps, self.seconds / 60.0 / self.budget.minutes))

    def run(
        self,
        losses_of_step: Callable[[float], dict[str, Tensor]],
        *,
        title: str,
        quiet: bool = False,
        report: StepCallback | None = None,
    ) -> Network:
        """Train until the budget is used up.

        Args:
            losses_of_step: Returns named losses given the used share of the budget; their sum is minimised.
            title: Label of the progress bar.
            quiet: Show no progress bar.
            report: Called after every step instead of showing a progress bar.

        Returns:
            The moving average of the network, in evaluation mode.
        """

        def gradients(progress: float) -> dict[str, Tensor]:
            losses = losses_of_step(progress)
            torch.autograd.backward(torch.stack(list(losses.values())).sum())
            return losses

        return self.run_steps(gradients, title=title, quiet=quiet, report=report)

    def run_steps(
        self,
        gradients_of_step: Callable[[float], dict[str, Tensor]],
        *,
        title: str,
        quiet: bool = False,
        until: float = 1.0,
        report: StepCallback | None = None,
    ) -> Network:
        """Like `run`, for a function that also computes the gradients of its losses into the parameters.

        The run pauses when the share `until` of the budget is used up.
        """
        last_saved = time.monotonic()
        with contextlib.ExitStack() as stack:
            callback = report or stack.enter_context(_bar(title, quiet=quiet))
            while self.progress < until:
                began = self.budget.clock()
                values = self._step(gradients_of_step)
                self.seconds += self.budget.clock() - began
                callback(StepReport(self.progress, self.step, values))
                if self.step % _LOG_INTERVAL == 0:
                    self._log(values)
                if time.monotonic() - last_saved > self.budget.checkpoint_seconds:
                    self.save()
                    last_saved = time.monotonic()
        self.save()
        return self.average

    def _step(self, gradients_of_step: Callable[[float], dict[str, Tensor]]) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = group.get("scale", 1.0) * self.budget.learning_rate * self._schedule()
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        losses = gradients_of_step(self.progress)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        # Skip the update after a numerical overflow instead of ending the run; the log shows the loss.
        if bool(torch.isfinite(norm)):
            self.optimizer.step()
        self.step += 1
        self._update_average()
        return {name: float(value.detach()) for name, value in losses.items()}

    def _schedule(self) -> float:
        warm = min(1.0, (self.progress + 1e-3) / self.budget.warmup)
        return float(warm * (1 - self.progress) ** 0.9 + 1e-3)

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.budget.ema_decay, (1 + self.step) / (10 + self.step))
        for slow, fast in zip(self.average.parameters(), self.network.parameters(), strict=True):
            slow.lerp_(fast.detach(), 1 - decay)
        for kept, current in zip(self.average.buffers(), self.network.buffers(), strict=True):
            kept.copy_(current)

    def _log(self, values: dict[str, float]) -> None:
        record = {"step": self.step, "seconds": round(self.seconds, 1), **{k: round(v, 5) for k, v in values.items()}}
        with open(self.folder / LOG_FILE, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def _truncate_log(self) -> None:
        """Drop the log records of steps after the checkpoint."""
        path = self.folder / LOG_FILE
        if not path.is_file():
            return
        lines = path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= self.step]
        write_text(path, "".join(f"{line}\n" for line in kept))

    def save(self) -> None:
        """Write the checkpoint to a temporary file and replace the old one by it.

        Raises:
            DiffusionSegmentError: DISK_FULL when it cannot be written; the previous checkpoint is kept.
        """
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "torch_random": torch.get_rng_state(),
            "budget": asdict(self.budget),
        }
        partial = self.folder / (CHECKPOINT_FILE + ".partial")
        try:
            torch.save(state, partial)
            os.replace(partial, self.folder / CHECKPOINT_FILE)
        except (OSError, RuntimeError) as error:  # PyTorch raises RuntimeError on a full disk
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise DiffusionSegmentError(
                ErrorCode.DISK_FULL,
                f"The checkpoint in {self.folder} cannot be written ({str(error).splitlines()[0][:120]}).",
                hint="Free disk space and resume; the previous checkpoint was kept.",
            ) from error

    def _load(self) -> None:
        path = self.folder / CHECKPOINT_FILE
        try:
            state = torch.load(path, map_location=self.budget.device, weights_only=True)
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.seconds = int(state["step"]), float(state["seconds"])
            seed_everything(self.budget.seed + self.step)
            torch.set_rng_state(state["torch_random"].cpu())
            self._truncate_log()
        except Exception as error:
            raise DiffusionSegmentError(
                ErrorCode.CHECKPOINT,
                f"{path} cannot be resumed from ({_reason(error)}).",
                hint="Move it away to start again; it was not changed.",
            ) from error


@contextlib.contextmanager
def _bar(title: str, *, quiet: bool) -> Iterator[StepCallback]:
    """A progress bar as step callback."""
    form = "{l_bar}{bar}| {elapsed}<{remaining}{postfix}"
    with tqdm(total=100, desc=title, unit="%", bar_format=form, disable=quiet) as bar:

        def show(report: StepReport) -> None:
            bar.n = round(100 * report.share, 1)
            if report.step % _LOG_INTERVAL == 0:
                bar.set_postfix(step=report.step, **{k: f"{v:.3f}" for k, v in report.losses.items()})

        yield show


def _reason(error: Exception) -> str:
    """PyTorch raises RuntimeError for weights of another network, and ValueError for another optimiser state."""
    other = isinstance(error, (RuntimeError, ValueError)) and ("state_dict" in str(error) or "group" in str(error))
    return "it belongs to another network" if other else type(error).__name__


def seed_everything(seed: int) -> None:
    """Seed the random number generators of Python, NumPy and PyTorch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
