"""`diffusion-segment-research study`: one claim measured on labelled scans."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from DiffusionSegmentBackend.cli.train import add_data_option
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode

from .examples import examples

_MEASURED = ("models", "bodypart", "features", "labels", "recycling", "starts", "uncertainty", "settings")
_STUDIES = (*_MEASURED, "teaching", "corrections", "anatomy", "augmentations", "tiles", "bakeoff", "norms", "step")


def add_study_command(commands: Any) -> None:
    """Add the command to the subparsers of `diffusion-segment-research`."""
    parser = commands.add_parser(
        "study",
        help="measure a claim and write a result file for the evidence page",
        epilog=examples("study bodypart --data data --models model -o bodypart.json"),
    )
    parser.add_argument("study", choices=_STUDIES, help="the claim")
    add_data_option(parser)
    parser.add_argument(
        "--models", type=Path, nargs="+", required=True, metavar="DIR", help="the model folders to compare"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the result file")
    parser.add_argument("--predictions", type=Path, metavar="DIR", help="features, anatomy: keep what was predicted")
    parser.add_argument(
        "--other", type=Path, action="append", default=[], metavar="PATH", help="anatomy: scans of other body parts"
    )
    parser.add_argument(
        "--trainings", type=Path, metavar="DIR", help="labels, bakeoff, norms: keep checkpoints, and go on from them"
    )
    parser.add_argument(
        "--fold", type=int, default=1, metavar="N", help="bakeoff, norms: the fold that is held out (1 to 3)"
    )
    parser.add_argument(
        "--trunk-minutes", type=float, default=60.0, metavar="M", help="bakeoff, norms: minutes of the trunk"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help="bakeoff: of each arm (default: 20); teaching: a target (default: 1.5)",
    )
    parser.add_argument(
        "--targets", metavar="T,...", help="teaching: organs of the model, VALUE=NAME, or NAME:upper for half an organ"
    )
    parser.set_defaults(run=_run_study)


def _run_study(options: argparse.Namespace) -> None:
    if options.study in ("bakeoff", "norms"):
        _run_bakeoff(options)
        return
    if options.study == "step":
        from ..studies.step_profile import write_step_profile

        write_step_profile(options.models[0], options.data, options.output)
        return
    from ..studies.command import run_study

    run_study(
        options.study,
        options.models,
        options.data,
        options.output,
        predictions=options.predictions,
        trainings=options.trainings,
        others=options.other,
        targets=options.targets,
        minutes=options.minutes,
    )


def _run_bakeoff(options: argparse.Namespace) -> None:
    from ..studies.bakeoff_command import BakeoffOptions, run_bakeoff_study

    if options.trainings is None:
        raise DiffusionSegmentError(
            ErrorCode.OPTION, "This study needs a folder for its trainings.", hint="Name one with --trainings."
        )
    run_bakeoff_study(
        options.study,
        options.models[0],
        options.data,
        options.output,
        trainings=options.trainings,
        options=BakeoffOptions(fold=options.fold, trunk_minutes=options.trunk_minutes, minutes=options.minutes or 20.0),
    )
