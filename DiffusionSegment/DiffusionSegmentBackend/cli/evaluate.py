"""The command line of measuring: `diffusion-segment evaluate | compare`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import DiffusionSegmentError, ErrorCode
from ..schema.run_options import run_options_of
from .command_parser import examples
from .run_options import add_run_options

_PROTOCOLS = ("native", "vox2vec")


def add_evaluation_commands(commands: Any) -> None:
    """Add the commands to the subparsers of `diffusion-segment`."""
    parser = commands.add_parser(
        "evaluate",
        help="measure a model on labelled scans",
        epilog=examples(
            "evaluate --data data -o metrics.json",
            "evaluate --images scans --labels drawn -o metrics.json --model mine",
        ),
    )
    parser.add_argument("--data", type=Path, action="append", default=[], metavar="DIR", help=_DATA)
    parser.add_argument("--images", type=Path, action="append", default=[], metavar="DIR", help=_IMAGES)
    parser.add_argument("--labels", type=Path, action="append", default=[], metavar="DIR", help=_LABELS)
    parser.add_argument("--part", help="only the cases that splits.json beside the data names so, e.g. validation")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help=_OUTPUT)
    parser.add_argument("--variants", metavar="NAMES", help="names, separated by commas (default: all of the model's)")
    parser.add_argument("--protocol", choices=_PROTOCOLS, default="native", help=_PROTOCOL)
    add_run_options(parser, without=("organs", "region", "bodypart", "force"))
    parser.set_defaults(run=_run_evaluate)
    _add_compare(commands)


_DATA = "folder with images/ and labels/; may be given several times"
_IMAGES = "folder of scans; may be given several times, each with its --labels"
_LABELS = "folder of label maps named as the scans, one for each --images, in order"
_OUTPUT = "the result as JSON; a CSV file of the same name is written beside it"
_PROTOCOL = "vox2vec: also Dice at 1 x 1 x 2 mm, an absent organ counting 1 or 0 (default: %(default)s)"


def _add_compare(commands: Any) -> None:
    parser = commands.add_parser(
        "compare",
        help="compare two results of `evaluate` on the same cases",
        epilog=examples("compare a.json b.json", "compare a.json b.json --variant probe,ensemble -o paired.json"),
    )
    parser.add_argument("a", type=Path, metavar="A.json", help="a result of `evaluate`")
    parser.add_argument("b", type=Path, metavar="B.json", help="another one; differences are B minus A")
    parser.add_argument(
        "--variant", metavar="NAME|A,B", help="of both, or of A and B (default: what `segment` delivers)"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="also write JSON, and a CSV file beside it")
    parser.set_defaults(run=_run_compare)


def parse_variants(text: str | None) -> tuple[str | None, str | None]:
    """None -> (None, None); "probe" -> ("probe", "probe"); "probe,ensemble" -> ("probe", "ensemble").

    Raises:
        DiffusionSegmentError: OPTION.
    """
    if text is None:
        return None, None
    names = [name.strip() for name in text.split(",")]
    if len(names) > 2 or not all(names):
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"'{text}' is not one variant or two.", hint="Write --variant NAME or --variant A,B."
        )
    return names[0], names[-1]


def _run_evaluate(options: argparse.Namespace) -> None:
    from ..commands.evaluate import evaluate_folders
    from ..datasets.labelled_folders import LabelledFolder
    from ..evaluation.evaluate import EvaluationOptions

    if len(options.images) != len(options.labels) or not options.images + options.data:
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"There are {len(options.images)} --images and {len(options.labels)} --labels.",
            hint="Name --data DIR, or one --labels for each --images, in order.",
        )
    pairs = [LabelledFolder(*pair) for pair in zip(options.images, options.labels, strict=True)]
    names = None if options.variants is None else tuple(name.strip() for name in options.variants.split(","))
    evaluate_folders(
        [*(LabelledFolder.of_data(folder) for folder in options.data), *pairs],
        options.output,
        part=options.part,
        options=run_options_of(options),
        measured=EvaluationOptions(variants=names, vox2vec=options.protocol == "vox2vec"),
    )


def _run_compare(options: argparse.Namespace) -> None:
    from ..commands.evaluate import compare_files

    variant_a, variant_b = parse_variants(options.variant)
    compare_files(options.a, options.b, variant_a=variant_a, variant_b=variant_b, output=options.output)
