"""The options `--keep-session`, `--alternatives` and `--probabilities` of `segment` and `correct`."""

from __future__ import annotations

import argparse


def add_extra_options(parser: argparse.ArgumentParser) -> None:
    """Add them to a command."""
    parser.add_argument(
        "--keep-session", action="store_true", help="keep the run in DIR, so that `correct` need not run the case again"
    )
    parser.add_argument("--alternatives", action="store_true", help="also write the samples as label maps")
    parser.add_argument("--probabilities", action="store_true", help="also write a probability map for each organ")
