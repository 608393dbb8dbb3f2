"""The command line of new models: `diffusion-segment train --init NAME --labels labels.csv -o MANIFEST_OR_FOLDER`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import DiffusionSegmentError, ErrorCode


def add_init_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a manifest to those of `train`."""
    group = parser.add_argument_group("a manifest", "--init writes one to -o (a .json file, or a folder); no --data")
    group.add_argument("--init", metavar="NAME", help="write a manifest for a model of this name, train nothing")
    group.add_argument(
        "--labels", type=Path, metavar="CSV", help="a table with the columns value,name[,code,meaning,side,colour]"
    )
    group.add_argument("--modality", default="CT", metavar="M", help="CT, MR, ... (default: %(default)s)")
    group.add_argument("--title", help="for people (default: name, modality and number of labels)")
    three = _numbers(float, 3)
    group.add_argument("--spacing", type=three, metavar="X,Y,Z", help="the model's grid in mm (default: 1.5,1.5,3)")
    group.add_argument(
        "--trunk-spacing",
        type=three,
        metavar="X,Y,Z",
        help="grid of the features in mm (default: twice what is below 2)",
    )
    group.add_argument(
        "--tile", type=_numbers(int, 3), metavar="X,Y,Z", help="voxels seen at once (default: 48 of the trunk a side)"
    )
    group.add_argument("--channels", type=_numbers(int), metavar="N,...", help="widths (default: 32,64,96,128,160)")
    group.add_argument(
        "--window", type=_numbers(float, 2), metavar="LOW,HIGH", help="black and white (CT: -125,275; else 0.5,99.5)"
    )
    group.add_argument(
        "--window-unit", choices=("HU", "value", "percentile"), help="of --window (CT: HU; else percentile)"
    )


def _numbers(kind: Callable[[str], Any], count: int | None = None) -> Callable[[str], tuple[Any, ...]]:
    """Numbers with commas between, `count` of them where it is given."""

    def parsed(text: str) -> tuple[Any, ...]:
        values = tuple(kind(part) for part in text.split(","))
        if count is not None and len(values) != count:
            raise ValueError
        return values

    parsed.__name__ = "list of numbers"
    return parsed


def run_init(options: argparse.Namespace) -> None:
    """Write the manifest that `train --init` names.

    Raises:
        DiffusionSegmentError: as `write_manifest`; OPTION without labels.
    """
    from ..training.whole_model.manifest import ManifestOptions, write_manifest

    if options.labels is None:
        raise DiffusionSegmentError(
            ErrorCode.OPTION, "What do the labels mean?", hint="Give --labels labels.csv with the columns value,name."
        )
    if not re.fullmatch("[A-Z]{2}", options.modality):
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"'{options.modality}' is no modality of DICOM, and scans would be refused for it.",
            hint="Give --modality CT or --modality MR.",
        )
    path = write_manifest(
        ManifestOptions(
            name=options.init,
            labels=options.labels,
            output=options.output,
            modality=options.modality,
            title=options.title,
            spacing_mm=options.spacing,
            trunk_spacing_mm=options.trunk_spacing,
            tile_voxels=options.tile,
            channels=options.channels,
            window=options.window,
            window_unit=options.window_unit,
            licence=options.licence,
        )
    )
    print(f"Written to {path}. Train with: diffusion-segment train --data DATA --manifest {path} -o MODEL --minutes 60")
