"""Options of one-command training."""

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
        output: Folder of the model.
        minutes: Total minutes, including reading and scoring; split over the stages by `time_plan`.
        manifest: A model.json without networks, or the name of a bundled one; None to use that in the folder.
        licence: Licence of the weights, for model.json; by default that of a manifest file, else "not stated".
        data_source: Origin of the scans, for model.json and the model card.
        unlabelled: Folders of scans without labels, for the body-part network and denoising.
        folds: Number of folds for out-of-fold predictions.
        denoising_share: Share of the patches that are denoised instead of segmented.
        pseudo_labels: Try pseudo-labels for organs without annotation, and use them if they help.
        stage: The one stage to run; None for all.
        resume: Continue an earlier run in the folder.
        device: "auto", "cpu" or "cuda".
        processor_time: Count CPU time instead of wall-clock time, for shared machines.
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
        """Check the values of the options.

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
        """The options that must be the same in a resumed run."""
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
