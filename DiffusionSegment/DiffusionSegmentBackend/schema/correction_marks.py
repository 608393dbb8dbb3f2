"""What a correction gives the model: the labels now, the reader's marks, the labels that only a mark may change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

_Map = TypeVar("_Map")

NOT_MARKED = 0
BACKGROUND_MARK = 1


def mark_of_label(value: int) -> int:
    """The value of a mark for a label: 1 for the background, k + 1 for label k."""
    return value + 1


def label_of_mark(mark: int) -> int:
    """The label that a mark, 1 or more, gives its voxel."""
    return mark - 1


@dataclass(frozen=True)
class CorrectionMarks(Generic[_Map]):
    """Label maps of the scan's shape (k, j, i), uint8: arrays, or references to them in a message.

    `labels` is the segmentation as it is now. `marks` holds the values of `mark_of_label`, and NOT_MARKED elsewhere.
    `locked` are label values that gain and lose voxels only where they are marked.
    """

    labels: _Map
    marks: _Map
    locked: tuple[int, ...] = ()
