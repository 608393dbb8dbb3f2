"""The command line of `diffusion-segment models | check | phantom | worker`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..errors import one_line
from .command_parser import examples
from .run_options import add_overwrite_option


def add_installation_commands(commands: Any) -> None:
    """Add the commands to the subparsers of `diffusion-segment`."""
    models = commands.add_parser("models", help="list the installed models", epilog=examples("models"))
    models.set_defaults(run=_run_models)
    check = commands.add_parser(
        "check", help="check the installation: torch, devices, weights", epilog=examples("check")
    )
    check.set_defaults(run=_run_check)
    _add_phantom(commands)
    worker = commands.add_parser(
        "worker",
        help="serve requests as JSON lines on standard input and output",
        epilog=examples("worker --idle-seconds 1800"),
    )
    worker.add_argument(
        "--idle-seconds", type=float, metavar="S", help="exit after so many seconds without a run (default: never)"
    )
    worker.set_defaults(run=_run_worker)


def _add_phantom(commands: Any) -> None:
    parser = commands.add_parser(
        "phantom", help="write a synthetic abdomen CT and its labels", epilog=examples("phantom -o phantom --seed 1")
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the two files")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives another body (default: %(default)s)")
    add_overwrite_option(parser)
    parser.set_defaults(run=_run_phantom)


def _run_models(_: argparse.Namespace) -> None:
    from ..models.manifest import find_model, list_models, read_description
    from ..models.model_check import why_unusable

    for name in list_models():
        problem = why_unusable(find_model(name))
        if problem is None:
            description = read_description(find_model(name))
            print(f"{name}\t{description.version}\t{description.title}\t{len(description.labels)} organs")
        else:
            print(f"{name}\t-\t{one_line(f'cannot be used: {problem}')}")


def _run_check(_: argparse.Namespace) -> None:
    from ..commands.check import check_installation

    print(json.dumps(check_installation(), indent=2))


def _run_phantom(options: argparse.Namespace) -> None:
    from ..commands.phantom import write_phantom

    write_phantom(options.output, seed=options.seed, overwrite=options.overwrite)


def _run_worker(options: argparse.Namespace) -> None:
    from ..worker.server import main as serve

    serve(idle_seconds=options.idle_seconds, verbose=options.verbose)
