"""The command line of `diffusion-segment segment`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..commands.progress_display import ProgressBar, add_progress_option
from ..commands.run_estimate import SEGMENT_STAGES
from ..commands.several_inputs import NAMING
from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.atomic_writes import check_writable
from ..imaging.output_folder import check_replaceable
from ..schema.output_kinds import RESULT
from ..schema.run_options import run_options_of
from .command_parser import examples
from .extra_options import add_extra_options
from .run_options import add_overwrite_option, add_run_options, check_input
from .series_option import add_series_option

# Prints an error in one line that begins with the input it is about, and returns it as a DiffusionSegmentError.
ReportError = Callable[[BaseException, str], DiffusionSegmentError]


def add_segment_command(commands: Any, report_error: ReportError) -> None:
    """Add the command to the subparsers of `diffusion-segment`; `report_error` takes the error of each input."""
    parser = commands.add_parser(
        "segment",
        help="segment a scan, or several",
        description="Segment scans: label map, uncertainty, regions to review and report.json in each scan's geometry.",
        epilog=examples(
            "segment ct.nii.gz -o result",
            'segment ct.nii.gz -o kidneys --organs "Left kidney, Right kidney" --roi -120 120 -60 140 -50 200',
            "segment monday/*.nii.gz dicom/patient7 -o results",
        ),
    )
    parser.add_argument("input", nargs="+", metavar="INPUT", help="DICOM folder or file, NIfTI, NRRD or MHA")
    add_series_option(parser)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help=f"folder of the result ({NAMING})"
    )
    add_overwrite_option(parser)
    add_run_options(parser)
    parser.add_argument("--presegmentation", type=Path, metavar="FILE", help="label map to start the samples from")
    add_extra_options(parser)
    add_progress_option(parser)
    parser.set_defaults(run=lambda options: _run_segment(options, report_error))


def _run_segment(options: argparse.Namespace, report_error: ReportError) -> int:
    _check(options)
    with ProgressBar(SEGMENT_STAGES, quiet=options.quiet, lines=options.verbose) as bar:
        bar("start", 0, 1)
        from ..commands.result_extras import extras_of
        from ..commands.segment import RunChoices, segment_file, segment_files

        choices = RunChoices(
            options=run_options_of(options),
            presegmentation=options.presegmentation,
            series=options.series,
            overwrite=options.overwrite,
            extras=extras_of(options),
        )
        if len(options.input) > 1:
            return segment_files(options.input, options.output, choices, bar=bar, report_error=report_error)
        segment_file(options.input[0], options.output, choices, bar=bar)
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuse what is wrong without waiting for PyTorch.

    Raises:
        DiffusionSegmentError: INPUT_MISSING, OUTPUT_UNWRITABLE, DISK_FULL, MODEL_UNKNOWN, WEIGHTS_CORRUPT, OPTION.
    """
    from ..models.manifest import find_model, read_description

    if len(options.input) > 1:
        _check_several(options)
    else:
        check_input(options.input[0])
        check_replaceable(options.output, RESULT, overwrite=options.overwrite)
    description = read_description(find_model(options.model))
    for name in options.organs or ():
        description.label_named(name)


def _check_several(options: argparse.Namespace) -> None:
    if options.presegmentation is not None:
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"One --presegmentation cannot fit {len(options.input)} inputs.",
            hint="Segment them one by one.",
        )
    check_writable(options.output)
