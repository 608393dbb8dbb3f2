"""The manifest of a new model: `diffusion-segment train --init NAME --labels labels.csv -o MANIFEST_OR_FOLDER`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import DiffusionSegmentError, ErrorCode
from .namespace import from_namespace


def add_init_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `train --init`."""
    group = parser.add_argument_group("a manifest", "--init writes one to -o (a .json file, or a folder); no --data")
    group.add_argument("--init", metavar="NAME", help="write a manifest for a model of this name, train nothing")
    group.add_argument(
        "--labels", type=Path, metavar="CSV", help="a table with the columns value,name[,code,meaning,side,colour]"
    )
    group.add_argument("--modality", default="CT", metavar="M", help="CT, MR, ... (default: %(default)s)")
    group.add_argument("--title", help="title for display (default: name, modality and number of labels)")
    group.add_argument(
        "--spacing",
        dest="spacing_mm",
        type=_numbers(float, 3),
        metavar="X,Y,Z",
        help="the model's grid in mm (default: 1.5,1.5,3)",
    )
    group.add_argument(
        "--trunk-spacing",
        dest="trunk_spacing_mm",
        type=_numbers(float, 3),
        metavar="X,Y,Z",
        help="grid of the features in mm (default: twice the spacing where it is below 2)",
    )
    group.add_argument(
        "--tile",
        dest="tile_voxels",
        type=_numbers(int, 3),
        metavar="X,Y,Z",
        help="voxels of a tile (default: 48 voxels of the trunk per side)",
    )
    group.add_argument(
        "--channels", type=_numbers(int), metavar="N,...", help="channels per level (default: 32,64,96,128,160)"
    )
    group.add_argument(
        "--window",
        type=_numbers(float, 2),
        metavar="LOW,HIGH",
        help="intensity window (CT: -125,275; else 0.5,99.5)",
    )
    group.add_argument(
        "--window-unit",
        choices=("HU", "value", "percentile"),
        help="unit of --window (CT: HU; else percentile)",
    )


def _numbers(kind: Callable[[str], Any], count: int | None = None) -> Callable[[str], tuple[Any, ...]]:
    """An argparse type for comma-separated numbers, exactly `count` of them if given."""

    def parsed(text: str) -> tuple[Any, ...]:
        values = tuple(kind(part) for part in text.split(","))
        if count is not None and len(values) != count:
            raise ValueError
        return values

    parsed.__name__ = "list of numbers"
    return parsed


def run_init(options: argparse.Namespace) -> None:
    """Write the manifest of `train --init`.

    Raises:
        DiffusionSegmentError: As for `write_manifest`; OPTION without labels.
    """
    from ..training.whole_model.manifest import ManifestOptions, write_manifest

    if options.labels is None:
        raise DiffusionSegmentError(
            ErrorCode.OPTION, "What do the labels mean?", hint="Give --labels labels.csv with the columns value,name."
        )
    if not re.fullmatch("[A-Z]{2}", options.modality):
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"'{options.modality}' is not a DICOM modality, so all scans would be refused.",
            hint="Give --modality CT or --modality MR.",
        )
    path = write_manifest(from_namespace(ManifestOptions, options, name=options.init))
    print(f"Written to {path}. Train with: diffusion-segment train --data DATA --manifest {path} -o MODEL --minutes 60")
