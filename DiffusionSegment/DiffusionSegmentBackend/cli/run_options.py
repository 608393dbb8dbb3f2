"""The options of a run of the pipeline, which several commands have, and the checks that need no PyTorch."""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DiffusionSegmentError, ErrorCode

if TYPE_CHECKING:
    from ..pipeline.options import SegmentOptions

DEFAULT_MODEL = "abdomen-ct"


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Add `--device`."""
    parser.add_argument(
        "--device",
        default="auto",
        choices=("auto", "cpu", "cuda"),
        help="what computes; auto: the graphics card where there is one (default: %(default)s)",
    )


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


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options from which `segment_options` makes those of the pipeline, and model, device and precision."""
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name or folder (default: %(default)s)")
    parser.add_argument("--samples", type=int, metavar="K", help="diffusion samples (default: the model's)")
    parser.add_argument("--steps", type=int, metavar="S", help="denoising steps a sample (default: the model's)")
    parser.add_argument(
        "--seed", type=int, default=0, help="the same seed gives the same result (default: %(default)s)"
    )
    parser.add_argument(
        "--sampler", choices=("ddim", "ddpm"), help="how x_t follows from its predecessor (default: the model's)"
    )
    parser.add_argument(
        "--schedule", choices=("linear", "cosine"), help="how noise grows with t (default: the model's)"
    )
    parser.add_argument(
        "--abar-start", type=float, metavar="A", help="alpha_bar at the start T', 0 to 1 (default: the model's)"
    )
    add_device_option(parser)
    parser.add_argument(
        "--precision",
        default="auto",
        choices=("auto", "float32", "bfloat16"),
        help="of the networks; auto: bfloat16 where the device has instructions for it (default: %(default)s)",
    )
    parser.add_argument(
        "--memory-limit", type=float, metavar="GB", help="most memory of the computer to use (default: what is free)"
    )


def segment_options(options: argparse.Namespace, **more: Any) -> SegmentOptions:
    """The options of the pipeline: the parsed ones of `add_run_options`, and `more`."""
    from ..pipeline.options import SegmentOptions

    return SegmentOptions(
        samples=options.samples,
        steps=options.steps,
        seed=options.seed,
        sampler=options.sampler,
        schedule=options.schedule,
        abar_start=options.abar_start,
        memory_limit_gb=options.memory_limit,
        **more,
    )
