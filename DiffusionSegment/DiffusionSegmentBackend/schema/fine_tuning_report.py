"""What fine-tuning made: the new model and the volumes that it was trained on; standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class AnnotatedOrgan:
    """Name and title of an organ of the new model, and its annotated volume in mL over all scans."""

    name: str
    title: str
    drawn_ml: float


@dataclass(frozen=True, kw_only=True)
class FineTuningReport:
    """The folder of the new model, name and version of its base, seconds of training, and the organs."""

    folder: str
    base: str
    seconds: float
    organs: tuple[AnnotatedOrgan, ...]
