"""Time of our own segmentations: a cold run in a new process, warm runs with K samples of S steps each, and a review.

As for Slicer, the maps of uncertainty are left on the model's grid.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.models.model import Model
from DiffusionSegmentBackend.pipeline.options import SegmentOptions
from DiffusionSegmentBackend.pipeline.segment import build_on_grid, open_session
from DiffusionSegmentBackend.pipeline.tiling import Tiling
from numpy.typing import NDArray

from .record import BenchmarkRow
from .timing import Measured, measure

NETWORK_STAGES = ("bodypart", "features", "refine")


@dataclass(frozen=True)
class Click:
    """Measures of one run; its maps but the labels are not kept: they do not count in the memory of the next run.

    Attributes:
        stages_s: seconds by stage.
        preview_s: seconds until the preview was resampled to the scan's geometry.
        body_shape: size (z, y, x) of the box around the body in voxels of the model's grid.
        tiling: the tiles that the networks ran on; they cover at least that box.
        samples: number of samples.
        steps: number of their steps.
        labels: the segmentation (k, j, i).
    """

    stages_s: dict[str, float]
    preview_s: float
    body_shape: tuple[int, int, int]
    tiling: Tiling
    samples: int
    steps: int
    labels: NDArray[np.uint8]


def start_seconds() -> float:
    """Seconds in which a new interpreter imports torch and the pipeline, as a worker does before its first run."""
    code = "import DiffusionSegmentBackend.pipeline.segment"
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).resolve().parents[2], check=True)
    return time.perf_counter() - began


def our_rows(
    volume: Volume,
    load: Callable[[], Model],
    configurations: Sequence[tuple[int, int]],
    *,
    seed: int,
    start_s: float | None = None,
) -> tuple[list[BenchmarkRow], Click]:
    """One row for each (K, S) and one for a review with the defaults, and the last run of a segmentation.

    The time of a cold run is the sum of `start_s` (from `start_seconds`), loading the weights, and a run with the first
    configuration; it is None where `start_s` is None. The scan's body part is not checked.

    Raises:
        DiffusionSegmentError: what `load` or the pipeline raise.
    """
    began = time.perf_counter()
    model = load()
    loaded_s = time.perf_counter() - began
    rows: list[BenchmarkRow] = []
    first_s = None
    clicks = [SegmentOptions(samples=samples, steps=steps, seed=seed, force=True) for samples, steps in configurations]
    if start_s is not None:
        first_s = start_s + loaded_s + _click(volume, model, clicks[0]).seconds
    for options in clicks:
        run = _click(volume, model, options)
        method = f"DiffusionSegment, K = {options.samples}, S = {options.steps}"
        rows.append(_row(method, run, volume, model, first_s if not rows else None))
    review = _click(volume, model, SegmentOptions(seed=seed, force=True, reviewed=run.value.labels))
    return [*rows, _row("DiffusionSegment, review", review, volume, model, None)], run.value


def _click(volume: Volume, model: Model, options: SegmentOptions) -> Measured[Click]:
    def click() -> Click:
        began, previews_s = time.perf_counter(), []
        session = open_session(
            volume,
            model,
            options,
            preview=lambda labels: previews_s.append(time.perf_counter() - began),
            maps_on_grid=True,
        )
        result = build_on_grid(session, model, bodypart=False)
        z, y, x = session.prediction.pre.shape[1:]
        return Click(
            stages_s={name: s for name, s in result.report.timings_s.items() if name != "total"},
            preview_s=previews_s[0],
            body_shape=(z, y, x),
            tiling=Tiling(session.prediction.tiled_shape, model.tile.voxels, step=model.tile.stride),
            samples=session.run.samples,
            steps=session.run.steps,
            labels=result.labels,
        )

    return measure(click, model.device)


def _row(method: str, run: Measured[Click], volume: Volume, model: Model, first_s: float | None) -> BenchmarkRow:
    click = run.value
    passes = len(click.tiling.tiles) * (1 + (click.samples * click.steps if model.refiner is not None else 0))
    slices, rows, columns = volume.array.shape
    return BenchmarkRow(
        method=method,
        scan=(slices, rows, columns),
        spacing_mm=model.description.spacing_mm[0],
        tiles=passes,
        timed=passes,
        network_s=round(sum(click.stages_s.get(name, 0.0) for name in NETWORK_STAGES), 3),
        click_s=round(run.seconds, 3),
        first_click_s=None if first_s is None else round(first_s, 3),
        preview_s=round(click.preview_s, 3),
        stages_s=click.stages_s,
        processor_s=round(run.processor_s, 3),
        host_mb=round(run.host_mb),
        device_mb=None if run.device_mb is None else round(run.device_mb),
        load=run.load,
    )
