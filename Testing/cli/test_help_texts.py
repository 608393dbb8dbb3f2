"""Help and arguments of every command: each option is explained, each example parses, values may be negative."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator

import pytest
from DiffusionSegmentBackend.cli.main import build_parser
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.schema.run_options import box_region
from DiffusionSegmentResearch.cli.main import build_parser as build_research_parser


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and all its subparsers."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from parsers(child)


ROOTS = {parser.prog: parser for parser in (build_parser(), build_research_parser())}
EVERY = [parser for root in ROOTS.values() for parser in parsers(root)]
ROOT = ROOTS["diffusion-segment"]
COMMANDS = [parser for parser in EVERY if parser.prog not in ROOTS]


def without_help(parser: argparse.ArgumentParser) -> list[str]:
    return [
        "/".join(action.option_strings) or action.dest
        for action in parser._actions
        if not action.help and not isinstance(action, argparse._SubParsersAction)
    ]


def examples_of(parser: argparse.ArgumentParser) -> list[str]:
    return [
        line.strip() for line in (parser.epilog or "").splitlines() if line.startswith(f"  {parser.prog.split()[0]} ")
    ]


def test_all_commands_are_tested() -> None:
    assert {"segment", "correct", "similar", "train", "benchmark"} <= {parser.prog.split()[-1] for parser in EVERY}


@pytest.mark.parametrize("parser", EVERY, ids=lambda parser: parser.prog)
def test_every_option_has_a_help_text(parser: argparse.ArgumentParser) -> None:
    assert without_help(parser) == []


@pytest.mark.parametrize("parser", COMMANDS, ids=lambda parser: parser.prog)
def test_the_help_ends_with_examples_that_parse(parser: argparse.ArgumentParser) -> None:
    lines = examples_of(parser)
    assert lines
    assert parser.format_help().rstrip().endswith(lines[-1])
    for line in lines:
        program, command, *more = shlex.split(line)
        assert f"{program} {command}" == parser.prog
        assert ROOTS[program].parse_args([command, *more]).command == command


@pytest.mark.parametrize("parser", EVERY, ids=lambda parser: parser.prog)
def test_every_command_has_a_description(parser: argparse.ArgumentParser) -> None:
    assert parser.description
    assert parser.description.endswith(".")


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("-80,-20,100", (-80.0, -20.0, 100.0)),
        ("-80.5, 20, -1e2", (-80.5, 20.0, -100.0)),
        ("-.5,0,0", (-0.5, 0.0, 0.0)),
        ("1,-2,3", (1.0, -2.0, 3.0)),
    ],
)
@pytest.mark.parametrize("joined", [False, True])
def test_a_point_may_be_negative(text: str, point: tuple[float, ...], joined: bool) -> None:
    given = [f"--point={text}"] if joined else ["--point", text]
    assert ROOT.parse_args(["similar", "ct.nii", *given, "-o", "out"]).point == point


@pytest.mark.parametrize("numbers", ["-80 20 -60 -40 -1e2 -.5", "-80.25 -20 -1 0 0 100"])
def test_a_box_may_be_negative(numbers: str) -> None:
    options = ROOT.parse_args(["segment", "ct.nii", "--roi", *numbers.split(), "-o", "out"])
    assert options.region == box_region(*(float(number) for number in numbers.split()))
    assert options.input == ["ct.nii"]


@pytest.mark.parametrize("point", ["-1,2", "here", "-1,2,x", "1,2,3,4", "-"])
def test_an_invalid_point_gives_a_one_line_error(point: str) -> None:
    with pytest.raises(DiffusionSegmentError) as caught:
        ROOT.parse_args(["similar", "ct.nii", "--point", point, "-o", "out"])
    assert caught.value.code is ErrorCode.OPTION
    assert "point" in str(caught.value)


@pytest.mark.parametrize("option", ["-x", "--colour", "-8x", "-o8,2"])
def test_an_argument_that_is_not_a_number_is_an_option(option: str) -> None:
    with pytest.raises(DiffusionSegmentError, match=r"unrecognized|required|expected"):
        ROOT.parse_args(["similar", "ct.nii", "--point", option])


@pytest.mark.parametrize(
    ("text", "names"),
    [("Left kidney, spleen", ("Left kidney", "spleen")), (" liver ,", ("liver",)), ("left_kidney", ("left_kidney",))],
)
def test_organs_are_names_separated_by_commas(text: str, names: tuple[str, ...]) -> None:
    assert ROOT.parse_args(["segment", "ct.nii", "-o", "out", "--organs", text]).organs == names
    assert ROOT.parse_args(["correct", "a", "--corrections", "m", "-o", "out", "--lock", text]).lock == names
