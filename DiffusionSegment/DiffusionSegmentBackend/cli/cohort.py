"""The command line of `diffusion-segment cohort`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..schema.run_options import run_options_of
from .command_parser import examples
from .run_options import add_run_options, check_input

EXECUTORS = ("auto", "ray", "processes")


def add_cohort_command(commands: Any) -> None:
    """Add the command to the subparsers of `diffusion-segment`."""
    parser = commands.add_parser(
        "cohort",
        help="segment many scans, with tables and a page to review them",
        description="Segment all scans below a folder with several workers: a result folder for each scan, tables of "
        "scans, organs and regions, and a page that sorts the scans by need of review.",
        epilog=examples("cohort studies -o cohort", "cohort studies -o cohort --resume", "cohort list.csv -o cohort"),
    )
    parser.add_argument(
        "input", nargs="+", type=Path, metavar="INPUT", help="folder of studies, scan, or manifest (.csv or .jsonl)"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the cohort")
    _add_execution(parser)
    parser.add_argument("--resume", action="store_true", help="go on with the cohort in DIR")
    parser.add_argument("--retry-failed", action="store_true", help="with --resume, try failed scans again")
    parser.add_argument("--dicom-seg", action="store_true", help="also write a DICOM SEG of each DICOM series")
    parser.add_argument(
        "--identifiers", action="store_true", help="state paths, patient IDs and UIDs (default: pseudonyms)"
    )
    parser.add_argument(
        "--pseudonym-key", type=Path, metavar="FILE", help="key of another cohort, for the same pseudonyms"
    )
    add_run_options(parser, without={"region"})
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress on standard error")
    parser.set_defaults(run=_run_cohort)


def _add_execution(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, metavar="N", help="scans at once (default: by processors and memory)")
    parser.add_argument(
        "--gpus-per-worker",
        type=float,
        metavar="F",
        help="share of a graphics card, 0 for the processor (default: a card each, if there is one)",
    )
    parser.add_argument(
        "--executor",
        choices=EXECUTORS,
        default="auto",
        help="what runs the workers; auto: Ray where it is installed (default: %(default)s)",
    )
    parser.add_argument("--address", metavar="RAY", help="Ray cluster, such as 10.0.0.5:6379 (default: this computer)")
    parser.add_argument(
        "--time-limit",
        type=float,
        default=30.0,
        metavar="MIN",
        help="minutes after which an attempt at a scan is ended (default: %(default)g)",
    )


def _run_cohort(options: argparse.Namespace) -> int:
    from ..cohort.executors import executor_starter
    from ..cohort.resources import choose_resources
    from ..cohort.run import CohortOptions, run_cohort
    from ..cohort.worker_process import WorkerSettings

    for path in options.input:
        check_input(path)
    resources = choose_resources(
        workers=options.workers, threads=options.threads, gpus_per_worker=options.gpus_per_worker
    )
    start = executor_starter(options.executor, options.address)
    run = run_options_of(options)
    if options.gpus_per_worker == 0:
        run = replace(run, device="cpu")
    cohort = CohortOptions(
        sources=tuple(options.input),
        output=options.output,
        run=run,
        resources=resources,
        worker=WorkerSettings(threads=resources.threads, verbose=options.verbose),
        time_limit_min=options.time_limit,
        pseudonym_key=options.pseudonym_key,
        dicom_seg=options.dicom_seg,
        identifiers=options.identifiers,
        resume=options.resume,
        retry_failed=options.retry_failed,
        share_memory=options.address is None,
        quiet=options.quiet,
    )
    return run_cohort(cohort, start)
