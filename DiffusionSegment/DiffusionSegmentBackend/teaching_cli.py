"""The command line of readers who teach: `diffusion-segment similar | teach | export-model | import-model`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .errors import DiffusionSegmentError, ErrorCode
from .series_option import add_series_option

_THRESHOLD = 0.6
_MINUTES = 2.0
_BASE = "abdomen-ct"


def add_teaching_commands(commands: Any) -> None:
    """Add the commands to the subparsers of `diffusion-segment`."""
    _add_similar(commands)
    _add_teach(commands)
    export = commands.add_parser("export-model", help="export a model of your own as one file")
    export.add_argument("name", metavar="NAME")
    export.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the zip file")
    export.set_defaults(run=_run_export)
    importer = commands.add_parser("import-model", help="install a model that somebody exported")
    importer.add_argument("source", type=Path, metavar="FILE_OR_FOLDER")
    importer.add_argument("--replace", action="store_true", help="overwrite an existing model of that name")
    importer.set_defaults(run=_run_import)


def _add_similar(commands: Any) -> None:
    parser = commands.add_parser("similar", help="find the voxels that look like the one at a point")
    parser.add_argument("input", metavar="INPUT", help="DICOM folder or file, NIfTI, NRRD or MHA")
    add_series_option(parser)
    parser.add_argument("--point", required=True, metavar="X,Y,Z", help="the point in LPS mm; write --point=-1,2,3")
    parser.add_argument(
        "--threshold",
        type=float,
        default=_THRESHOLD,
        help="minimum similarity of the region, -1 to 1 (default: %(default)s)",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--model", default=_BASE, help="name or folder (default: %(default)s)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.set_defaults(run=_run_similar)


def _add_teach(commands: Any) -> None:
    parser = commands.add_parser("teach", help="train a model on your own segments of a labelled scan")
    parser.add_argument("--scan", type=Path, action="append", required=True, metavar="INPUT", help="may be repeated")
    parser.add_argument(
        "--labels", type=Path, action="append", required=True, metavar="LABELMAP", help="one for each scan, in order"
    )
    parser.add_argument("--names", required=True, metavar="N=NAME,...", help='such as "1=left kidney,2=my tumour"')
    parser.add_argument("--base", default=_BASE, help="the model whose features are used (default: %(default)s)")
    parser.add_argument("--name", required=True, help="the new model's name: small letters, digits, hyphens")
    parser.add_argument("--minutes", type=float, default=_MINUTES, help="training time (default: %(default)s)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--replace", action="store_true", help="overwrite an existing model of that name")
    parser.set_defaults(run=_run_teach)


def parse_names(text: str) -> dict[int, str]:
    """ "1=left kidney,2=my tumour" -> {1: "left kidney", 2: "my tumour"}.

    Raises:
        DiffusionSegmentError: OPTION.
    """
    names: dict[int, str] = {}
    for part in text.split(","):
        value, equals, name = part.partition("=")
        if not (equals and name.strip() and value.strip().isdecimal()) or int(value) in names:
            raise DiffusionSegmentError(
                ErrorCode.OPTION, f"'{part}' is not N=NAME.", hint='Write --names "1=left kidney,2=my tumour".'
            )
        names[int(value)] = name.strip()
    return names


def parse_point(text: str) -> tuple[float, float, float]:
    """ "10,-20.5,300" -> (10.0, -20.5, 300.0).

    Raises:
        DiffusionSegmentError: OPTION.
    """
    try:
        x, y, z = (float(part) for part in text.split(","))
    except ValueError as error:
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"'{text}' is not a point.", hint="Write --point=X,Y,Z in LPS mm."
        ) from error
    return x, y, z


def _run_similar(options: argparse.Namespace) -> None:
    from .commands import ProgressBar
    from .similarity_files import write_similarity_of

    with ProgressBar() as bar:
        write_similarity_of(
            options.input,
            options.output,
            point_lps=parse_point(options.point),
            threshold=options.threshold,
            model_name=options.model,
            device=options.device,
            series=options.series,
            progress=bar,
        )


def _run_teach(options: argparse.Namespace) -> None:
    from .commands import ProgressBar
    from .teaching_files import teach_files

    with ProgressBar() as bar:
        report = teach_files(
            options.scan,
            options.labels,
            parse_names(options.names),
            base=options.base,
            name=options.name,
            minutes=options.minutes,
            device=options.device,
            replace=options.replace,
            progress=bar,
        )
    print(f"Model saved. Use it with --model {options.name}. Stored in {report['folder']}.")


def _run_export(options: argparse.Namespace) -> None:
    from .user_models import export_model

    export_model(options.name, options.output)
    print(f"Written to {options.output}.")


def _run_import(options: argparse.Namespace) -> None:
    from .user_models import import_model

    print(f"Installed. Use it with --model {import_model(options.source, replace=options.replace)}.")
