"""What a study is: its options, its result, and the function that turns one into the other."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode

if TYPE_CHECKING:
    from DiffusionSegmentBackend.models.manifest import ModelDescription

    from .result_file import StudyResult

PROGRAM = "diffusion-segment-research"
# Options with a flag for each of their values.
_REPEATED_FLAGS = {"others": "--other", "cases": "--case"}


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """Options that only some studies read; None and () for the default.

    Attributes:
        predictions: folder of predictions (`features` writes it, others read it).
        others: scans of other body parts.
        trainings: folder of checkpoints, from which a study that trains resumes.
        fold: the held-out fold, from 1.
        trunk_minutes: computing time of the trunk of a bake-off.
        minutes: computing time of each training.
        targets: targets of fine-tuning (`fine_tuning.parse_targets`).
        part: part of the data, "validation" or "train".
        cases: names of the cases, () for all of the part.
        crop: sides of a crop around the organs (`case_selection.parse_crop`).
        measures: folder of measures by case, from which a study resumes.
    """

    predictions: Path | None = None
    others: tuple[Path, ...] = ()
    trainings: Path | None = None
    fold: int | None = None
    trunk_minutes: float | None = None
    minutes: float | None = None
    targets: str | None = None
    part: str = "validation"
    cases: tuple[str, ...] = ()
    crop: str | None = None
    measures: Path | None = None

    def arguments(self, names: Sequence[str]) -> list[str]:
        """The named options that are set, as arguments of the command line."""
        words: list[str] = []
        for name in names:
            value = getattr(self, name)
            flag = _REPEATED_FLAGS.get(name, f"--{name.replace('_', '-')}")
            for one in value if isinstance(value, tuple) else [value]:
                if one is not None:
                    words += [flag, f"{one:g}" if isinstance(one, float) else shlex.quote(str(one))]
        return words


@dataclass(frozen=True)
class StudyRequest:
    """One run of a study on model folders and data folders, whose result goes to the file `output`."""

    study: Study
    models: tuple[Path, ...]
    data: tuple[Path, ...]
    output: Path
    options: StudyOptions = field(default_factory=StudyOptions)
    seed: int = 0

    @cached_property
    def descriptions(self) -> tuple[ModelDescription, ...]:
        """The description of each model."""
        from DiffusionSegmentBackend.models.manifest import read_description

        return tuple(read_description(folder) for folder in self.models)

    @property
    def description(self) -> ModelDescription:
        """The description of the first model."""
        return self.descriptions[0]

    @property
    def predictions(self) -> Path:
        """The folder of predictions of a study that requires one."""
        assert self.options.predictions is not None
        return self.options.predictions

    @property
    def trainings(self) -> Path:
        """The folder of checkpoints of a study that requires one."""
        assert self.options.trainings is not None
        return self.options.trainings

    @property
    def command(self) -> str:
        """The command that repeats the study."""
        paths = [*map(str, self.models), *(f"--data {path}" for path in self.data)]
        words = [PROGRAM, "study", self.study.name, "--models", *paths, "-o", str(self.output)]
        return " ".join([*words, *self.options.arguments(self.study.options)])

    def save(self, result: StudyResult) -> None:
        """Write the result file; a study may also save what it has so far.

        Raises:
            DiffusionSegmentError: OUTPUT_UNWRITABLE, DISK_FULL.
        """
        from .result_file import write_study

        write_study(self.output, result.rows, result.description, command=self.command, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class Study:
    """A claim that is measured on labelled scans.

    Attributes:
        name: as on the command line.
        measures: what it measures, in a few words.
        module: the module of this package whose function `study` takes a `StudyRequest` and returns a `StudyResult`.
        options: fields of `StudyOptions` that the study reads.
        required: those of them that must be given.
    """

    name: str
    measures: str
    module: str
    options: tuple[str, ...] = ()
    required: tuple[str, ...] = ()

    @property
    def function(self) -> Callable[[StudyRequest], StudyResult]:
        """The study's function; its module is imported on demand, because it imports torch."""
        function: Callable[[StudyRequest], StudyResult] = importlib.import_module(f".{self.module}", __package__).study
        return function

    def run(
        self, models: Sequence[Path], data: Sequence[Path], output: Path, options: StudyOptions | None = None
    ) -> None:
        """Run the study and write its result file; texts written there by hand are kept.

        Raises:
            DiffusionSegmentError: OPTION for a missing option, TRAINING_DATA, WEIGHTS_MISSING, DISK_FULL.
        """
        options = options or StudyOptions()
        missing = [name for name in self.required if getattr(options, name) is None]
        if missing:
            raise DiffusionSegmentError(
                ErrorCode.OPTION, f"The study '{self.name}' needs a folder.", hint=f"Name one with --{missing[0]} DIR."
            )
        request = StudyRequest(self, tuple(models), tuple(data), output, options)
        request.save(self.function(request))
