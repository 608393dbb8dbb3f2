"""The command line of `diffusion-segment review`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..commands.progress_display import ProgressBar, add_progress_option
from ..commands.run_estimate import SEGMENT_STAGES
from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.output_folder import check_replaceable
from ..presegmenters.plugin import DEFAULT_LIMIT_MIN
from ..presegmenters.registry import model_named
from ..schema.output_kinds import RESULT
from ..schema.run_options import run_options_of
from .command_parser import examples
from .extra_options import add_extra_options
from .run_options import add_overwrite_option, add_run_options, check_input
from .series_option import add_series_option


def add_review_command(commands: Any) -> None:
    """Add the command to the subparsers of `diffusion-segment`."""
    parser = commands.add_parser(
        "review",
        help="review a segmentation from any source",
        description="Review a segmentation of TotalSegmentator, nnU-Net, MONAI, 3D Slicer or a colleague: where it is "
        "probably wrong, with volume intervals and regions to review. The segmentation itself does not change.",
        epilog=examples(
            "review ct.nii.gz --segmentation totalsegmentator.nii.gz -o result",
            'review ct.nii.gz --segmentation labels.nii.gz --labels "1=spleen,6=liver" -o result',
            "review ct.nii.gz --presegmenter nnunet:nnUNetTrainer__nnUNetPlans__3d_fullres -o result",
            'review dicom/patient7 --segmentation seg.dcm --match "Milz=Spleen" -o result',
        ),
    )
    parser.add_argument("input", metavar="INPUT", help="the scan: DICOM folder or file, NIfTI, NRRD or MHA")
    _add_source_options(parser)
    parser.add_argument(
        "--labels",
        metavar="NAMES",
        help='names of the values of a label map: "1=spleen,2=liver", or a JSON file such as a dataset.json',
    )
    parser.add_argument(
        "--match",
        type=_match,
        action="append",
        default=[],
        metavar="NAME=ORGAN",
        help="the organ that a segment is, instead of the one with its code or name; without ORGAN it is none",
    )
    add_series_option(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the result")
    add_overwrite_option(parser)
    add_run_options(parser)
    add_extra_options(parser)
    add_progress_option(parser)
    parser.set_defaults(run=_run_review)


def _add_source_options(parser: argparse.ArgumentParser) -> None:
    """Add the file of the segmentation and, in its place, the presegmenter that makes one."""
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument(
        "--segmentation",
        type=Path,
        metavar="FILE",
        help="the segmentation: label map (NIfTI, NRRD, MHA), .seg.nrrd or DICOM SEG",
    )
    given.add_argument(
        "--presegmenter",
        metavar="KIND:FOLDER",
        help="the model of another program that segments the scan first: nnunet:FOLDER (nnU-Net v2), "
        "monai-bundle:FOLDER",
    )
    parser.add_argument(
        "--time-limit",
        type=float,
        metavar="MINUTES",
        help=f"after which a presegmenter is stopped (default: {DEFAULT_LIMIT_MIN:g})",
    )


def _match(text: str) -> tuple[str, str]:
    """ "Milz=Spleen" -> ("Milz", "Spleen").

    Raises:
        DiffusionSegmentError: OPTION for a text without "=".
    """
    name, sign, organ = text.rpartition("=")
    if not sign or not name.strip():
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"'{text}' is no match of a segment.", hint='Write --match "NAME=ORGAN".'
        )
    return name.strip(), organ.strip()


def _time_limit(options: argparse.Namespace) -> float:
    """The minutes of `--time-limit`, or the default.

    Raises:
        DiffusionSegmentError: OPTION for a limit that is not above 0, and for one without a presegmenter.
    """
    if options.time_limit is None:
        return DEFAULT_LIMIT_MIN
    if options.presegmenter is None:
        raise DiffusionSegmentError(
            ErrorCode.OPTION, "--time-limit is for a presegmenter.", hint="Leave it out, or add --presegmenter."
        )
    if not options.time_limit > 0:
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"{options.time_limit:g} min is no time limit.", hint="Give more than 0 minutes."
        )
    return float(options.time_limit)


def _stages(*, presegmented: bool) -> tuple[str, ...]:
    """The stages of a review: those of a segmentation, and of a presegmenter after the scan was read."""
    after = SEGMENT_STAGES.index("read") + 1
    return (*SEGMENT_STAGES[:after], *(["presegmenter"] if presegmented else []), *SEGMENT_STAGES[after:])


def _run_review(options: argparse.Namespace) -> None:
    from ..models.manifest import find_model, read_description

    check_input(options.input)
    limit_min = _time_limit(options)
    if options.segmentation is not None:
        check_input(options.segmentation)
    segmentation = options.segmentation or model_named(options.presegmenter)
    check_replaceable(options.output, RESULT, overwrite=options.overwrite)
    description = read_description(find_model(options.model))
    for name in (*(options.organs or ()), *(organ for _, organ in options.match if organ)):
        description.label_named(name)
    with ProgressBar(
        _stages(presegmented=options.presegmenter is not None), quiet=options.quiet, lines=options.verbose
    ) as bar:
        bar("start", 0, 1)
        from ..commands.result_extras import extras_of
        from ..commands.review import ReviewChoices, review_file
        from ..imaging.segmentation_files import parse_names

        review_file(
            options.input,
            options.output,
            ReviewChoices(
                segmentation=segmentation,
                limit_min=limit_min,
                names=None if options.labels is None else parse_names(options.labels),
                given=dict(options.match),
                options=run_options_of(options),
                series=options.series,
                overwrite=options.overwrite,
                extras=extras_of(options),
            ),
            bar=bar,
        )
