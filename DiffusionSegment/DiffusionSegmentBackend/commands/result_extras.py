"""What a result folder holds when it is asked for: the run's session, its samples, the organs' probabilities."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..imaging.output_folder import staged_folder
from ..imaging.volume import Volume
from ..models.model import Model
from ..pipeline.interactive.session_files import write_session
from ..pipeline.options import SegmentOptions
from ..pipeline.segment import Segmentation
from ..pipeline.session import Session
from ..schema.output_kinds import SESSION
from ..schema.report import Report
from .alternatives import write_alternatives
from .probabilities import write_probabilities
from .result_folder import Timings, write_maps


@dataclass(frozen=True, kw_only=True)
class Extras:
    """Which of them are asked for."""

    keep_session: bool = False
    alternatives: bool = False
    probabilities: bool = False


NOTHING_MORE = Extras()


@dataclass(frozen=True)
class RunInput:
    """What decides a run."""

    volume: Volume
    model: Model
    options: SegmentOptions


def extras_of(options: argparse.Namespace) -> Extras:
    """Those that a command line asks for; see `extra_options.add_extra_options`."""
    return Extras(
        keep_session=options.keep_session, alternatives=options.alternatives, probabilities=options.probabilities
    )


@dataclass(frozen=True, kw_only=True)
class RunAdditions:
    """What a correction adds to the files of a run.

    `write` writes more files into the staging folder. A `session_file`, which belongs to the run, is copied instead of
    written anew; where it lies in the output folder, it stays there. Alternatives obey the `scribbles`.
    """

    write: Callable[[Path], None] = lambda staging: None
    session_file: Path | None = None
    scribbles: NDArray[np.uint8] | None = None


NO_ADDITIONS = RunAdditions()


def write_run(
    result: Segmentation,
    session: Session,
    run_input: RunInput,
    folder: Path,
    extras: Extras,
    *,
    additions: RunAdditions = NO_ADDITIONS,
    timings: Timings | None = None,
) -> Report:
    """Write a result and what else is asked for, all files or none, replacing an earlier result in `folder`.

    Returns the report as written, with `alternatives` and `probabilities` and, with `timings`, those of the run.

    Raises:
        DiffusionSegmentError: OUT_OF_MEMORY, OUTPUT_UNWRITABLE or DISK_FULL; nothing is left half-written.
    """
    matrix, description = run_input.volume.index_to_lps, run_input.model.description
    report = result.report
    with staged_folder(folder) as staging:
        if extras.alternatives:
            alternatives = write_alternatives(
                session, description, result.labels, matrix, staging, scribbles=additions.scribbles
            )
            report = replace(report, alternatives=alternatives)
        if extras.probabilities:
            report = replace(report, probabilities=write_probabilities(session, description, matrix, staging))
        saved = additions.session_file
        if saved is not None and (extras.keep_session or saved.parent.resolve() == folder.resolve()):
            shutil.copyfile(saved, staging / SESSION)
        elif extras.keep_session:
            write_session(session, run_input.volume, run_input.model, run_input.options, staging / SESSION)
        additions.write(staging)
        return write_maps(replace(result, report=report), matrix, staging, timings=timings)
