"""Corrections by scribbles: the refiner runs again around them, from the same noise; the rest is unchanged.

On scribbled voxels x_0 is clamped to the scribble's label at every step (RePaint, Lugmayr et al. 2022), the scribbles
are an input of the network, and they are propagated into the pre-segmentation from which the samples start
(`scribbles.spread`). Scribbled voxels are certain. The confidence of a voxel whose label does not change never falls.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from ...errors import DiffusionSegmentError, ErrorCode
from ...imaging.volume import Box, Grid
from ...models.model import Model
from ...models.tile_shape import Sides, TileShape
from ...networks.backbone import fine_features
from ...schema.correction_marks import CorrectionMarks
from ...schema.report import Report
from ..constraints import clamped, one_hot_scribbles
from ..features import Stage1, first_stage, padded
from ..islands import remove_islands
from ..memory import memory_errors
from ..progress import Progress, counted, part_of_correction, silent
from ..refinement import TileChains
from ..report import build_report, with_total
from ..restore import in_native_box, interpolated, native_box, restore_nearest
from ..review import review_list
from ..reviewed import relabelled
from ..sampling import SamplingPlan, Window
from ..segment import keep_organs
from ..session import ENSEMBLE_WEIGHT, EnsembleMaps, Session, Stopwatch
from ..tiling import on_trunk
from ..uncertainty import SampleStatistics
from .scribbles import Descriptors, fading, reach, spread


@dataclass(frozen=True, kw_only=True)
class Corrections(CorrectionMarks[NDArray[np.uint8]]):
    """Corrections as arrays in the scan's own geometry.

    `propagate`: whether scribbles affect other voxels; without, only the scribbled voxels are clamped (an ablation).
    """

    propagate: bool = True


@dataclass(frozen=True)
class Correction:
    """Corrected labels inside `box` (k, j, i) of the scan, and report and regions of the whole segmentation.

    `canonical_box` is the same box in canonical voxels (z, y, x). Uncertainty follows from the returned session, see
    `pipeline.uncertainty_maps`.
    """

    box: Box
    canonical_box: Box
    labels: NDArray[np.uint8]
    regions: NDArray[np.uint8]
    report: Report
    changed_voxels: int


def correct(
    session: Session, model: Model, corrections: Corrections, *, progress: Progress = silent
) -> tuple[Correction, Session]:
    """Apply scribbles to a session.

    The returned session includes them, so that the next call computes new scribbles only. The report is that of the
    whole scan: intervals, confidence and regions of the corrected probabilities, volumes of the corrected labels.
    `timings_s` are those of the correction, `run_timings_s` those of the run.

    Raises:
        DiffusionSegmentError: GEOMETRY for maps of another shape, OPTION for labels unknown to the model or when
            nothing is marked, OUT_OF_MEMORY, OUT_OF_GPU_MEMORY.
    """
    _check(corrections, session.grid, model.description.classes)
    watch = Stopwatch()
    with torch.inference_mode(), memory_errors():
        scribbles = scribbles_on_grid(corrections.scribbles, session.grid)[_box_of(session)]
        before, applied = _as_float32(session.maps), session.scribbles
        removed = applied is not None and bool(((applied != scribbles) & (applied > 0)).any())
        if applied is None or removed:
            # After a scribble was removed, the others are applied again to the maps of the run.
            before, applied = _as_float32(session.initial_maps), torch.zeros_like(scribbles)
        new = (scribbles != applied) & (scribbles > 0)
        with watch.stage("correct"):
            refinement = _LocalRefinement(session, model, scribbles, corrections.propagate)
            after = replace(session, corrected=refinement.around(new, before, progress), scribbles=scribbles)
        changed = _differing(before, after.maps) | reach(new, model.tile.stride)
        with watch.stage("restore"):
            correction = _restored(corrections, before, after, changed, model)
    report = replace(correction.report, timings_s=with_total(watch.seconds), run_timings_s=with_total(session.seconds))
    return replace(correction, report=report), after


def _as_float32(maps: EnsembleMaps) -> EnsembleMaps:
    """Maps in float32; those of a run in parts are in half precision."""
    return EnsembleMaps(maps.ensemble.float(), maps.mutual_information.float())


def scribbles_on_grid(scribbles: NDArray[np.uint8], grid: Grid) -> Tensor:
    """Scribbles (k, j, i) on the model's grid (z, y, x), uint8: the most frequent scribble inside each grid voxel.

    Thin strokes are not lost. A grid voxel that contains no voxel centre of the scan, as where the scan's slices are
    thicker than the grid's, takes the scribble of the voxel in which it lies.
    """
    canonical = grid.order.apply(scribbles)
    voxels = np.argwhere(canonical > 0)
    result = grid.nearest_to_grid(scribbles).astype(np.uint8)
    if len(voxels):
        cells = np.clip(grid.cells_of(voxels), 0, np.array(grid.shape) - 1)
        rows = np.concatenate([cells, canonical[tuple(voxels.T)][:, None].astype(int)], axis=1)
        unique, counts = np.unique(rows, axis=0, return_counts=True)
        ordered = unique[np.argsort(counts, kind="stable")]
        result[tuple(ordered[:, :3].T)] = ordered[:, 3]
    return torch.from_numpy(result)


def _check(corrections: Corrections, grid: Grid, classes: int) -> None:
    shape = grid.order.undo(np.broadcast_to(np.uint8(0), grid.native_shape)).shape
    for name, array in (("segmentation", corrections.labels), ("corrections", corrections.scribbles)):
        if array.shape != shape:
            raise DiffusionSegmentError(
                ErrorCode.GEOMETRY,
                f"The {name} have the shape {array.shape}, the scan {shape}.",
                hint="Use maps that were made on this scan.",
            )
    if corrections.scribbles.max(initial=0) > classes or corrections.labels.max(initial=0) >= classes:
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"The corrections hold labels beyond {classes - 1}, the last of the model.",
            hint="0 is not marked, 1 is background, k + 1 is label k.",
        )
    if not corrections.scribbles.any():
        raise DiffusionSegmentError(ErrorCode.OPTION, "Nothing is marked.", hint="Paint a correction first.")


def _box_of(session: Session) -> Box:
    """The box (z, y, x) of the grid that the prediction covers."""
    start, shape = session.prediction.offset, session.prediction.pre.shape[1:]
    z, y, x = (slice(o, o + n) for o, n in zip(start, shape, strict=True))
    return z, y, x


@dataclass(frozen=True)
class _LocalRefinement:
    """New samples around new scribbles; `scribbles` (z, y, x) are all in force, on the prediction's box."""

    session: Session
    model: Model
    scribbles: Tensor
    propagate: bool

    def around(self, new: Tensor, before: EnsembleMaps, progress: Progress) -> EnsembleMaps:
        """The maps `before`, recomputed in the neighbourhoods of `new` scribbles (z, y, x), bool."""
        ensemble, information = before.ensemble.clone(), before.mutual_information.clone()
        neighbourhoods = list(_neighbourhoods(new, self.session.prediction.tiled_shape, self.model.tile))
        recomputed = torch.zeros(self.scribbles.shape, dtype=torch.bool)
        for n, (box, box_weight) in enumerate(neighbourhoods):
            part = part_of_correction(progress, n, len(neighbourhoods))
            new_ensemble, new_information = self._recomputed(box, part)
            inside = tuple(slice(s.start, min(s.stop, side)) for s, side in zip(box, ensemble.shape[1:], strict=True))
            size = tuple(slice(0, s.stop - s.start) for s in inside)
            weight = box_weight[size]
            recomputed[inside] |= weight > 0
            for target, values in ((ensemble, new_ensemble), (information[None], new_information[None])):
                cut = target[(slice(None), *inside)]
                cut += weight * (values[(slice(None), *size)] - cut)
        reviewed = self.session.reviewed is not None
        if reviewed:
            ensemble = relabelled(before.ensemble, ensemble.argmax(dim=0))
        ensemble = clamped(ensemble, one_hot_scribbles(self.scribbles, ensemble.shape[0]))
        # Islands that were removed before must not return beside a correction.
        smallest_piece = 0.0 if reviewed else self.model.description.defaults.smallest_piece
        remove_islands(ensemble, smallest_piece=smallest_piece, scribbles=self.scribbles, within=recomputed)
        kept = _same_label_less_confident(before.ensemble, ensemble)
        return EnsembleMaps(
            torch.where(kept, before.ensemble, ensemble), torch.where(kept, before.mutual_information, information)
        )

    def _recomputed(self, box: Box, progress: Progress) -> tuple[Tensor, Tensor]:
        """Ensemble (classes, z, y, x) and mutual information (z, y, x) of one box of the tiled volume."""
        model, session, tile = self.model, self.session, self.model.tile
        scribbles = one_hot_scribbles(
            padded(self.scribbles[None], tile=tile, value=0)[0][box], model.description.classes
        )
        stage1 = self._first_stage(box, scribbles, progress)
        if session.reviewed is not None:
            # New samples would replace the given labels around the scribbles, also where these change nothing.
            return stage1.pre, padded(session.prediction.mutual_information[None], tile=tile, value=0.0)[0][box]
        if model.refiner is None:
            return stage1.pre, torch.zeros(stage1.pre.shape[1:])
        statistics = SampleStatistics.empty(model.description.classes, stage1.tiling.shape)
        total = session.run.samples * session.run.steps * len(stage1.tiling.tiles)
        chains = TileChains(
            stage1,
            model.refiner,
            model.device,
            model.dtype,
            scribbles=scribbles,
            show_scribbles=self.propagate,
            tick=counted(progress, "refine", total),
        )
        window = Window(session.prediction.tiled_shape, box)
        plan = SamplingPlan.of(session.run)
        for sample in range(session.run.samples):
            statistics.add(chains.sample(plan, sample=sample, window=window))
        ensemble = ENSEMBLE_WEIGHT * statistics.mean + (1 - ENSEMBLE_WEIGHT) * stage1.pre
        return clamped(ensemble, scribbles), statistics.mutual_information

    def _first_stage(self, box: Box, scribbles: Tensor, progress: Progress) -> Stage1:
        """Features of a box, and the start of its samples after the one-hot `scribbles` (classes, z, y, x)."""
        prediction, whole, tile = self.session.prediction, _box_of(self.session), self.model.tile
        image = padded(self.session.image[whole][None], tile=tile, value=-1.0)[0][box]
        coordinates = padded(prediction.coordinates_mm[(slice(None), *whole)], tile=tile, value=0.0)
        local = first_stage(image, coordinates[(slice(None), *box)], self.model, progress=progress)
        start = padded(prediction.start, tile=tile, value=0.0)[(slice(None), *box)].float()
        if self.propagate:
            return replace(local, pre=spread(start, scribbles, _descriptors(local, image, tile)))
        return replace(local, pre=clamped(start, scribbles))


def _same_label_less_confident(before: Tensor, after: Tensor) -> Tensor:
    """Mask (z, y, x) of voxels whose label is the same as before, and less probable.

    `spread` moves some probability far beyond the voxels whose label it changes; that is no reason for less confidence
    in labels that stay, and would make the whole organ around a correction uncertain.
    """
    old, new = before.max(dim=0), after.max(dim=0)
    return (old.indices == new.indices) & (old.values > new.values)


def _neighbourhoods(new: Tensor, tiled_shape: Sides, tile: TileShape) -> Iterator[tuple[Box, Tensor]]:
    """Boxes of at least a tile around the connected reaches of new scribbles, and the weight 0..1 of new maps there."""
    whole = torch.zeros(tiled_shape, dtype=torch.bool)
    z, y, x = new.shape
    whole[:z, :y, :x] = new
    components, _ = ndimage.label(reach(whole, tile.stride).numpy())
    for number, component_box in enumerate(ndimage.find_objects(components), start=1):
        box = _enlarged(component_box, tiled_shape, tile)
        component = torch.from_numpy(components[box] == number)
        yield box, fading(whole[box] & component, tile.stride) * component


def _enlarged(box: tuple[slice, ...], shape: Sides, tile: TileShape) -> Box:
    """The box with sides of at least a tile, inside the volume, of whole voxels of the trunk's grid."""
    sides = []
    for s, n, step, side in zip(box, shape, tile.stride, tile.voxels, strict=True):
        start, stop = s.start // step * step, -(-s.stop // step) * step
        length = max(side, stop - start)
        low = min(max(0, start - (length - (stop - start)) // 2 // step * step), n - length)
        sides.append(slice(low, low + length))
    return sides[0], sides[1], sides[2]


def _descriptors(stage1: Stage1, image: Tensor, tile: TileShape) -> Descriptors:
    """The two finest feature levels of a box, and its image if the trunk's grid is coarser than the model's."""
    tiles = [fine_features(levels).cpu() for levels in stage1.features]
    features = on_trunk(stage1.tiling, tile).blend(lambda n, _: tiles[n], channels=tiles[0].shape[0])
    return Descriptors(features, image if tile.stride != (1, 1, 1) else None, tile.stride)


def _differing(before: EnsembleMaps, after: EnsembleMaps) -> Tensor:
    """Mask (z, y, x) of voxels whose probabilities differ."""
    return (before.ensemble != after.ensemble).any(dim=0)


def _native_box_of_changes(
    scribbles: NDArray[np.uint8], changed: Tensor, offset: tuple[int, int, int], grid: Grid
) -> Box:
    """Box of the canonical native voxels that are scribbled, or whose interpolation depends on a changed grid voxel."""
    voxels = np.argwhere(scribbles > 0)
    low, high = voxels.min(axis=0), voxels.max(axis=0) + 1
    if bool(changed.any()):
        box = native_box(changed, offset, grid)
        low = np.minimum(low, [s.start for s in box])
        high = np.maximum(high, [s.stop for s in box])
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return z, y, x


def _restored(
    corrections: Corrections, before: EnsembleMaps, session: Session, changed: Tensor, model: Model
) -> Correction:
    """The corrected labels in the scan's geometry.

    A voxel changes where the model's own label changed; otherwise the current segmentation stays.
    """
    grid, offset = session.grid, session.prediction.offset
    old, new = (keep_organs(maps.ensemble, session.wanted) for maps in (before, session.maps))
    native = _native_box_of_changes(grid.order.apply(corrections.scribbles), changed, offset, grid)
    inside = grid.order.apply(restore_nearest(changed.byte().numpy(), offset, grid))[native] > 0
    labels = _corrected_labels(corrections, inside, (old, new), native, session)
    box = in_native_box(native, grid)
    whole = np.array(corrections.labels)
    changed_voxels = int(np.count_nonzero(whole[box] != grid.order.undo(labels)))
    whole[box] = grid.order.undo(labels)
    review = review_list(new.numpy(), grid, offset, model.description, given_weight=session.given_weight)
    report = build_report(
        labels=whole, prediction=new.numpy(), review=review, session=session, model=model, seconds=session.seconds
    )
    return Correction(
        box=box,
        canonical_box=native,
        labels=np.ascontiguousarray(grid.order.undo(labels)),
        regions=restore_nearest(review.numbers, offset, grid),
        report=report,
        changed_voxels=changed_voxels,
    )


def _corrected_labels(
    corrections: Corrections, inside: NDArray[np.bool_], maps: tuple[Tensor, Tensor], native: Box, session: Session
) -> NDArray[np.uint8]:
    """Labels at the canonical native voxels of a box; `maps` are the probabilities before and after the correction."""
    grid, offset = session.grid, session.prediction.offset
    old, new = (interpolated(p, offset, grid, native).argmax(dim=0).byte().numpy() for p in maps)
    current, scribbles = (grid.order.apply(m)[native] for m in (corrections.labels, corrections.scribbles))
    locked = np.isin(current, corrections.locked) | np.isin(new, corrections.locked)
    if session.reviewed is not None:
        # Other structures than the model's labels.
        locked |= grid.order.apply(session.reviewed)[native] >= len(maps[0])
    labels = np.where(inside & (old != new) & ~locked, new, current)
    return np.where(scribbles > 0, scribbles - 1, labels).astype(np.uint8)
