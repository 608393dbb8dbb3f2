"""The command line of `diffusion-segment similar | fine-tune | export-model | import-model`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..commands.progress_display import ProgressBar, add_progress_option
from ..commands.run_estimate import FEATURE_STAGES
from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.output_folder import check_replaceable
from ..schema.output_kinds import SIMILARITY
from ..schema.run_options import DEFAULT_MODEL
from .command_parser import examples, point_lps
from .namespace import from_namespace
from .run_options import add_device_option, add_overwrite_option, check_input
from .series_option import add_series_option

_THRESHOLD = 0.6
_MINUTES = 2.0


def add_fine_tuning_commands(commands: Any) -> None:
    """Add the commands to the subparsers of `diffusion-segment`."""
    _add_similar(commands)
    _add_fine_tune(commands)
    export = commands.add_parser(
        "export-model", help="export a model of your own as one file", epilog=examples("export-model mine -o mine.zip")
    )
    export.add_argument(
        "name", metavar="NAME_OR_FOLDER", help="an installed model of your own, or the folder that `train` wrote"
    )
    export.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the zip file")
    export.add_argument(
        "--name", dest="new_name", metavar="NAME", help="its name where it is imported (default: the name it has)"
    )
    export.set_defaults(run=_run_export)
    importer = commands.add_parser(
        "import-model", help="install a model that somebody exported", epilog=examples("import-model mine.zip")
    )
    importer.add_argument(
        "source",
        type=Path,
        metavar="FILE_OR_FOLDER",
        help="a zip file of `export-model`, or the folder that `train` wrote",
    )
    importer.add_argument("--name", metavar="NAME", help="another name than the one it has")
    importer.add_argument("--replace", action="store_true", help="overwrite an existing model of that name")
    importer.set_defaults(run=_run_import)


def _add_similar(commands: Any) -> None:
    parser = commands.add_parser(
        "similar",
        help="find the voxels that look like the one at a point",
        epilog=examples("similar ct.nii.gz --point -80,-20,100 -o similar"),
    )
    parser.add_argument("input", metavar="INPUT", help="DICOM folder or file, NIfTI, NRRD or MHA")
    add_series_option(parser)
    parser.add_argument("--point", type=point_lps, required=True, metavar="X,Y,Z", help="the point, LPS mm")
    parser.add_argument(
        "--threshold",
        type=float,
        default=_THRESHOLD,
        metavar="T",
        help="minimum similarity of the region, -1 to 1 (default: %(default)s)",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the two maps")
    add_overwrite_option(parser)
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name or folder (default: %(default)s)")
    add_device_option(parser)
    add_progress_option(parser)
    parser.set_defaults(run=_run_similar)


def _add_fine_tune(commands: Any) -> None:
    parser = commands.add_parser(
        "fine-tune",
        help="fine-tune a model to your own segments, from one labelled scan or a few",
        epilog=examples(
            'fine-tune --scan ct.nii.gz --labels labels.nii.gz --names "1=left kidney,2=my tumour" --name mine'
        ),
    )
    parser.add_argument("--scan", type=Path, action="append", required=True, metavar="INPUT", help="may be repeated")
    parser.add_argument(
        "--labels", type=Path, action="append", required=True, metavar="LABELMAP", help="one for each scan, in order"
    )
    parser.add_argument("--names", required=True, metavar="N=NAME,...", help='such as "1=left kidney,2=my tumour"')
    parser.add_argument(
        "--base", default=DEFAULT_MODEL, help="the model whose features are used (default: %(default)s)"
    )
    parser.add_argument("--name", required=True, help="the new model's name: small letters, digits, hyphens")
    parser.add_argument("--minutes", type=float, default=_MINUTES, help="minutes of training (default: %(default)s)")
    add_device_option(parser)
    parser.add_argument("--replace", action="store_true", help="overwrite an existing model of that name")
    parser.add_argument("--force", action="store_true", help="go on with a base of another modality than the scan's")
    parser.set_defaults(run=_run_fine_tune)


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


def _run_similar(options: argparse.Namespace) -> None:
    check_input(options.input)
    check_replaceable(options.output, SIMILARITY, overwrite=options.overwrite)
    with ProgressBar(FEATURE_STAGES, quiet=options.quiet, lines=options.verbose) as bar:
        bar("start", 0, 1)
        from ..commands.similar import write_similarity_of

        lines = write_similarity_of(
            options.input,
            options.output,
            point_lps=options.point,
            threshold=options.threshold,
            model_name=options.model,
            device=options.device,
            series=options.series,
            progress=bar,
        )
    print("\n".join(lines))


def _run_fine_tune(options: argparse.Namespace) -> None:
    from ..commands.fine_tune import FineTuneOptions, fine_tune_files

    with ProgressBar() as bar:
        report = fine_tune_files(
            options.scan,
            options.labels,
            parse_names(options.names),
            from_namespace(FineTuneOptions, options),
            progress=bar,
        )
    print(f"Model saved. Use it with --model {options.name}. Stored in {report.folder}.")


def _run_export(options: argparse.Namespace) -> None:
    from ..models.user_models import export_model

    name = export_model(options.name, options.output, name=options.new_name)
    print(f"Written to {options.output}; `import-model` installs it as {name}.")


def _run_import(options: argparse.Namespace) -> None:
    from ..models.user_models import import_model

    name = import_model(options.source, replace=options.replace, name=options.name)
    print(f"Installed. Use it with --model {name}.")
