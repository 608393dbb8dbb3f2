"""The command line of the benchmark: `diffusion-segment benchmark | performance`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_benchmark_commands(commands: Any) -> None:
    """Add the commands to the subparsers of `diffusion-segment`."""
    _add_benchmark(commands)
    _add_performance(commands)


def _add_benchmark(commands: Any) -> None:
    parser = commands.add_parser("benchmark", help="measure what a click costs, beside other networks")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the result file")
    parser.add_argument("--model", default="abdomen-ct", help="name or folder (default: %(default)s)")
    parser.add_argument("--slices", type=int, nargs="+", default=[100, 300, 800], metavar="N", help="sizes of the scan")
    parser.add_argument("--in-plane", type=int, default=512, metavar="N", help="rows and columns of a slice")
    parser.add_argument(
        "--configurations", nargs="+", default=["4x2", "1x1", "8x5"], metavar="KxS", help="the first one clicks first"
    )
    parser.add_argument("--tiles", type=int, default=3, metavar="N", help="tiles of each rival to time")
    parser.add_argument("--no-rivals", action="store_true", help="measure only this program")
    parser.add_argument("--add", action="store_true", help="keep the file's rows of other scans and methods")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.set_defaults(run=_run_benchmark)


def _add_performance(commands: Any) -> None:
    parser = commands.add_parser("performance", help="write the performance page from a benchmark's file")
    parser.add_argument("--results", type=Path, default=Path("docs/results/performance.json"), metavar="FILE")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/PERFORMANCE.md"), metavar="FILE")
    parser.set_defaults(run=_run_performance)


def _run_benchmark(options: argparse.Namespace) -> None:
    from .benchmark.command import BenchmarkOptions, run_benchmark

    run_benchmark(
        options.output,
        BenchmarkOptions(
            model=options.model,
            device=options.device,
            slices=tuple(options.slices),
            in_plane=options.in_plane,
            configurations=tuple(options.configurations),
            timed_tiles=options.tiles,
            rivals=not options.no_rivals,
            seed=options.seed,
            add=options.add,
        ),
    )


def _run_performance(options: argparse.Namespace) -> None:
    from .benchmark.table import write_performance_page

    write_performance_page(options.results, options.output)
