"""What one-command training was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import DiffusionSegmentError, ErrorCode
from .time_plan import STAGES

MAX_FOLDS = 10


@dataclass(frozen=True, kw_only=True)
class ModelTrainingOptions:
    """Options of `train` without a network's name.

    Attributes:
        data: Folders with images/ and labels/.
        output: The model's folder.
        minutes: Minutes of training in all, split over the stages by `time_plan`, reading and scoring included.
        manifest: A model.json without networks, or the name of a bundled one; None where the folder has its own.
        licence: Of the weights, for model.json; else that of a manifest file, else "not stated".
        data_source: Where the scans come from, for model.json and the card.
        unlabelled: Folders of scans that nobody labelled; they serve the body-part network and denoising.
        folds: Networks for out-of-fold predictions, each trained without its share of the cases.
        denoising_share: Share of the patches that are denoised instead of segmented.
        pseudo_labels: Try whether labels that networks give to what nobody drew help, and keep what does.
        stage: The one stage to run; None for all.
        resume: Go on with what an earlier run left in the folder.
        device: "auto", "cpu" or "cuda".
        processor_time: Count the minutes in which a CPU's cores compute, not those of the clock: on a machine that
            others use too, as much is then trained as on a quiet one.
    """

    data: tuple[Path, ...]
    output: Path
    minutes: float
    manifest: str | None = None
    licence: str = ""
    data_source: str = ""
    unlabelled: tuple[Path, ...] = ()
    folds: int = 3
    denoising_share: float = 0.2
    pseudo_labels: bool = False
    stage: str | None = None
    resume: bool = False
    seed: int = 0
    device: str = "auto"
    processor_time: bool = False

    def check(self) -> None:
        """Refuse what no training can do.

        Raises:
            DiffusionSegmentError: OPTION.
        """
        wrong = ""
        if not 2 <= self.folds <= MAX_FOLDS:
            wrong = f"{self.folds} folds: choose 2 to {MAX_FOLDS}."
        elif not 0 <= self.denoising_share < 1:
            wrong = f"A denoising share of {self.denoising_share:g}: choose 0 to below 1."
        elif self.stage is not None and self.stage not in STAGES:
            wrong = f"There is no stage '{self.stage}': choose {', '.join(STAGES)}."
        if wrong:
            raise DiffusionSegmentError(ErrorCode.OPTION, wrong, hint="See `diffusion-segment train --help`.")

    def as_json(self) -> dict[str, Any]:
        """What a resumed run must have in common with the first."""
        return {
            "data": [str(path.resolve()) for path in self.data],
            "unlabelled": [str(path.resolve()) for path in self.unlabelled],
            "minutes": self.minutes,
            "folds": self.folds,
            "denoising_share": self.denoising_share,
            "pseudo_labels": self.pseudo_labels,
            "seed": self.seed,
            "processor_time": self.processor_time,
        }
