"""A reader's corrections: the refiner runs again around them, from the same noise; everything else stays as it was.

On marked voxels x_0 is the reader's label at every step (as RePaint clamps known pixels, Lugmayr et al. 2022), the
network sees the marks, and the pre-segmentation that the samples start from has heard them (`marks.spread`). Marked
voxels are certain, and a voxel whose label the marks do not change is never less certain than before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from ...errors import DiffusionSegmentError, ErrorCode
from ...imaging.volume import Grid
from ...models.model import Model
from ...models.tile_shape import Sides, TileShape
from ...networks.backbone import fine_features
from ..constraints import clamped, one_hot_marks
from ..features import Stage1, first_stage, padded
from ..islands import sink_islands
from ..memory import memory_errors
from ..progress import Progress, counted, silent, within
from ..refinement import TileChains
from ..report import build_report, with_total
from ..restore import in_native_box, interpolated, native_box, restore_nearest
from ..review import regions_to_review
from ..sampling import Window
from ..segment import keep_organs
from ..session import ENSEMBLE_WEIGHT, Answer, Session, Stopwatch
from ..tiling import on_trunk
from ..uncertainty import SampleStatistics, entropy
from .scribbles import Descriptors, fading, reach, spread

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, kw_only=True)
class Corrections:
    """What a reader asks for, in the scan's own geometry (k, j, i), uint8.

    `labels` is the segmentation as it is now; `marks` all marks in force: 0 not marked, 1 marked as background, k + 1
    marked as label k. Voxels of `locked` labels are neither taken nor given, except by a mark. With `heard` = False the
    marked voxels are held but nothing else is told of them: what corrections would be worth without it.
    """

    labels: NDArray[np.uint8]
    marks: NDArray[np.uint8]
    locked: tuple[int, ...] = ()
    heard: bool = True


@dataclass(frozen=True)
class Correction:
    """The answer inside `box` (k, j, i) of the scan, and the report and regions of the whole segmentation."""

    box: Box
    labels: NDArray[np.uint8]
    uncertainty: NDArray[np.float32]
    mutual_information: NDArray[np.float32]
    regions: NDArray[np.uint8]
    report: dict[str, Any]
    changed_voxels: int


def correct(
    session: Session, model: Model, corrections: Corrections, *, progress: Progress = silent
) -> tuple[Correction, Session]:
    """Apply marks to a session. The session given back knows them, so that the next call runs for new marks alone.

    Of the report, intervals, confidence and regions are those of the corrected probabilities of the whole scan, volumes
    those of the corrected labels; `timings_s` are those of the correction, `run_timings_s` those of the run.

    Raises:
        DiffusionSegmentError: GEOMETRY for maps of another shape, OPTION for labels unknown to the model or when
            nothing is marked, OUT_OF_MEMORY, OUT_OF_GPU_MEMORY.
    """
    _check(corrections, session.grid, model.description.classes)
    watch = Stopwatch()
    with torch.inference_mode(), memory_errors():
        marks = marks_on_grid(corrections.marks, session.grid)[_box_of(session)]
        before, known = _exact(session.answer), session.marks
        undone = known is not None and bool(((known != marks) & (known > 0)).any())
        if known is None or undone:
            # Marks that were taken back leave nothing behind: all others are applied anew to the first answer.
            before, known = _exact(session.first_answer), torch.zeros_like(marks)
        fresh = (marks != known) & (marks > 0)
        with watch.stage("correct"):
            answer = _refined_around(fresh, marks, before, session, model, corrections.heard, progress)
        after = replace(session, corrected=answer, marks=marks)
        touched = _touched(before, answer) | reach(fresh, model.tile.stride)
        with watch.stage("restore"):
            correction = _delivered(corrections, before, after, touched, model)
    timings = {"timings_s": with_total(watch.seconds), "run_timings_s": with_total(session.seconds)}
    return replace(correction, report={**correction.report, **timings}), after


def _exact(answer: Answer) -> Answer:
    """In float32: an answer of a run in parts is kept in half precision."""
    return Answer(answer.ensemble.float(), answer.mutual_information.float())


def marks_on_grid(marks: NDArray[np.uint8], grid: Grid) -> Tensor:
    """Marks (k, j, i) on the model's grid (z, y, x), uint8: a voxel takes the most frequent of the marks inside it.

    However thin a stroke is, it is not lost. Where the scan's slices are thicker than the grid's, a grid voxel in which
    no voxel of the scan has its centre takes the mark of the one that it lies in.
    """
    turned = grid.order.apply(marks)
    places = np.argwhere(turned > 0)
    result = grid.nearest_to_grid(marks).astype(np.uint8)
    if len(places):
        cells = np.clip(grid.cells_of(places), 0, np.array(grid.shape) - 1)
        rows = np.concatenate([cells, turned[tuple(places.T)][:, None].astype(int)], axis=1)
        found, counts = np.unique(rows, axis=0, return_counts=True)
        ordered = found[np.argsort(counts, kind="stable")]
        result[tuple(ordered[:, :3].T)] = ordered[:, 3]
    return torch.from_numpy(result)


def _check(corrections: Corrections, grid: Grid, classes: int) -> None:
    shape = grid.order.undo(np.broadcast_to(np.uint8(0), grid.native_shape)).shape
    for name, array in (("segmentation", corrections.labels), ("corrections", corrections.marks)):
        if array.shape != shape:
            raise DiffusionSegmentError(
                ErrorCode.GEOMETRY,
                f"The {name} have the shape {array.shape}, the scan {shape}.",
                hint="Use maps that were made on this scan.",
            )
    if corrections.marks.max(initial=0) > classes or corrections.labels.max(initial=0) >= classes:
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"The corrections hold labels beyond {classes - 1}, the last of the model.",
            hint="0 is not marked, 1 is background, k + 1 is label k.",
        )
    if not corrections.marks.any():
        raise DiffusionSegmentError(ErrorCode.OPTION, "Nothing is marked.", hint="Paint a correction first.")


def _box_of(session: Session) -> Box:
    """The part of the grid in which the networks ran."""
    start, shape = session.prediction.offset, session.prediction.pre.shape[1:]
    z, y, x = (slice(o, o + n) for o, n in zip(start, shape, strict=True))
    return z, y, x


def _refined_around(
    fresh: Tensor,
    marks: Tensor,
    before: Answer,
    session: Session,
    model: Model,
    heard: bool,
    progress: Progress,
) -> Answer:
    """The answer with the surroundings of `fresh` marks computed anew; `marks` are all in force."""
    ensemble, information = before.ensemble.clone(), before.mutual_information.clone()
    neighbourhoods = list(_neighbourhoods(fresh, session.prediction.tiled_shape, model.tile))
    renewed = torch.zeros(marks.shape, dtype=torch.bool)
    for n, (place, near) in enumerate(neighbourhoods):
        part = within(progress, n, len(neighbourhoods))
        new, new_information = _run_again(place, marks, session, model, heard, part)
        inside = tuple(slice(s.start, min(s.stop, size)) for s, size in zip(place, ensemble.shape[1:], strict=True))
        size = tuple(slice(0, s.stop - s.start) for s in inside)
        weight = near[size]
        renewed[inside] |= weight > 0
        for old, fresh_values in ((ensemble, new), (information[None], new_information[None])):
            cut = old[(slice(None), *inside)]
            cut += weight * (fresh_values[(slice(None), *size)] - cut)
    ensemble = clamped(ensemble, one_hot_marks(marks, ensemble.shape[0]))
    # An island that was taken out before must not come back because something beside it was corrected.
    smallest_piece = model.description.defaults.smallest_piece
    sink_islands(ensemble, smallest_piece=smallest_piece, marks=marks, within=renewed)
    kept = _same_label_less_certain(before.ensemble, ensemble)
    return Answer(
        torch.where(kept, before.ensemble, ensemble), torch.where(kept, before.mutual_information, information)
    )


def _same_label_less_certain(before: Tensor, after: Tensor) -> Tensor:
    """Bool (z, y, x): the label stayed, and is less probable than before.

    `spread` moves a part of the probability far beyond the voxels whose label it changes. That part is no reason to
    think less of a label that stays: it made the whole organ around a correction uncertain.
    """
    was, now = before.max(dim=0), after.max(dim=0)
    return (was.indices == now.indices) & (was.values > now.values)


def _neighbourhoods(fresh: Tensor, tiled_shape: Sides, tile: TileShape) -> Iterator[tuple[Box, Tensor]]:
    """Boxes of at least a tile around connected reaches, and how much of the new answer counts in them, 0..1."""
    whole = torch.zeros(tiled_shape, dtype=torch.bool)
    z, y, x = fresh.shape
    whole[:z, :y, :x] = fresh
    components, _ = ndimage.label(reach(whole, tile.stride).numpy())
    for number, found in enumerate(ndimage.find_objects(components), start=1):
        place = _grown(found, tiled_shape, tile)
        own = torch.from_numpy(components[place] == number)
        yield place, fading(whole[place] & own, tile.stride) * own


def _grown(box: tuple[slice, ...], shape: Sides, tile: TileShape) -> Box:
    """The box with sides of at least a tile, moved inside the volume, of whole voxels of its trunk."""
    sides = []
    for s, n, step, side in zip(box, shape, tile.stride, tile.voxels, strict=True):
        start, stop = s.start // step * step, -(-s.stop // step) * step
        length = max(side, stop - start)
        low = min(max(0, start - (length - (stop - start)) // 2 // step * step), n - length)
        sides.append(slice(low, low + length))
    return sides[0], sides[1], sides[2]


def _run_again(
    place: Box, marks: Tensor, session: Session, model: Model, heard: bool, progress: Progress
) -> tuple[Tensor, Tensor]:
    """Ensemble (classes, z, y, x) and mutual information (z, y, x) of one box, all marks in it being known."""
    prediction, box = session.prediction, _box_of(session)
    tile = model.tile
    image = padded(session.image[box][None], tile=tile, value=-1.0)[0][place]
    coordinates = padded(prediction.coordinates_mm[(slice(None), *box)], tile=tile, value=0.0)
    local = first_stage(image, coordinates[(slice(None), *place)], model, progress=progress)
    given = padded(prediction.start, tile=tile, value=0.0)[(slice(None), *place)].float()
    known = padded(marks[None], tile=tile, value=0)[0][place]
    told = one_hot_marks(known, model.description.classes)
    pre = spread(given, told, _descriptors(local, image, tile)) if heard else clamped(given, told)
    if model.refiner is None:
        return pre, torch.zeros(pre.shape[1:])
    stage1 = replace(local, pre=pre)
    statistics = SampleStatistics.empty(model.description.classes, stage1.tiling.shape)
    total = session.samples * session.plan.steps * len(stage1.tiling.tiles)
    chains = TileChains(
        stage1,
        model.refiner,
        model.device,
        model.dtype,
        marks=told,
        show_marks=heard,
        tick=counted(progress, "refine", total),
    )
    window = Window(prediction.tiled_shape, place)
    for sample in range(session.samples):
        statistics.add(chains.sample(session.plan, sample=sample, window=window))
    ensemble = ENSEMBLE_WEIGHT * statistics.mean + (1 - ENSEMBLE_WEIGHT) * pre
    return clamped(ensemble, told), statistics.mutual_information


def _descriptors(stage1: Stage1, image: Tensor, tile: TileShape) -> Descriptors:
    """The two finest feature levels of the whole box, and the image where the trunk's grid is coarser than it."""
    tiles = [fine_features(levels).cpu() for levels in stage1.features]
    features = on_trunk(stage1.tiling, tile).blend(lambda n, _: tiles[n], channels=tiles[0].shape[0])
    return Descriptors(features, image if tile.stride != (1, 1, 1) else None, tile.stride)


def _touched(before: Answer, after: Answer) -> Tensor:
    """Where two answers differ, bool (z, y, x)."""
    return (before.ensemble != after.ensemble).any(dim=0)


def _seen_from(marks: NDArray[np.uint8], touched: Tensor, offset: tuple[int, int, int], grid: Grid) -> Box:
    """The canonical native voxels that hold a mark or can see a touched voxel of the grid."""
    found = np.argwhere(marks > 0)
    low, high = found.min(axis=0), found.max(axis=0) + 1
    if bool(touched.any()):
        seen = native_box(touched, offset, grid)
        low = np.minimum(low, [s.start for s in seen])
        high = np.maximum(high, [s.stop for s in seen])
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return z, y, x


def _delivered(corrections: Corrections, before: Answer, session: Session, touched: Tensor, model: Model) -> Correction:
    """The corrected maps in the scan's geometry.

    A voxel changes where the model's own decision changed; whatever else the reader's segmentation holds stays.
    """
    grid, offset = session.grid, session.prediction.offset
    old, new = (keep_organs(a.ensemble, session.wanted) for a in (before, session.answer))
    place = _seen_from(grid.order.apply(corrections.marks), touched, offset, grid)
    inside = grid.order.apply(restore_nearest(touched.byte().numpy(), offset, grid))[place] > 0
    was, now = (interpolated(p, offset, grid, place).argmax(dim=0).byte().numpy() for p in (old, new))
    current, marked = (grid.order.apply(m)[place] for m in (corrections.labels, corrections.marks))
    held = np.isin(current, corrections.locked) | np.isin(now, corrections.locked)
    labels = np.where(inside & (was != now) & ~held, now, current)
    labels = np.where(marked > 0, marked - 1, labels).astype(np.uint8)
    doubt, information = (
        np.where(marked > 0, 0, interpolated(m[None], offset, grid, place)[0].numpy()).astype(np.float32)
        for m in (entropy(session.answer.ensemble), session.answer.mutual_information)
    )
    box = in_native_box(place, grid)
    whole = np.array(corrections.labels)
    changed = int(np.count_nonzero(whole[box] != grid.order.undo(labels)))
    whole[box] = grid.order.undo(labels)
    review, places = regions_to_review(new.numpy(), grid, offset, model.description)
    report = build_report(
        labels=whole, prediction=new.numpy(), review=review, session=session, model=model, seconds=session.seconds
    )
    own = [np.ascontiguousarray(grid.order.undo(m)) for m in (labels, doubt, information)]
    return Correction(box, own[0], own[1], own[2], restore_nearest(places, offset, grid), report, changed)
