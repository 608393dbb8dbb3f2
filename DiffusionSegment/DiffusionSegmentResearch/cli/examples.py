"""The calls at the end of each command's help."""

from __future__ import annotations

import functools

from DiffusionSegmentBackend.cli import command_parser

PROGRAM = "diffusion-segment-research"
examples = functools.partial(command_parser.examples, program=PROGRAM)
