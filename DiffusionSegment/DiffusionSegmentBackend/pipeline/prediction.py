"""All networks on a scan that lies on the model's grid; in parts along the body where memory is short."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from ..models.model import Model
from ..models.tile_shape import TileShape
from .checks import heeded, judge_body_part, judge_organs, organ_measures, share_in_reach
from .features import Stage1, body_box, body_coordinates, first_stage, padded
from .islands import sink_islands
from .parts import Part, parts_of
from .progress import Progress, counted, part_of, silent
from .refinement import TileChains
from .region import Box, box_for, confined, confined_prediction
from .sampling import SamplingPlan, Window
from .session import ENSEMBLE_WEIGHT, Prediction, Stopwatch
from .uncertainty import SampleStatistics


@dataclass
class _Run:
    """The volume of tiles and what runs on it, part by part; of a single part the features are kept."""

    image: Tensor
    coordinates_mm: Tensor
    model: Model
    parts: list[Part]
    progress: Progress
    _only: Stage1 | None = field(default=None)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the volume of tiles."""
        return self.image.shape[0], self.image.shape[1], self.image.shape[2]

    def stage(self, index: int) -> Stage1:
        """Features and pre-segmentation of one part."""
        if self._only is not None:
            return self._only
        seen = self.parts[index].seen
        found = first_stage(
            self.image[seen],
            self.coordinates_mm[:, seen],
            self.model,
            progress=part_of(self.progress, index, len(self.parts)),
            keep_features=self.model.refiner is not None,
        )
        self._only = found if len(self.parts) == 1 else None
        return found

    def empty(self, channels: int) -> Tensor:
        """Room for a map; in parts, that is for want of memory, in half precision."""
        return torch.empty((channels, *self.shape), dtype=torch.float16 if len(self.parts) > 1 else torch.float32)

    def pre(self) -> Tensor:
        """Pre-segmentation of the whole."""
        if len(self.parts) == 1:
            return self.stage(0).pre
        whole = self.empty(self.model.description.classes)
        for index, part in enumerate(self.parts):
            whole[:, part.core] = self.stage(index).pre[:, _within(part)]
        return whole

    def refined(self, start: Tensor, plan: SamplingPlan, samples: int) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Mean of the samples, their mutual information, and their label maps, all of the whole."""
        mean, information = self.empty(self.model.description.classes), self.empty(1)[0]
        labels: list[Tensor] = []
        for index, part in enumerate(self.parts):
            local = replace(self.stage(index), pre=start[:, part.seen].float())
            place = (part.seen, *(slice(0, n) for n in self.shape[1:]))
            tell = part_of(self.progress, index, len(self.parts))
            window = Window(self.shape, (place[0], place[1], place[2]))
            found = refine(local, self.model, plan, samples=samples, window=window, progress=tell)
            own = _within(part)
            if len(self.parts) == 1:
                return found.mean, found.mutual_information, found.sample_labels
            mean[:, part.core], information[part.core] = found.mean[:, own], found.mutual_information[own]
            labels = labels or [torch.empty(self.shape, dtype=torch.uint8) for _ in found.sample_labels]
            for whole, one in zip(labels, found.sample_labels, strict=True):
                whole[part.core] = one[own]
        return mean, information, labels


def _within(part: Part) -> slice:
    """The core among the slices that the part sees."""
    return slice(part.core.start - part.seen.start, part.core.stop - part.seen.start)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the networks are asked of an `image` (z, y, x) in -1..1 on the model's grid.

    The networks see a `tile` at once. Samples start from labels `given` (z, y, x), if any. Outside the `region` (z, y,
    x) all is background. `show` gets the pre-segmentation (classes, z, y, x) and the voxel where it begins, before the
    samples are drawn. Islands are taken out of both that and the ensemble, unless `islands`.
    """

    image: Tensor
    plan: SamplingPlan
    samples: int
    tile: TileShape
    force: bool = False
    islands: bool = False
    given: Tensor | None = None
    region: Tensor | None = None
    show: Callable[[Tensor, tuple[int, int, int]], None] | None = None

    @cached_property
    def box(self) -> Box:
        """Where the networks look (z, y, x)."""
        body = body_box(self.image, least=self.tile.voxels)
        return body if self.region is None else box_for(self.region, body, tile=self.tile)


def predict(
    job: Job, model: Model, *, watch: Stopwatch, progress: Progress = silent, most_slices: int | None = None
) -> Prediction:
    """All networks on a scan. No more than `most_slices` at once; in parts, maps are kept in half precision.

    Raises:
        DiffusionSegmentError: BODY_PART_MISMATCH for another part of the body, UNUSUAL_APPEARANCE for the right one in
            which the organs are not recognised, unless forced.
    """
    box, region = job.box, job.region
    with watch.stage("bodypart"):
        progress("bodypart", 0, 1)
        coordinates_mm = body_coordinates(job.image, model)
    share = share_in_reach(coordinates_mm, job.image, model.description.anatomy.body_z_mm)
    warnings = heeded(judge_body_part(share, model.description), force=job.force)
    run = _run(job.image, coordinates_mm, box, model, most_slices, progress)
    crop = (slice(None), *(slice(0, s.stop - s.start) for s in box))
    offset = (box[0].start, box[1].start, box[2].start)
    with watch.stage("features"):
        whole = run.pre()
    if region is None:
        measured = organ_measures(whole[crop], model.description)
        warnings += heeded(judge_organs(measured, model.description, share=share), force=job.force)
    smallest_piece = 0.0 if job.islands else model.description.defaults.smallest_piece
    if job.show is not None:
        seen = whole[crop].clone()
        sink_islands(seen, smallest_piece=smallest_piece)
        job.show(seen if region is None else confined(seen, region[box]), offset)
    start = whole if job.given is None else _one_hot(job.given[box], run.shape, model.description.classes)
    with watch.stage("refine"):
        mean, information, labels = run.refined(start, job.plan, job.samples)
        ensemble = ENSEMBLE_WEIGHT * mean[crop] + (1 - ENSEMBLE_WEIGHT) * whole[crop]
        islands = torch.from_numpy(sink_islands(ensemble, smallest_piece=smallest_piece))
    prediction = Prediction(
        pre=whole[crop],
        start=start[crop],
        ensemble=ensemble,
        islands=islands,
        mutual_information=information[crop[1:]],
        sample_labels=tuple(one[crop[1:]] for one in labels),
        coordinates_mm=coordinates_mm,
        offset=offset,
        tiled_shape=run.shape,
        warnings=tuple(warnings),
    )
    return prediction if region is None else confined_prediction(prediction, region[box])


def _run(
    image: Tensor, coordinates_mm: Tensor, box: Box, model: Model, most_slices: int | None, progress: Progress
) -> _Run:
    """The box as a volume of tiles."""
    tile = model.tile
    tile_image = padded(image[box][None], tile=tile, value=-1.0)[0]
    tile_coordinates = padded(coordinates_mm[(slice(None), *box)], tile=tile, value=0.0)
    parts = parts_of(tile_image.shape[0], most_slices, tile)
    return _Run(tile_image, tile_coordinates, model, parts, progress)


def _one_hot(labels: Tensor, shape: tuple[int, int, int], classes: int) -> Tensor:
    """Labels (z, y, x) as probabilities (classes, z, y, x) of the tiles' volume; what was padded is background."""
    whole = torch.zeros(shape, dtype=torch.long)
    z, y, x = labels.shape
    whole[:z, :y, :x] = labels.long()
    return torch.nn.functional.one_hot(whole, classes).movedim(-1, 0).float()


def refine(
    stage1: Stage1,
    model: Model,
    plan: SamplingPlan,
    *,
    samples: int,
    window: Window | None = None,
    progress: Progress = silent,
) -> SampleStatistics:
    """K samples of S steps each from the noised pre-segmentation, all on the same features.

    What is only a `window` of a larger volume meets the noise that the whole met there. Without a refiner the
    pre-segmentation itself counts as the only sample: the ensemble is then the same.
    """
    statistics = SampleStatistics.empty(model.description.classes, stage1.tiling.shape)
    if model.refiner is None:
        statistics.add(stage1.pre)
        return statistics
    total = samples * plan.steps * len(stage1.tiling.tiles)
    tick = counted(progress, "refine", total)
    chains = TileChains(stage1, model.refiner, model.device, model.dtype, tick=tick)
    for sample in range(samples):
        statistics.add(chains.sample(plan, sample=sample, window=window))
    progress("refine", total, total)
    return statistics
