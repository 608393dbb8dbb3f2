"""The command line of research: `diffusion-segment-research study | evidence | benchmark | performance`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from DiffusionSegmentBackend.cli.command_parser import new_parser
from DiffusionSegmentBackend.cli.main import run_program

from .benchmark import add_benchmark_commands
from .evidence import add_evidence_command
from .examples import PROGRAM, examples
from .study import add_study_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; errors are one line on stderr and the exit status of their code."""
    return run_program(build_parser(), arguments)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the program with all its commands; `run` of what it parses is the command's function."""
    parser, commands = new_parser(
        PROGRAM,
        "Measure claims about the method, and write the pages that show them.",
        epilog=examples("study --help"),
    )
    add_study_command(commands)
    add_evidence_command(commands)
    add_benchmark_commands(commands)
    return parser
