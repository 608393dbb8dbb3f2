"""The parser of every command: errors in one line, negative numbers as values, an example at the end of the help."""

from __future__ import annotations

import argparse
import re
from typing import Any

from .. import __version__
from ..errors import DiffusionSegmentError, ErrorCode

PROGRAM = "diffusion-segment"
# A number that begins with a minus, or several with commas between them: values, not options.
_NEGATIVE_NUMBERS = re.compile(r"^-(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*(,.*)?$", re.IGNORECASE)


class CommandParser(argparse.ArgumentParser):
    """argparse with errors in the program's own form and a help text whose lines stay as they are written."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **{"formatter_class": argparse.RawDescriptionHelpFormatter, **more})
        # argparse itself takes no more than a plain number for a value: not -80,-20,100 and not -1e2.
        self._negative_number_matcher = _NEGATIVE_NUMBERS

    def error(self, message: str) -> Any:
        """Raise what is wrong with the arguments in one line."""
        raise DiffusionSegmentError(ErrorCode.OPTION, f"{message}.", hint=f"See `{self.prog} --help`.")


class Commands(argparse._SubParsersAction):  # type: ignore[type-arg]
    """The commands of a parser; the help of each begins with the line that the list of commands has."""

    def add_parser(self, name: str, *, help: str | None = None, **more: Any) -> Any:
        """Add a command."""
        described = {"description": f"{help[0].upper()}{help[1:]}.", **more} if help else more
        return super().add_parser(name, help=help, **described)


def new_parser(program: str, description: str, *, epilog: str) -> tuple[argparse.ArgumentParser, Any]:
    """A parser with the options that all commands share, and its subparsers."""
    parser = CommandParser(prog=program, description=description, epilog=epilog)
    parser.add_argument("--version", action="version", version=f"{program} {__version__}", help="print the version")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads (default: all)")
    parser.add_argument("--verbose", action="store_true", help="print progress and library messages on stderr")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=CommandParser, action=Commands
    )
    return parser, commands


def examples(*calls: str, program: str = PROGRAM) -> str:
    """The end of a command's help: calls of the program, each without its name."""
    title = "example:" if len(calls) == 1 else "examples:"
    return "\n".join([title, *(f"  {program} {call}" for call in calls)])


def organ_names(text: str) -> tuple[str, ...]:
    """ "Left kidney, spleen" -> ("Left kidney", "spleen").

    Raises:
        DiffusionSegmentError: OPTION for a text without a name.
    """
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise DiffusionSegmentError(
            ErrorCode.OPTION, "No organ is named.", hint='Write names with commas between: "Left kidney, Liver".'
        )
    return names


def point_lps(text: str) -> tuple[float, float, float]:
    """ "10,-20.5,300" -> (10.0, -20.5, 300.0).

    Raises:
        DiffusionSegmentError: OPTION.
    """
    try:
        x, y, z = (float(part) for part in text.split(","))
    except ValueError as error:
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"'{text}' is not a point.", hint="Write --point X,Y,Z in LPS mm."
        ) from error
    return x, y, z
