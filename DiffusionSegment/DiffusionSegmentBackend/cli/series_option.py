"""The option `--series`, which picks one of several DICOM series."""

from __future__ import annotations

import argparse


def add_series_option(parser: argparse.ArgumentParser) -> None:
    """Add `--series`: a UID, a series number, or an index in the list of a refused folder."""
    parser.add_argument("--series", metavar="UID|NUMBER|INDEX", help="which of several DICOM series in the folder")
