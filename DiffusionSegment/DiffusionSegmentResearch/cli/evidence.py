"""`diffusion-segment-research evidence`: the page that shows what studies measured."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .examples import examples


def add_evidence_command(commands: Any) -> None:
    """Add the command to the subparsers of `diffusion-segment-research`."""
    parser = commands.add_parser(
        "evidence",
        help="write the evidence page and its plots from result files",
        epilog=examples("evidence --results docs/results -o docs/EVIDENCE.md"),
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("docs/results"),
        metavar="DIR",
        help="folder of result files (default: %(default)s)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("docs/EVIDENCE.md"),
        metavar="FILE",
        help="the page; plots lie beside it (default: %(default)s)",
    )
    parser.set_defaults(run=_run_evidence)


def _run_evidence(options: argparse.Namespace) -> None:
    from ..evidence.document import write_evidence

    write_evidence(options.results, options.output)
