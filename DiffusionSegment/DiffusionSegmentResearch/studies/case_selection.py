"""Cases of a study that draws samples: a part of the data, some of its cases, or a crop of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from DiffusionSegmentBackend.datasets.labelled_cases import Case, find_cases, load_case
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Box
from DiffusionSegmentBackend.models.model import Model
from DiffusionSegmentBackend.training.session import add_coordinates
from numpy.typing import NDArray

from .study import StudyRequest

_MIN_SLICES = 24
# Slices between an organ and the part of a scan that lacks it, because its ends are blurred.
_ORGAN_MARGIN = 2


def selected_cases(request: StudyRequest, model: Model) -> Iterator[Case]:
    """The cases that the options of the study select, one at a time, whole, with body coordinates.

    Raises:
        DiffusionSegmentError: OPTION for an unknown case or an invalid crop, TRAINING_DATA.
    """
    options = request.options
    parse_crop(options.crop)
    files = [file for folder in request.data for file in find_cases(folder, part=options.part)]
    unknown = set(options.cases) - {file.name for file in files}
    if unknown:
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"There is no {options.part} case {', '.join(sorted(unknown))}.",
            hint=f"Choose among {', '.join(file.name for file in files)}.",
        )
    for file in files:
        if not options.cases or file.name in options.cases:
            case = load_case(file, model.description)
            add_coordinates([case], model.bodypart)
            yield case


def crop_of(case: Case, request: StudyRequest) -> Case:
    """The crop of a case that the options select, or the whole case."""
    sides = parse_crop(request.options.crop)
    return case if sides is None else cropped(case, organ_window(case.labels, sides))


def parse_crop(text: str | None) -> tuple[int, int, int] | None:
    """Sides (z, y, x) in voxels from "64,64,112".

    Raises:
        DiffusionSegmentError: OPTION.
    """
    if text is None:
        return None
    try:
        z, y, x = (int(part) for part in text.split(","))
    except ValueError:
        z = y = x = 0
    if min(z, y, x) < 1:
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"'{text}' is no crop.", hint="Give three numbers of voxels along z, y, x: 64,64,112."
        )
    return z, y, x


def organ_window(labels: NDArray[np.uint8], sides: tuple[int, int, int]) -> Box:
    """The window of `sides` (z, y, x), or less at a small volume, that holds the most of the organs.

    Along each axis, the shares of the organs' voxels inside are summed, so that small organs count as large ones.
    """
    box = []
    values = [value for value in np.unique(labels) if value]
    for axis, side in enumerate(sides):
        others = tuple(a for a in range(3) if a != axis)
        share = np.zeros(labels.shape[axis])
        for value in values:
            counts = (labels == value).sum(axis=others)
            share += counts / counts.sum()
        width = min(side, len(share))
        inside = np.convolve(share, np.ones(width), mode="valid")
        # The middle of the best windows leaves margins on both sides.
        best = np.flatnonzero(inside >= inside.max() - 1e-9)
        start = int(best[len(best) // 2])
        box.append(slice(start, start + width))
    return box[0], box[1], box[2]


def cropped(case: Case, box: Box) -> Case:
    """The part of a case inside `box` (z, y, x), with its own offset on the grid."""
    assert case.coordinates is not None
    offset = tuple(o + side.start for o, side in zip(case.offset, box, strict=True))
    return replace(
        case,
        image=np.ascontiguousarray(case.image[box]),
        labels=np.ascontiguousarray(case.labels[box]),
        offset=(offset[0], offset[1], offset[2]),
        coordinates=np.ascontiguousarray(case.coordinates[(slice(None), *box)]),
    )


def cases_text(request: StudyRequest, count: int) -> str:
    """The cases of a protocol: how many of which part, whether seen in training, and their crop."""
    options = request.options
    text = f"{count} validation case{'s' if count > 1 else ''}"
    if options.part == "train":
        plural = "s" if count > 1 else ""
        text = f"{count} training case{plural}, which the networks have seen in training"
    sides = parse_crop(options.crop)
    if sides is not None:
        text += f", each cropped to {' x '.join(map(str, sides))} voxels (z, y, x) around the organs"
    return text


def outside_organ(case: Case, value: int, request: StudyRequest) -> Case | None:
    """The slices above or below an organ, whichever hold more of the other organs, cropped as the options select.

    None where the case lacks the organ, or where fewer than 24 slices or no organ are left.
    """
    slices = np.flatnonzero((case.labels == value).any(axis=(1, 2)))
    if not len(slices):
        return None
    depth = (parse_crop(request.options.crop) or case.labels.shape)[0]
    low, high = int(slices[0]) - _ORGAN_MARGIN, int(slices[-1]) + 1 + _ORGAN_MARGIN
    sides = (slice(max(0, low - depth), max(0, low)), slice(high, high + depth))
    side = max(sides, key=lambda part: np.count_nonzero(case.labels[part]))
    if case.labels[side].shape[0] < _MIN_SLICES or not case.labels[side].any():
        return None
    _, height, width = case.labels.shape
    return crop_of(cropped(case, (side, slice(0, height), slice(0, width))), request)
