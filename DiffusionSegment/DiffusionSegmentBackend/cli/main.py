"""The command line: `diffusion-segment segment | evaluate | features | train | ... | worker`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from ..errors import DiffusionSegmentError, ErrorCode, missing_package, one_line, out_of_memory
from ..process.environment import prepare_environment
from ..process.logs import configure_logging
from ..process.standard_streams import reserve_descriptors, tolerant_streams
from .cohort import add_cohort_command
from .command_parser import PROGRAM, examples, new_parser
from .correct import add_correct_command
from .dicom_node import add_dicom_node_command
from .evaluate import add_evaluation_commands
from .features import add_features_command
from .fine_tune import add_fine_tuning_commands
from .installation import add_installation_commands
from .report import add_reporting_commands
from .review import add_review_command
from .segment import add_segment_command
from .serve import add_service_commands
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
            return _report_error(error).exit_status


def _run(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    options = parser.parse_args(arguments)
    configure_logging(show=options.verbose, verbose=options.verbose)
    prepare_environment()
    if options.threads:
        os.environ["OMP_NUM_THREADS"] = str(options.threads)
    return options.run(options) or 0


def _report_error(error: BaseException, source: str = "") -> DiffusionSegmentError:
    """Print an error in one line with what to do about it on the command line, and return it as known error.

    One of several inputs, `source`, is named before it.
    """
    failure = _as_known_error(error)
    parts = [f"{one_line(source)}:" if source else "", str(failure), _MORE_HINTS.get(failure.code, "")]
    print(" ".join(part for part in parts if part), file=sys.stderr)
    return failure


def _as_known_error(error: BaseException) -> DiffusionSegmentError:
    if isinstance(error, DiffusionSegmentError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return DiffusionSegmentError(ErrorCode.CANCELLED, "Stopped by the user.", hint="Nothing was changed.")
    if isinstance(error, MemoryError):
        return out_of_memory()
    if isinstance(error, ModuleNotFoundError):
        return missing_package(error)
    _log.error("unexpected error", exc_info=error)
    what = f"An unexpected error occurred ({type(error).__name__})."
    return DiffusionSegmentError(ErrorCode.INTERNAL, what, hint=_VERBOSE_HINT)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the program with all its commands; `run` of what it parses is the command's function."""
    parser, commands = new_parser(
        PROGRAM,
        "Segment CT and MR with diffusion models, and list the regions to review.",
        epilog=examples("segment ct.nii.gz -o result", "segment --help"),
    )
    add_segment_command(commands, _report_error)
    add_review_command(commands)
    add_correct_command(commands)
    add_cohort_command(commands)
    add_evaluation_commands(commands)
    add_features_command(commands)
    add_training_commands(commands)
    add_fine_tuning_commands(commands)
    add_reporting_commands(commands)
    add_dicom_node_command(commands)
    add_installation_commands(commands)
    add_service_commands(commands)
    return parser
