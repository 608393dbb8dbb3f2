"""The options of a run of the pipeline, which several commands have, and the checks that need no PyTorch."""

from __future__ import annotations

import argparse
from collections.abc import Container
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from ..errors import DiffusionSegmentError, ErrorCode
from ..schema.run_options import OptionInfo, RunOptions, box_region, option_info
from .command_parser import organ_names

_BOX = ("X0", "X1", "Y0", "Y1", "Z0", "Z1")


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Add `--device` alone, for commands without the other options of a run."""
    add_run_options(parser, without={item.name for item in fields(RunOptions)} - {"device"})


def add_overwrite_option(parser: argparse.ArgumentParser) -> None:
    """Add `--overwrite`, for a folder that holds other files than an earlier result."""
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="write into a folder that holds other files: those of the same names are replaced, all others are kept "
        "(an earlier result is replaced without it)",
    )


def check_input(path: str | Path) -> None:
    """Check that there is a scan of that name, before what reads it is loaded.

    Raises:
        DiffusionSegmentError: INPUT_MISSING.
    """
    with suppress(OSError):  # which reading it says in words
        if not Path(path).exists():
            raise DiffusionSegmentError(ErrorCode.INPUT_MISSING, f"{path} does not exist.", hint="Check the path.")


def add_run_options(parser: argparse.ArgumentParser, *, without: Container[str] = ()) -> None:
    """Add an argument for each field of `RunOptions` but those named in `without`."""
    hints = get_type_hints(RunOptions)
    for item in fields(RunOptions):
        if item.name not in without:
            info = option_info(item)
            flag = info.flag or f"--{item.name.replace('_', '-')}"
            parser.add_argument(flag, dest=item.name, help=info.help, **_argument(hints[item.name], item.default, info))


def _argument(hint: Any, default: object, info: OptionInfo) -> dict[str, Any]:
    """What `add_argument` needs to know of an option of this type."""
    if hint is bool:
        return {"action": "store_true"}
    (kind,) = [part for part in get_args(hint) or (hint,) if part is not type(None)]
    if kind == tuple[str, ...]:
        return {"default": default, "metavar": info.metavar, "type": organ_names}
    if kind == tuple[float, ...]:
        return {"default": default, "metavar": _BOX, "type": float, "nargs": len(_BOX), "action": _StoreRegion}
    if info.choices:
        return {"default": default, "choices": info.choices}
    return {"default": default, "metavar": info.metavar, "type": kind}


class _StoreRegion(argparse.Action):
    """Turns the two corners of a box into the matrix of a region."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        setattr(namespace, self.dest, box_region(*values))
