"""The command line of the benchmark: `diffusion-segment-research benchmark | performance`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from DiffusionSegmentBackend.cli.run_options import add_device_option

from .examples import examples


def add_benchmark_commands(commands: Any) -> None:
    """Add the commands to the subparsers of `diffusion-segment-research`."""
    _add_benchmark(commands)
    _add_performance(commands)


def _add_benchmark(commands: Any) -> None:
    parser = commands.add_parser(
        "benchmark",
        help="measure time and memory of a segmentation, beside other networks",
        epilog=examples("benchmark -o performance.json --slices 100 300 --configurations 4x2 1x1"),
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the result file")
    parser.add_argument("--model", default="abdomen-ct", help="name or folder (default: %(default)s)")
    parser.add_argument(
        "--slices",
        type=int,
        nargs="+",
        default=[100, 300, 800],
        metavar="N",
        help="sizes of the scan (default: 100 300 800)",
    )
    parser.add_argument(
        "--in-plane", type=int, default=512, metavar="N", help="rows and columns of a slice (default: %(default)s)"
    )
    parser.add_argument(
        "--configurations",
        nargs="+",
        default=["4x2", "1x1", "8x5"],
        metavar="KxS",
        help="samples x steps, the first one for the first click (default: 4x2 1x1 8x5)",
    )
    parser.add_argument(
        "--tiles", type=int, default=3, metavar="N", help="tiles of each baseline to time (default: %(default)s)"
    )
    parser.add_argument("--no-baselines", action="store_true", help="measure only this program")
    parser.add_argument("--add", action="store_true", help="keep the file's rows of other scans and methods")
    parser.add_argument("--seed", type=int, default=0, help="of the phantom and the samples (default: %(default)s)")
    add_device_option(parser)
    parser.set_defaults(run=_run_benchmark)


def _add_performance(commands: Any) -> None:
    parser = commands.add_parser(
        "performance",
        help="write the performance page from a benchmark's file",
        epilog=examples("performance --results performance.json -o PERFORMANCE.md"),
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("docs/results/performance.json"),
        metavar="FILE",
        help="what `benchmark` wrote (default: %(default)s)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("docs/PERFORMANCE.md"),
        metavar="FILE",
        help="the page (default: %(default)s)",
    )
    parser.set_defaults(run=_run_performance)


def _run_benchmark(options: argparse.Namespace) -> None:
    from ..benchmark.command import BenchmarkOptions, run_benchmark

    run_benchmark(
        options.output,
        BenchmarkOptions(
            model=options.model,
            device=options.device,
            slices=tuple(options.slices),
            in_plane=options.in_plane,
            configurations=tuple(options.configurations),
            timed_tiles=options.tiles,
            baselines=not options.no_baselines,
            seed=options.seed,
            add=options.add,
        ),
    )


def _run_performance(options: argparse.Namespace) -> None:
    from ..benchmark.table import write_performance_page

    write_performance_page(options.results, options.output)
