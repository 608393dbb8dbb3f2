"""The alternatives of all regions to review of a session, as marks in the scan's own geometry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from ...imaging.volume import Box
from ...models.manifest import ModelDescription
from ...schema.region_alternative import AlternativesOfRegion, RegionAlternative
from ...schema.report import ReviewRegion
from ..memory import memory_errors
from ..restore import in_native_box, interpolated, native_box, restore_nearest
from ..review import regions_to_review
from ..segment import keep_organs
from ..session import Session
from .region_alternatives import LabelHypothesis, RegionMaps, region_hypotheses

# Voxels of the model's grid around a region on which the interpolation of its labels depends.
_MARGIN = 2
_NAMED_CHANGES = 2


@dataclass(frozen=True)
class AlternativeMarks:
    """The alternatives of each region to review, in the order of the list, and their marks.

    Attributes:
        regions: an entry for each region.
        marks: uint8 (n, k, j, i), for each alternative of each region, in their order: k + 1 where it has label k
            instead of the present label, 0 elsewhere. Each begins at its `start_ijk` and is padded with 0. None where
            no region has an alternative.
    """

    regions: tuple[AlternativesOfRegion, ...]
    marks: NDArray[np.uint8] | None


@dataclass(frozen=True)
class _Marked:
    """The marks of an alternative in a box (k, j, i) of the scan; `present` are the labels that they replace there."""

    marks: NDArray[np.uint8]
    present: NDArray[np.uint8]
    box: Box
    probability: float


def alternatives_of_session(session: Session, description: ModelDescription) -> AlternativeMarks:
    """`alternative_marks` of the regions to review of a session, which are determined first.

    Raises:
        DiffusionSegmentError: OUT_OF_MEMORY.
    """
    with torch.inference_mode(), memory_errors():
        offset, grid = session.prediction.offset, session.grid
        kept = keep_organs(session.maps.ensemble, session.wanted).numpy()
        review, numbers = regions_to_review(kept, grid, offset, description, given_weight=session.given_weight)
        regions = restore_nearest(numbers, offset, grid)
    return alternative_marks(session, description, review, regions)


def alternative_marks(
    session: Session, description: ModelDescription, review: Sequence[ReviewRegion], regions: NDArray[np.uint8]
) -> AlternativeMarks:
    """The alternatives of the regions to review of a session.

    Args:
        session: the run, with its corrections.
        description: the model, for the names of the labels.
        review: the regions.
        regions: map (k, j, i), n + 1 in region n. Nothing is marked outside it.

    Raises:
        DiffusionSegmentError: OUT_OF_MEMORY.
    """
    names = ["background", *(label.title.lower() for label in description.labels)]
    with torch.inference_mode(), memory_errors():
        numbers = _on_grid(session, regions)
        boxes = ndimage.find_objects(numbers, max_label=len(review))
        marked = [_alternatives(session, regions, numbers, n, box) for n, box in enumerate(boxes, start=1)]
    entries = tuple(
        AlternativesOfRegion(
            centroid_lps_mm=region.centroid_lps_mm,
            alternatives=tuple(_described(item, names, session.voxel_ml) for item in items),
        )
        for region, items in zip(review, marked, strict=True)
    )
    return AlternativeMarks(entries, _stacked([item.marks for items in marked for item in items]))


def _on_grid(session: Session, regions: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The numbers of the regions on the model's grid, inside the prediction's box (z, y, x)."""
    shape, offset = session.prediction.ensemble.shape[1:], session.prediction.offset
    box = tuple(slice(o, o + n) for o, n in zip(offset, shape, strict=True))
    numbers: NDArray[np.uint8] = session.grid.nearest_to_grid(regions)[box]
    return numbers


def _alternatives(
    session: Session,
    regions: NDArray[np.uint8],
    numbers: NDArray[np.uint8],
    number: int,
    inner: tuple[slice, ...] | None,
) -> list[_Marked]:
    """The alternatives of region `number` (from 1), whose voxels on the grid lie in the box `inner`, if any."""
    if inner is None:
        return []
    z, y, x = (
        slice(max(0, side.start - _MARGIN), min(n, side.stop + _MARGIN))
        for side, n in zip(inner, numbers.shape, strict=True)
    )
    box = (z, y, x)
    maps = _region_maps(session, box, numbers[box] == number)
    result: list[_Marked] = []
    for hypothesis in region_hypotheses(maps, voxel_ml=session.grid.voxel_ml):
        item = _restored(session, regions, number, maps, hypothesis, box)
        if item is not None and not any(_are_equal(item, other) for other in result):
            result.append(item)
    return result


def _region_maps(session: Session, box: Box, inside: NDArray[np.bool_]) -> RegionMaps:
    """The maps of a box of the prediction; the probabilities of a reviewed segmentation are the model's alone."""
    probabilities: NDArray[np.float32] = _kept(session, box).numpy()
    labels = probabilities.argmax(axis=0).astype(np.uint8)
    weight = session.given_weight
    if weight:
        given = np.arange(len(probabilities))[:, None, None, None] == labels
        probabilities = ((probabilities - weight * given) / (1 - weight)).clip(0, 1).astype(np.float32)
    samples = [sample[box].numpy() for sample in session.prediction.sample_labels]
    if session.wanted:
        samples = [np.where(np.isin(sample, session.wanted), sample, np.uint8(0)) for sample in samples]
    return RegionMaps(probabilities=probabilities, labels=labels, inside=inside, samples=samples)


def _restored(
    session: Session,
    regions: NDArray[np.uint8],
    number: int,
    maps: RegionMaps,
    hypothesis: LabelHypothesis,
    box: Box,
) -> _Marked | None:
    """The marks of an alternative in the scan's own geometry, inside its region; None where none is left."""
    z, y, x = (o + side.start for o, side in zip(session.prediction.offset, box, strict=True))
    offset = (z, y, x)
    native = native_box(torch.from_numpy(hypothesis.labels != maps.labels), offset, session.grid)
    labels, on_grid, present = (
        session.grid.order.undo(_native_labels(indicators, offset, native, session))
        for indicators in (_one_hot(hypothesis.labels), _one_hot(maps.labels), _kept(session, box))
    )
    own = in_native_box(native, session.grid)
    # The surface of the present labels is that of interpolated probabilities, not of interpolated labels.
    marked = (labels != on_grid) & (labels != present) & (regions[own] == number)
    if session.reviewed is not None:
        # Structures that the model does not have are not judged.
        marked &= session.reviewed[own] < len(maps.probabilities)
    tight = ndimage.find_objects(marked.astype(np.uint8))
    if not tight:
        return None
    k, j, i = (slice(o.start + t.start, o.start + t.stop) for o, t in zip(own, tight[0], strict=True))
    marks = np.where(marked, labels + 1, 0).astype(np.uint8)
    return _Marked(marks[tight[0]], present[tight[0]], (k, j, i), hypothesis.probability)


def _kept(session: Session, box: Box) -> Tensor:
    """The probabilities (classes, z, y, x) of a box of the prediction, of the requested organs."""
    return keep_organs(session.maps.ensemble[(slice(None), *box)].float(), session.wanted)


def _one_hot(labels: NDArray[np.uint8]) -> Tensor:
    """Indicator functions (n, z, y, x) of labels 0 to the largest of a map."""
    return torch.nn.functional.one_hot(torch.from_numpy(labels).long()).movedim(-1, 0).float()


def _native_labels(indicators: Tensor, offset: tuple[int, int, int], box: Box, session: Session) -> NDArray[np.uint8]:
    """Labels at the canonical native voxels of a box: the arg max of interpolated indicators or probabilities."""
    return interpolated(indicators, offset, session.grid, box).argmax(dim=0).byte().numpy()


def _are_equal(first: _Marked, second: _Marked) -> bool:
    return first.box == second.box and np.array_equal(first.marks, second.marks)


def _described(item: _Marked, names: Sequence[str], voxel_ml: float) -> RegionAlternative:
    """What messages and reports say of an alternative."""
    marked = item.marks > 0
    k, j, i = item.box
    codes = (item.marks[marked] - 1).astype(np.intp) * 256 + item.present[marked]
    counts = np.bincount(codes)
    largest = [int(code) for code in np.argsort(-counts, kind="stable")[:_NAMED_CHANGES] if counts[code]]
    changes = [f"{names[code // 256]}, not {names[code % 256]}: {counts[code] * voxel_ml:.1f} mL" for code in largest]
    return RegionAlternative(
        probability=round(item.probability, 3),
        volume_ml=round(float(np.count_nonzero(marked)) * voxel_ml, 2),
        sentence=_sentence(changes),
        start_ijk=(i.start, j.start, k.start),
    )


def _sentence(changes: Sequence[str]) -> str:
    text = "; ".join(changes)
    return f"{text[:1].upper()}{text[1:]}."


def _stacked(marks: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8] | None:
    """All marks in one array, each padded with 0 to the size of the largest; None without any."""
    if not marks:
        return None
    shape = np.max([m.shape for m in marks], axis=0)
    result = np.zeros((len(marks), *shape), dtype=np.uint8)
    for target, source in zip(result, marks, strict=True):
        target[tuple(slice(n) for n in source.shape)] = source
    return result
