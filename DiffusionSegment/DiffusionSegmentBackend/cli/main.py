"""The command line: `diffusion-segment segment | evaluate | features | train | ... | worker`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..commands.progress_display import ProgressBar, add_progress_option
from ..commands.result_folder import recorded_passes
from ..commands.run_estimate import CORRECT_STAGES, FEATURE_STAGES
from ..errors import DiffusionSegmentError, ErrorCode, missing_package, one_line
from ..imaging.output_folder import check_replaceable
from ..process.environment import prepare_environment
from ..process.logs import configure_logging
from ..process.standard_streams import reserve_descriptors, tolerant_streams
from ..schema.output_kinds import FEATURES, RESULT
from ..schema.run_options import DEFAULT_MODEL
from .command_parser import PROGRAM, examples, new_parser, organ_names
from .evaluate import add_evaluation_commands
from .extra_options import add_extra_options
from .fine_tune import add_teaching_commands
from .report import add_reporting_commands
from .run_options import add_device_option, add_overwrite_option, check_input
from .segment import add_segment_command
from .series_option import add_series_option
from .train import add_training_commands

_FORCE_HINT = "To go on anyway, run again with --force."
_MORE_HINTS = dict.fromkeys(
    (ErrorCode.MODALITY, ErrorCode.BODY_PART_MISMATCH, ErrorCode.UNUSUAL_APPEARANCE), _FORCE_HINT
)
_VERBOSE_HINT = "Run again with --verbose, and report what it prints."

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; errors are one line on stderr and the exit status of their code."""
    return run_program(build_parser(), arguments)


def run_program(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    """Run the command that `parser`, one of `new_parser`, finds in the arguments (default: of the process)."""
    reserve_descriptors()
    with tolerant_streams():
        try:
            return _run(parser, arguments)
        except (Exception, KeyboardInterrupt) as error:
            return _tell(error).exit_status


def _run(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    options = parser.parse_args(arguments)
    configure_logging(show=options.verbose, verbose=options.verbose)
    prepare_environment()
    if options.threads:
        os.environ["OMP_NUM_THREADS"] = str(options.threads)
    return options.run(options) or 0


def _tell(error: BaseException, source: str = "") -> DiffusionSegmentError:
    """Tell an error in a line, with what the command line in particular can do about it; the error in words.

    One of several inputs, `source`, is named before it.
    """
    failure = _in_words(error)
    parts = [f"{one_line(source)}:" if source else "", str(failure), _MORE_HINTS.get(failure.code, "")]
    print(" ".join(part for part in parts if part), file=sys.stderr)
    return failure


def _in_words(error: BaseException) -> DiffusionSegmentError:
    if isinstance(error, DiffusionSegmentError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return DiffusionSegmentError(ErrorCode.CANCELLED, "Stopped by the user.", hint="Nothing was changed.")
    if isinstance(error, MemoryError):
        hint = "Close programs, or crop the scan."
        return DiffusionSegmentError(ErrorCode.OUT_OF_MEMORY, "There is too little memory.", hint=hint)
    if isinstance(error, ModuleNotFoundError):
        return missing_package(error)
    _log.error("unforeseen", exc_info=error)
    what = f"An unexpected error occurred ({type(error).__name__})."
    return DiffusionSegmentError(ErrorCode.INTERNAL, what, hint=_VERBOSE_HINT)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the program with all its commands; `run` of what it parses is the command's function."""
    parser, commands = new_parser(
        PROGRAM,
        "Segment CT and MR with diffusion models, and list the regions to review.",
        epilog=examples("segment ct.nii.gz -o result", "segment --help"),
    )
    add_segment_command(commands, _tell)
    _add_correct(commands)
    add_evaluation_commands(commands)
    _add_features(commands)
    add_training_commands(commands)
    add_teaching_commands(commands)
    add_reporting_commands(commands)
    models = commands.add_parser("models", help="list the installed models", epilog=examples("models"))
    models.set_defaults(run=_run_models)
    check = commands.add_parser(
        "check", help="check the installation: torch, devices, weights", epilog=examples("check")
    )
    check.set_defaults(run=_run_check)
    _add_phantom(commands)
    worker = commands.add_parser(
        "worker",
        help="serve requests as JSON lines on standard input and output",
        epilog=examples("worker --idle-seconds 1800"),
    )
    worker.add_argument(
        "--idle-seconds", type=float, metavar="S", help="exit after so many seconds without a run (default: never)"
    )
    worker.set_defaults(run=_run_worker)
    return parser


def _add_phantom(commands: Any) -> None:
    parser = commands.add_parser(
        "phantom", help="write a synthetic abdomen CT and its labels", epilog=examples("phantom -o phantom --seed 1")
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the two files")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives another body (default: %(default)s)")
    add_overwrite_option(parser)
    parser.set_defaults(run=_run_phantom)


def _add_correct(commands: Any) -> None:
    parser = commands.add_parser(
        "correct",
        help="apply a reader's marks to a result",
        description="Apply a reader's marks to a result. The case runs again, which takes about as long as `segment` "
        "took, unless the result was written with --keep-session.",
        epilog=examples('correct result --corrections marks.nii.gz -o corrected --lock "Liver, Left kidney"'),
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="a folder that `segment` or `correct` wrote")
    marks = "the marks: 0 not marked, 1 background, k + 1 label k"
    parser.add_argument("--corrections", type=Path, required=True, metavar="LABELMAP", help=marks)
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


def _add_features(commands: Any) -> None:
    parser = commands.add_parser(
        "features",
        help="write the backbone's dense features of one scan",
        epilog=examples("features ct.nii.gz -o features", "features ct.nii.gz -o noisy --t 100"),
    )
    parser.add_argument("input", metavar="INPUT", help="DICOM folder or file, NIfTI, NRRD or MHA")
    add_series_option(parser)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder of features.npz and features.json"
    )
    add_overwrite_option(parser)
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name or folder (default: %(default)s)")
    parser.add_argument(
        "--t", type=int, metavar="T", help="read features of x_t at this step of 1000 (default: the clean scan)"
    )
    add_device_option(parser)
    add_progress_option(parser)
    parser.set_defaults(run=_run_features)


def _run_correct(options: argparse.Namespace) -> None:
    check_replaceable(options.output, RESULT, overwrite=options.overwrite)
    with ProgressBar(CORRECT_STAGES, quiet=options.quiet, lines=options.verbose) as bar:
        bar.expect_passes(recorded_passes(options.folder))
        bar("start", 0, 1)
        from ..commands.correct import correct_folder
        from ..commands.result_extras import extras_of
        from ..commands.segment import summarise

        report = correct_folder(
            options.folder,
            options.corrections,
            options.output,
            scan=options.scan,
            series=options.series,
            locked=options.lock,
            device=options.device,
            extras=extras_of(options),
            progress=bar,
            timings=bar.timings,
            say=bar.say,
        )
    summarise(report, options.output)


def _run_features(options: argparse.Namespace) -> None:
    check_input(options.input)
    check_replaceable(options.output, FEATURES, overwrite=options.overwrite)
    with ProgressBar(FEATURE_STAGES, quiet=options.quiet, lines=options.verbose) as bar:
        bar("start", 0, 1)
        from ..commands.features import write_features_of

        lines = write_features_of(
            options.input,
            options.output,
            model_name=options.model,
            timestep=options.t,
            device=options.device,
            series=options.series,
            progress=bar,
        )
    print("\n".join(lines))


def _run_models(_: argparse.Namespace) -> None:
    from ..models.foreign_model import why_unusable
    from ..models.manifest import find_model, list_models, read_description

    for name in list_models():
        problem = why_unusable(find_model(name))
        if problem is None:
            description = read_description(find_model(name))
            print(f"{name}\t{description.version}\t{description.title}\t{len(description.labels)} organs")
        else:
            print(f"{name}\t-\t{one_line(f'cannot be used: {problem}')}")


def _run_check(_: argparse.Namespace) -> None:
    from ..commands.segment import check_installation

    print(json.dumps(check_installation(), indent=2))


def _run_phantom(options: argparse.Namespace) -> None:
    from ..commands.segment import write_phantom

    write_phantom(options.output, seed=options.seed, overwrite=options.overwrite)


def _run_worker(options: argparse.Namespace) -> None:
    from ..worker.server import main as serve

    serve(idle_seconds=options.idle_seconds, verbose=options.verbose)
