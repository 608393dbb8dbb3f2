"""The command line of `diffusion-segment features`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..commands.progress_display import ProgressBar, add_progress_option
from ..commands.run_estimate import FEATURE_STAGES
from ..imaging.output_folder import check_replaceable
from ..schema.output_kinds import FEATURES
from ..schema.run_options import DEFAULT_MODEL
from .command_parser import examples
from .run_options import add_device_option, add_overwrite_option, check_input
from .series_option import add_series_option


def add_features_command(commands: Any) -> None:
    """Add the command to the subparsers of `diffusion-segment`."""
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
