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

from . import __version__
from .benchmark_cli import add_benchmark_commands
from .errors import DiffusionSegmentError, ErrorCode, missing_package
from .extra_options import add_extra_options
from .logs import configure_logging
from .process_environment import prepare_environment
from .reporting_cli import add_reporting_commands
from .series_option import add_series_option
from .standard_streams import reserve_descriptors, tolerant_streams
from .teaching_cli import add_teaching_commands
from .training_cli import add_training_commands

DEFAULT_MODEL = "abdomen-ct"
_FORCE_HINT = "If you are sure, run again with --force."
_MORE_HINTS = {ErrorCode.MODALITY: _FORCE_HINT, ErrorCode.BODY_PART_MISMATCH: _FORCE_HINT}
_VERBOSE_HINT = "Run again with --verbose, and report what it prints."

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; errors are one line on stderr and the exit status of their code."""
    reserve_descriptors()
    with tolerant_streams():
        try:
            _run(arguments)
        except DiffusionSegmentError as error:
            return _told(error)
        except KeyboardInterrupt:
            return _told(
                DiffusionSegmentError(ErrorCode.CANCELLED, "Stopped by the user.", hint="Nothing was changed.")
            )
        except MemoryError:
            hint = "Close programs, or crop the scan."
            return _told(DiffusionSegmentError(ErrorCode.OUT_OF_MEMORY, "There is too little memory.", hint=hint))
        except ModuleNotFoundError as error:
            return _told(missing_package(error))
        except Exception as error:
            _log.exception("unforeseen")
            what = f"Something unforeseen happened ({type(error).__name__})."
            return _told(DiffusionSegmentError(ErrorCode.INTERNAL, what, hint=_VERBOSE_HINT))
    return 0


def _run(arguments: Sequence[str] | None) -> None:
    options = _parser().parse_args(arguments)
    configure_logging(show=options.verbose, verbose=options.verbose)
    prepare_environment()
    if options.threads:
        os.environ["OMP_NUM_THREADS"] = str(options.threads)
    options.run(options)


def _told(error: DiffusionSegmentError) -> int:
    """Tell an error in a line, with what the command line in particular can do about it; its exit status."""
    print(" ".join(part for part in (str(error), _MORE_HINTS.get(error.code, "")) if part), file=sys.stderr)
    return error.exit_status


class _Parser(argparse.ArgumentParser):
    """argparse with errors in the program's own form."""

    def error(self, message: str) -> Any:
        """Tell what is wrong with the arguments in one line."""
        raise DiffusionSegmentError(ErrorCode.OPTION, f"{message}.", hint=f"See `{self.prog} --help`.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="diffusion-segment", description="Segment CT and MR with diffusion models, and say where to look twice."
    )
    parser.add_argument("--version", action="version", version=f"diffusion-segment {__version__}")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: all)")
    parser.add_argument("--verbose", action="store_true", help="print what is done, and libraries' messages, on stderr")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    _add_segment(commands)
    _add_correct(commands)
    _add_evaluate(commands)
    _add_features(commands)
    add_training_commands(commands)
    add_teaching_commands(commands)
    add_reporting_commands(commands)
    add_benchmark_commands(commands)
    models = commands.add_parser("models", help="list the installed models")
    models.set_defaults(run=_run_models)
    check = commands.add_parser("check", help="check the installation: torch, devices, weights")
    check.set_defaults(run=_run_check)
    phantom = commands.add_parser("phantom", help="write a synthetic abdomen CT and its labels")
    phantom.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    phantom.add_argument("--seed", type=int, default=0)
    phantom.set_defaults(run=_run_phantom)
    worker = commands.add_parser("worker", help="serve requests as JSON lines on standard input and output")
    worker.add_argument("--idle-seconds", type=float, metavar="S", help="leave after so long without a run")
    worker.set_defaults(run=_run_worker)
    return parser


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name or folder (default: %(default)s)")
    parser.add_argument("--samples", type=int, help="K, diffusion samples (default: the model's)")
    parser.add_argument("--steps", type=int, help="S, denoising steps a sample (default: the model's)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sampler", choices=("ddim", "ddpm"))
    parser.add_argument("--schedule", choices=("linear", "cosine"))
    parser.add_argument("--abar-start", type=float, metavar="A", help="alpha_bar at the start T', 0 to 1")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--memory-limit", type=float, metavar="GB", help="most memory of the computer to use")


def _add_segment(commands: Any) -> None:
    parser = commands.add_parser("segment", help="segment one scan")
    parser.add_argument("input", metavar="INPUT", help="DICOM folder or file, NIfTI, NRRD or MHA")
    add_series_option(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    _add_run_options(parser)
    parser.add_argument("--organs", help="names, separated by commas (default: all)")
    parser.add_argument("--bodypart", action="store_true", help="also write the body coordinates")
    parser.add_argument(
        "--roi", type=float, nargs=6, metavar="MM", help="region of interest, LPS: X0 X1 Y0 Y1 Z0 Z1 (default: all)"
    )
    parser.add_argument("--presegmentation", type=Path, metavar="FILE", help="label map to start the samples from")
    parser.add_argument("--force", action="store_true", help="run even if the scan looks wrong for the model")
    add_extra_options(parser)
    parser.set_defaults(run=_run_segment)


def _add_correct(commands: Any) -> None:
    parser = commands.add_parser(
        "correct",
        help="apply a reader's marks to a result",
        description="Apply a reader's marks to a result. The case runs again, which takes about as long as `segment` "
        "took, unless the result was written with --keep-session.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="a folder that `segment` or `correct` wrote")
    what = "0 not marked, 1 background, k + 1 label k"
    parser.add_argument("--corrections", type=Path, required=True, metavar="LABELMAP", help=what)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR2")
    parser.add_argument("--scan", type=Path, metavar="INPUT", help="the scan (default: where the report says)")
    add_series_option(parser)
    parser.add_argument("--lock", default="", help="names, separated by commas, that only a mark may change")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    add_extra_options(parser)
    parser.set_defaults(run=_run_correct)


def _add_evaluate(commands: Any) -> None:
    parser = commands.add_parser("evaluate", help="measure a model on labelled scans")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR")
    parser.add_argument("--labels", type=Path, required=True, metavar="DIR")
    parser.add_argument("--part", help="only the cases that splits.json beside the data names so, e.g. validation")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    _add_run_options(parser)
    parser.set_defaults(run=_run_evaluate)


def _add_features(commands: Any) -> None:
    parser = commands.add_parser("features", help="write the backbone's dense features of one scan")
    parser.add_argument("input", metavar="INPUT", help="DICOM folder or file, NIfTI, NRRD or MHA")
    add_series_option(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name or folder (default: %(default)s)")
    parser.add_argument("--t", type=int, help="read features of x_t at this step of 1000 (default: the clean scan)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.set_defaults(run=_run_features)


def _segment_options(options: argparse.Namespace, **more: Any) -> Any:
    from .pipeline.options import SegmentOptions

    return SegmentOptions(
        samples=options.samples,
        steps=options.steps,
        seed=options.seed,
        sampler=options.sampler,
        schedule=options.schedule,
        abar_start=options.abar_start,
        memory_limit_gb=options.memory_limit,
        **more,
    )


def _run_segment(options: argparse.Namespace) -> None:
    from .commands import segment_file
    from .pipeline.region import box_region
    from .result_extras import extras_of

    organs = tuple(name.strip() for name in options.organs.split(",")) if options.organs else None
    segment_file(
        options.input,
        options.output,
        model_name=options.model,
        device=options.device,
        precision=options.precision,
        options=_segment_options(
            options,
            organs=organs,
            bodypart=options.bodypart,
            force=options.force,
            region=box_region(*options.roi) if options.roi else None,
        ),
        presegmentation=options.presegmentation,
        series=options.series,
        extras=extras_of(options),
    )


def _run_correct(options: argparse.Namespace) -> None:
    from .commands import ProgressBar, summarise
    from .correction_files import correct_folder
    from .result_extras import extras_of

    with ProgressBar() as bar:
        report = correct_folder(
            options.folder,
            options.corrections,
            options.output,
            scan=options.scan,
            series=options.series,
            locked=tuple(name.strip() for name in options.lock.split(",") if name.strip()),
            device=options.device,
            extras=extras_of(options),
            progress=bar,
            say=print,
        )
    summarise(report, options.output)


def _run_evaluate(options: argparse.Namespace) -> None:
    from .commands import evaluate_folders

    evaluate_folders(
        options.images,
        options.labels,
        options.output,
        part=options.part,
        model_name=options.model,
        device=options.device,
        precision=options.precision,
        options=_segment_options(options),
    )


def _run_features(options: argparse.Namespace) -> None:
    from .feature_files import write_features_of

    write_features_of(
        options.input,
        options.output,
        model_name=options.model,
        timestep=options.t,
        device=options.device,
        series=options.series,
    )


def _run_models(_: argparse.Namespace) -> None:
    from .pipeline.model import find_model, list_models, read_description

    for name in list_models():
        description = read_description(find_model(name))
        print(f"{name}\t{description.version}\t{description.title}\t{len(description.labels)} organs")


def _run_check(_: argparse.Namespace) -> None:
    from .commands import check_installation

    print(json.dumps(check_installation(), indent=2))


def _run_phantom(options: argparse.Namespace) -> None:
    from .commands import write_phantom

    write_phantom(options.output, seed=options.seed)


def _run_worker(options: argparse.Namespace) -> None:
    from .worker import main as serve

    serve(idle_seconds=options.idle_seconds, verbose=options.verbose)
