"""The command line of `diffusion-segment correct`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..commands.progress_display import ProgressBar, add_progress_option
from ..commands.result_folder import recorded_passes
from ..commands.run_estimate import CORRECT_STAGES
from ..imaging.output_folder import check_replaceable
from ..schema.output_kinds import RESULT
from .command_parser import examples, organ_names
from .extra_options import add_extra_options
from .run_options import add_device_option, add_overwrite_option
from .series_option import add_series_option


def add_correct_command(commands: Any) -> None:
    """Add the command to the subparsers of `diffusion-segment`."""
    parser = commands.add_parser(
        "correct",
        help="apply a reader's marks to a result",
        description="Apply a reader's marks to a result. The case runs again, which takes about as long as `segment` "
        "took, unless the result was written with --keep-session.",
        epilog=examples('correct result --corrections marks.nii.gz -o corrected --lock "Liver, Left kidney"'),
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="a folder that `segment` or `correct` wrote")
    marks_help = "the marks: 0 not marked, 1 background, k + 1 label k"
    parser.add_argument("--corrections", type=Path, required=True, metavar="LABELMAP", help=marks_help)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR2", help="folder of the new result")
    add_overwrite_option(parser)
    parser.add_argument("--scan", type=Path, metavar="INPUT", help="the scan (default: the one that report.json names)")
    add_series_option(parser)
    parser.add_argument(
        "--lock",
        type=organ_names,
        default=(),
        metavar="NAMES",
        help="locked organs, separated by commas: only a mark changes them",
    )
    add_extra_options(parser)
    add_device_option(parser)
    add_progress_option(parser)
    parser.set_defaults(run=_run_correct)


def _run_correct(options: argparse.Namespace) -> None:
    check_replaceable(options.output, RESULT, overwrite=options.overwrite)
    with ProgressBar(CORRECT_STAGES, quiet=options.quiet, lines=options.verbose) as bar:
        bar.expect_passes(recorded_passes(options.folder))
        bar("start", 0, 1)
        from ..commands.correct import CorrectOptions, correct_folder
        from ..commands.result_extras import extras_of
        from ..commands.summary import summarise

        report = correct_folder(
            options.folder,
            options.corrections,
            options.output,
            CorrectOptions(
                scan=options.scan,
                series=options.series,
                locked=options.lock,
                device=options.device,
                extras=extras_of(options),
            ),
            progress=bar,
            timings=bar.timings,
            notify=bar.say,
        )
    summarise(report, options.output)
