"""`diffusion-segment-research benchmark`: our segmentations and the tiles of baselines, written after each scan."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from DiffusionSegmentBackend import __version__
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.atomic_writes import check_writable
from DiffusionSegmentBackend.models.manifest import ModelDescription, find_model, read_description
from DiffusionSegmentBackend.models.model import Model, choose_device, load_model

from ..studies.result_file import hardware
from .baselines import Baseline, TileTimes, baseline_row, check_packages, default_baselines, diffusion_rows, timed_tiles
from .ours import Click, our_rows, start_seconds
from .record import Benchmark, BenchmarkRow, check_same_setup, joined, read_benchmark, write_benchmark
from .scans import IN_PLANE, benchmark_scan

SLICES = (100, 300, 800)
CONFIGURATIONS = ("4x2", "1x1", "8x5")

# Writes the rows measured so far; the second argument names what has not been measured yet.
Save = Callable[[list[BenchmarkRow], Sequence[str]], Benchmark]


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """Scans by their number of slices, configurations "KxS", and the number of timed tiles of each baseline."""

    model: str
    device: str = "auto"
    slices: tuple[int, ...] = SLICES
    in_plane: int = IN_PLANE
    configurations: tuple[str, ...] = CONFIGURATIONS
    timed_tiles: int = 3
    baselines: bool = True
    seed: int = 0
    add: bool = False


def run_benchmark(
    output: Path,
    options: BenchmarkOptions,
    *,
    baselines: Sequence[Baseline] | None = None,
    log: Callable[[str], None] = print,
) -> Benchmark:
    """Measure, and write `output` again after each scan, so that an interrupted run keeps its rows.

    `answer` and `ideas`, which are written by hand into an earlier file of this name, are kept, and with `add` also its
    rows of other scans and methods. `baselines` replaces the default ones.

    Raises:
        DiffusionSegmentError: OPTION, PACKAGE_MISSING, OUTPUT_UNWRITABLE, and what the pipeline raises.
    """
    pairs = [configuration_of(text) for text in options.configurations]
    if options.timed_tiles < 1 or not pairs or not options.slices:
        raise DiffusionSegmentError(
            ErrorCode.OPTION, "There is nothing to measure.", hint="Give at least one scan, one KxS and one tile."
        )
    check_writable(output.parent)
    earlier = read_benchmark(output) if output.exists() else None
    description = read_description(find_model(options.model))
    if not options.baselines:
        baselines = []
    elif baselines is None:
        check_packages()
        baselines = default_baselines(our_spacing_mm=description.spacing_mm[0])

    empty = _described(output, options, description, earlier)
    if earlier and options.add:
        check_same_setup(earlier, empty)

    def save(rows: list[BenchmarkRow], left: Sequence[str]) -> Benchmark:
        benchmark = replace(empty, rows=list(rows), not_run=[*left, *empty.not_run])
        if earlier and options.add:
            benchmark = joined(earlier, benchmark)
        write_benchmark(output, benchmark)
        log(f"{len(benchmark.rows)} rows written to {output}.")
        return benchmark

    return _measured(options, pairs, baselines, save, classes=description.classes)


def _described(
    output: Path, options: BenchmarkOptions, description: ModelDescription, earlier: Benchmark | None
) -> Benchmark:
    """The benchmark without rows: its provenance."""
    return Benchmark(
        command=_command(output, options),
        software=f"DiffusionSegment {__version__}",
        model=f"{description.name} {description.version}",
        hardware=hardware(),
        threads=torch.get_num_threads(),
        seed=options.seed,
        not_run=[f"{n} slices" for n in SLICES if n not in options.slices],
        rows=[],
        answer=earlier.answer if earlier else "",
        ideas=earlier.ideas if earlier else [],
    )


def _measured(
    options: BenchmarkOptions,
    pairs: Sequence[tuple[int, int]],
    baselines: Sequence[Baseline],
    save: Save,
    *,
    classes: int,
) -> Benchmark:
    """Our runs on the first scan, the time of the baselines' tiles, which holds for all scans, then the other scans."""
    started_s = start_seconds()
    tiles: TileTimes = {}
    rows: list[BenchmarkRow] = []
    for done, slices in enumerate(options.slices, start=1):
        left = [f"{n} slices" for n in options.slices[done:]]
        ours, click = _scan_rows(slices, pairs, options, started_s)
        rows += ours
        kept = save(rows, left if tiles else [*left, "other networks"])
        if baselines and not tiles:
            tiles = timed_tiles(baselines, choose_device(options.device), classes=classes, repeats=options.timed_tiles)
        z, y, x = (n * ours[0].spacing_mm for n in click.body_shape)
        for baseline in baselines:
            rows.append(
                baseline_row(baseline, tiles[baseline.build, baseline.side], scan=ours[0].scan, body_mm=(z, y, x))
            )
        if baselines:
            kept = save(rows, left)
    return kept


def _scan_rows(
    slices: int, pairs: Sequence[tuple[int, int]], options: BenchmarkOptions, started_s: float
) -> tuple[list[BenchmarkRow], Click]:
    """Our rows on one scan, and the extrapolated ones of other reverse processes."""

    def load() -> Model:
        return load_model(options.model, options.device)

    volume = benchmark_scan(slices, seed=options.seed, in_plane=options.in_plane)
    ours, click = our_rows(volume, load, pairs, seed=options.seed, start_s=started_s)
    # Without a refiner there is no network evaluation to extrapolate from.
    refined = ours[0].tiles > len(click.tiling.tiles)
    return [*ours, *(diffusion_rows(ours[0], click) if refined else [])], click


def configuration_of(text: str) -> tuple[int, int]:
    """ "4x2" as (K, S) = (4, 2).

    Raises:
        DiffusionSegmentError: OPTION for anything else.
    """
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"'{text}' is not KxS.", hint="Write 4x2 for 4 samples of 2 steps."
        )
    return int(match[1]), int(match[2])


def _command(output: Path, options: BenchmarkOptions) -> str:
    words = ["diffusion-segment-research", "--threads", str(torch.get_num_threads()), "benchmark", "-o", str(output)]
    words += ["--model", options.model, "--device", options.device]
    words += ["--slices", *map(str, options.slices), "--in-plane", str(options.in_plane)]
    words += ["--configurations", *options.configurations]
    words += ["--tiles", str(options.timed_tiles), "--seed", str(options.seed)]
    words += [] if options.baselines else ["--no-baselines"]
    return shlex.join([*words, "--add"] if options.add else words)
