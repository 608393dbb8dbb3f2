"""`diffusion-segment-research study`: one claim measured on labelled scans."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

from DiffusionSegmentBackend.cli.train import add_data_option

from ..studies.registry import STUDIES
from ..studies.study import StudyOptions
from .examples import examples


def add_study_command(commands: Any) -> None:
    """Add the command to the subparsers of `diffusion-segment-research`."""
    listed = "\n".join(f"  {study.name:14}{study.measures}" for study in STUDIES.values())
    calls = examples("study bodypart --data data --models model -o bodypart.json")
    parser = commands.add_parser(
        "study",
        help="measure a claim and write a result file for the evidence page",
        epilog=f"studies:\n{listed}\n\n{calls}",
    )
    parser.add_argument("study", choices=tuple(STUDIES), metavar="STUDY", help="one of the studies listed below")
    add_data_option(parser)
    parser.add_argument(
        "--models", type=Path, nargs="+", required=True, metavar="DIR", help="the model folders to compare"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the result file")
    parser.add_argument(
        "--predictions", type=Path, metavar="DIR", help=_for("predictions", "folder that keeps predictions")
    )
    parser.add_argument(
        "--other",
        type=Path,
        action="append",
        default=[],
        dest="others",
        metavar="PATH",
        help=_for("others", "scans of other body parts"),
    )
    _add_training_arguments(parser)
    _add_case_arguments(parser)
    parser.add_argument(
        "--targets",
        metavar="T,...",
        help=_for("targets", "organs of the model, VALUE=NAME, or NAME:upper for half an organ"),
    )
    parser.set_defaults(run=_run_study)


def _add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the studies that train networks."""
    parser.add_argument(
        "--trainings", type=Path, metavar="DIR", help=_for("trainings", "folder of checkpoints, to resume from")
    )
    parser.add_argument(
        "--fold", type=int, default=1, metavar="N", help=_for("fold", "the held-out fold, 1 to 3 (default: 1)")
    )
    parser.add_argument(
        "--trunk-minutes",
        type=float,
        default=60.0,
        metavar="M",
        help=_for("trunk_minutes", "training time of the trunk (default: 60)"),
    )
    parser.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help=_for("minutes", "time of each training (default: 20 for an arm, 1.5 for a target)"),
    )


def _add_case_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the studies that draw samples case by case."""
    parser.add_argument(
        "--part",
        choices=("validation", "train"),
        default="validation",
        help=_for("part", "part of the data (default: validation)"),
    )
    parser.add_argument(
        "--case",
        action="append",
        default=[],
        dest="cases",
        metavar="NAME",
        help=_for("cases", "a case of the part; may be repeated (default: all)"),
    )
    parser.add_argument(
        "--crop", metavar="Z,Y,X", help=_for("crop", "voxels of a crop around the organs (default: whole scans)")
    )
    parser.add_argument(
        "--measures", type=Path, metavar="DIR", help=_for("measures", "folder of measures by case, to resume from")
    )


def _for(option: str, text: str) -> str:
    """The help of an option, with the studies that read it."""
    return f"{', '.join(study.name for study in STUDIES.values() if option in study.options)}: {text}"


def _run_study(options: argparse.Namespace) -> None:
    chosen = {entry.name: getattr(options, entry.name) for entry in fields(StudyOptions)}
    chosen |= {"others": tuple(options.others), "cases": tuple(options.cases)}
    STUDIES[options.study].run(options.models, options.data, options.output, StudyOptions(**chosen))
