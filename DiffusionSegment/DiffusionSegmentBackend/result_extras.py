"""What a result folder holds when it is asked for: the run's session, its samples, the organs' probabilities."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .alternative_files import ALTERNATIVES, write_alternatives
from .pipeline.model import Model
from .pipeline.options import SegmentOptions
from .pipeline.segment import Segmentation
from .pipeline.session import Session
from .probability_files import PROBABILITIES, write_probabilities
from .result_folder import CORRECTIONS, REPORT, staged_folder, write_maps
from .session_files import SESSION, write_session
from .volume import Volume


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


def write_run(
    result: Segmentation,
    session: Session,
    given: RunInput,
    folder: Path,
    extras: Extras,
    *,
    also: Callable[[Path], None] = lambda staging: None,
    kept_session: Path | None = None,
) -> None:
    """Write a result and what else is asked for, all files or none; such files of an earlier result there go.

    `also` writes more files into the staging folder. A `kept_session`, which belongs to the run, is copied instead of
    written, and stays where it is. The report of `result` gets the entries `alternatives` and `probabilities`.

    Raises:
        DiffusionSegmentError: OUT_OF_MEMORY, OUTPUT_UNWRITABLE or DISK_FULL; nothing is left half-written.
    """
    matrix, description = given.volume.index_to_lps, given.model.description
    stale = _extra_files_of(folder)
    with staged_folder(folder) as staging:
        if extras.alternatives:
            listed = write_alternatives(session, description, result.labels, matrix, staging)
            result.report[ALTERNATIVES] = listed
        if extras.probabilities:
            result.report[PROBABILITIES] = write_probabilities(session, description, matrix, staging)
        if extras.keep_session and kept_session is not None:
            shutil.copyfile(kept_session, staging / SESSION)
        elif extras.keep_session:
            write_session(session, given.volume, given.model, given.options, staging / SESSION)
        also(staging)
        write_maps(result, matrix, staging)
        written = {folder / path.relative_to(staging) for path in staging.rglob("*")}
    for file in stale - written - {kept_session}:
        with suppress(OSError):
            file.unlink()
            if file.parent != folder:
                file.parent.rmdir()


def _extra_files_of(folder: Path) -> set[Path]:
    """Files beside the usual ones that the report in a folder names, as far as they are there; others are not ours."""
    try:
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        names = [str(entry["file"]) for entry in report.get(ALTERNATIVES, [])]
        names += [str(name) for name in report.get(PROBABILITIES, [])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return set()
    inside = [folder / parent / Path(name).name for parent in (ALTERNATIVES, PROBABILITIES) for name in names]
    return {path for path in (*inside, folder / SESSION, folder / CORRECTIONS) if path.is_file()}
