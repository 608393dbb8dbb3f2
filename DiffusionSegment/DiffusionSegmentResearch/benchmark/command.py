"""`diffusion-segment-research benchmark`: our clicks and the rivals' tiles in one run, written after each scan."""

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
from DiffusionSegmentBackend.models.manifest import ModelDescription, read_description
from DiffusionSegmentBackend.models.model import Model, choose_device, find_model, load_model

from ..studies.result_file import hardware
from .ours import Click, our_rows, start_seconds
from .record import Benchmark, BenchmarkRow, check_same_geometry, joined, read_benchmark, write_benchmark
from .rivals import Rival, TileTimes, check_packages, diffusion_rows, rival_row, timed_tiles, usual_rivals
from .scans import IN_PLANE, benchmark_scan

SLICES = (100, 300, 800)
CONFIGURATIONS = ("4x2", "1x1", "8x5")

# Writes the rows measured so far; what is still missing is named.
Keep = Callable[[list[BenchmarkRow], Sequence[str]], Benchmark]


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """What is measured: scans by their number of slices, pairs "KxS", and how many tiles of each rival are timed."""

    model: str
    device: str = "auto"
    slices: tuple[int, ...] = SLICES
    in_plane: int = IN_PLANE
    configurations: tuple[str, ...] = CONFIGURATIONS
    timed_tiles: int = 3
    rivals: bool = True
    seed: int = 0
    add: bool = False


def run_benchmark(
    output: Path,
    options: BenchmarkOptions,
    *,
    rivals: Sequence[Rival] | None = None,
    tell: Callable[[str], None] = print,
) -> Benchmark:
    """Measure, and write `output` anew after each scan, so that a run that is stopped keeps what it measured.

    A person's `answer` and `ideas` in an earlier file of this name are kept, and with `add` its rows of other scans and
    methods. `rivals` replaces the usual ones.

    Raises:
        DiffusionSegmentError: OPTION, PACKAGE_MISSING, OUTPUT_UNWRITABLE, and what the pipeline raises.
    """
    pairs = [configuration_of(text) for text in options.configurations]
    if options.timed_tiles < 1 or not pairs or not options.slices:
        raise DiffusionSegmentError(
            ErrorCode.OPTION, "There is nothing to measure.", hint="Ask for one scan, one KxS and one tile at least."
        )
    check_writable(output.parent)
    earlier = read_benchmark(output) if output.exists() else None
    description = read_description(find_model(options.model))
    against = usual_rivals(our_spacing_mm=description.spacing_mm[0]) if rivals is None else list(rivals)
    if rivals is None and options.rivals:
        check_packages()

    empty = _described(output, options, description, earlier)
    if earlier and options.add:
        check_same_geometry(earlier, empty)

    def keep(rows: list[BenchmarkRow], left: Sequence[str]) -> Benchmark:
        found = replace(empty, rows=list(rows), not_run=[*left, *empty.not_run])
        benchmark = joined(earlier, found) if earlier and options.add else found
        write_benchmark(output, benchmark)
        tell(f"{len(benchmark.rows)} rows written to {output}.")
        return benchmark

    return _measured(options, pairs, against if options.rivals else [], keep, classes=description.classes)


def _described(
    output: Path, options: BenchmarkOptions, description: ModelDescription, earlier: Benchmark | None
) -> Benchmark:
    """What can be said before anything is measured."""
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
    options: BenchmarkOptions, pairs: Sequence[tuple[int, int]], rivals: Sequence[Rival], keep: Keep, *, classes: int
) -> Benchmark:
    """Our clicks on the first scan, the time of the rivals' tiles, which holds for all scans, then the other scans."""
    started_s = start_seconds()
    tiles: TileTimes = {}
    rows: list[BenchmarkRow] = []
    for done, slices in enumerate(options.slices, start=1):
        left = [f"{n} slices" for n in options.slices[done:]]
        ours, click = _scan_rows(slices, pairs, options, started_s)
        rows += ours
        kept = keep(rows, left if tiles else [*left, "other networks"])
        if rivals and not tiles:
            tiles = timed_tiles(rivals, choose_device(options.device), classes=classes, repeats=options.timed_tiles)
        z, y, x = (n * ours[0].spacing_mm for n in click.body_shape)
        for rival in rivals:
            rows.append(rival_row(rival, tiles[rival.build, rival.side], scan=ours[0].scan, body_mm=(z, y, x)))
        if rivals:
            kept = keep(rows, left)
    return kept


def _scan_rows(
    slices: int, pairs: Sequence[tuple[int, int]], options: BenchmarkOptions, started_s: float
) -> tuple[list[BenchmarkRow], Click]:
    """Our rows and those of other chains on one scan."""

    def load() -> Model:
        return load_model(options.model, options.device)

    volume = benchmark_scan(slices, seed=options.seed, in_plane=options.in_plane)
    ours, click = our_rows(volume, load, pairs, seed=options.seed, start_s=started_s)
    # A model without a refiner has no evaluation that other chains could be counted in.
    refined = ours[0].tiles > len(click.tiling.tiles)
    return [*ours, *(diffusion_rows(ours[0], click) if refined else [])], click


def configuration_of(text: str) -> tuple[int, int]:
    """ "4x2" as (K, S) = (4, 2).

    Raises:
        DiffusionSegmentError: OPTION for anything else.
    """
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if found is None:
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"'{text}' is not KxS.", hint="Write 4x2 for 4 samples of 2 steps."
        )
    return int(found[1]), int(found[2])


def _command(output: Path, options: BenchmarkOptions) -> str:
    words = ["diffusion-segment", "--threads", str(torch.get_num_threads()), "benchmark", "-o", str(output)]
    words += ["--model", options.model, "--device", options.device]
    words += ["--slices", *map(str, options.slices), "--in-plane", str(options.in_plane)]
    words += ["--configurations", *options.configurations]
    words += ["--tiles", str(options.timed_tiles), "--seed", str(options.seed)]
    words += [] if options.rivals else ["--no-rivals"]
    return shlex.join([*words, "--add"] if options.add else words)
