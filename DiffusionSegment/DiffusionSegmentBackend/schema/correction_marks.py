"""What a correction gives the model: the labels now, the reader's scribbles, and locked labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

_Map = TypeVar("_Map")


def scribble_value(label: int) -> int:
    """The value of a scribble for a label: 1 for the background, k + 1 for label k."""
    return label + 1


@dataclass(frozen=True)
class CorrectionMarks(Generic[_Map]):
    """Label maps of the scan's shape (k, j, i), uint8: arrays, or references to them in a message.

    Attributes:
        labels: the current segmentation.
        scribbles: all scribbles so far, with the values of `scribble_value`, and 0 elsewhere.
        locked: label values that gain and lose voxels only where there is a scribble.
    """

    labels: _Map
    scribbles: _Map
    locked: tuple[int, ...] = ()
