"""The loop under every training: budget, learning rate, moving average, log, checkpoints it resumes from."""

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
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.atomic_writes import write_text

CHECKPOINT_FILE = "checkpoint.pt"
LOG_FILE = "losses.jsonl"
_LOGGED = 20  # steps from one record to the next


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long and how fast to train. The first of `steps` and `minutes` that is used up ends the run.

    With `processor_time` the minutes are those that this process has computed for, divided by `cores`: on a machine
    that others use too, trainings of equal minutes have then computed equally long.
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
        """Seconds of what `minutes` counts, from an arbitrary beginning."""
        return time.process_time() / self.cores if self.processor_time else time.monotonic()

    def autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision on the training device: bfloat16 where asked for, float32 otherwise."""
        return torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16, enabled=self.bf16)


@dataclass(frozen=True)
class Progress:
    """Where a training is: share of its budget, 0..1, steps done, and the losses of the last step by name."""

    share: float
    step: int
    losses: dict[str, float]


Report = Callable[[Progress], None]


class Training:
    """A network on its way: call `run` with a function that draws a batch and returns its losses.

    The folder receives checkpoint.pt (weights, moving average, optimiser, counters, random states) at least every
    `checkpoint_seconds`, replaced in one move, and losses.jsonl.
    """

    def __init__(self, network: nn.Module, budget: Budget, folder: Path, *, resume: bool = False) -> None:
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
        """Share of the budget that is used up, 0..1."""
        return min(1.0, max(self.step / self.budget.steps, self.seconds / 60.0 / self.budget.minutes))

    def run(
        self,
        losses_of_step: Callable[[float], dict[str, Tensor]],
        *,
        title: str,
        quiet: bool = False,
        report: Report | None = None,
    ) -> nn.Module:
        """Train until the budget is used up; `losses_of_step(progress)` gives named losses, their sum is minimised.

        Returns the moving average of the network. A `quiet` run shows no bar; a `report` is told instead of it.
        """

        def gradients(progress: float) -> dict[str, Tensor]:
            losses = losses_of_step(progress)
            torch.stack(list(losses.values())).sum().backward()
            return losses

        return self.run_steps(gradients, title=title, quiet=quiet, report=report)

    def run_steps(
        self,
        gradients_of_step: Callable[[float], dict[str, Tensor]],
        *,
        title: str,
        quiet: bool = False,
        until: float = 1.0,
        report: Report | None = None,
    ) -> nn.Module:
        """As `run`, for a function that also forms the gradients of its losses and leaves them with the parameters.

        The run pauses where the share `until` of the budget is used up. A `report` is told of every step instead of
        the bar.
        """
        last_saved = time.monotonic()
        with contextlib.ExitStack() as stack:
            tell = report or stack.enter_context(_bar(title, quiet=quiet))
            while self.progress < until:
                began = self.budget.clock()
                values = self._step(gradients_of_step)
                self.seconds += self.budget.clock() - began
                tell(Progress(self.progress, self.step, values))
                if self.step % _LOGGED == 0:
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
        # One overflow must not end a night's training: the step is left out, the log shows its loss.
        if bool(torch.isfinite(norm)):
            self.optimizer.step()
        self.step += 1
        self._update_average()
        return {name: float(value.detach()) for name, value in losses.items()}

    def _schedule(self) -> float:
        warm = min(1.0, (self.progress + 1e-3) / self.budget.warmup)
        return warm * (1 - self.progress) ** 0.9 + 1e-3

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

    def _forget_later_log(self) -> None:
        """Drop log records of steps that will be done anew."""
        path = self.folder / LOG_FILE
        if not path.is_file():
            return
        lines = path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= self.step]
        write_text(path, "".join(f"{line}\n" for line in kept))

    def save(self) -> None:
        """Write the checkpoint beside the old one, then replace it.

        Raises:
            DiffusionSegmentError: DISK_FULL when it cannot be written; the earlier checkpoint stays.
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
        except (OSError, RuntimeError) as error:  # PyTorch's writer tells of a full disk by a RuntimeError
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise DiffusionSegmentError(
                ErrorCode.DISK_FULL,
                f"The checkpoint in {self.folder} cannot be written ({str(error).splitlines()[0][:120]}).",
                hint="Make room and resume; the last good checkpoint is still there.",
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
            self._forget_later_log()
        except Exception as error:
            raise DiffusionSegmentError(
                ErrorCode.CHECKPOINT,
                f"{path} cannot be resumed from ({_reason(error)}).",
                hint="Move it away to start anew; it was not changed.",
            ) from error


@contextlib.contextmanager
def _bar(title: str, *, quiet: bool) -> Iterator[Report]:
    """A bar of one training."""
    form = "{l_bar}{bar}| {elapsed}<{remaining}{postfix}"
    with tqdm(total=100, desc=title, unit="%", bar_format=form, disable=quiet) as bar:

        def tell(progress: Progress) -> None:
            bar.n = round(100 * progress.share, 1)
            if progress.step % _LOGGED == 0:
                bar.set_postfix(step=progress.step, **{k: f"{v:.3f}" for k, v in progress.losses.items()})

        yield tell


def _reason(error: Exception) -> str:
    """A state that does not fit is told by PyTorch in a RuntimeError, one of the optimiser in a ValueError."""
    other = isinstance(error, (RuntimeError, ValueError)) and ("state_dict" in str(error) or "group" in str(error))
    return "it belongs to another network" if other else type(error).__name__


def seed_everything(seed: int) -> None:
    """Seed the random states that augmentation and initialisation draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
