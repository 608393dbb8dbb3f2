"""Several scans in one call: a result folder for each, and a table of the outcomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import one_line

# Of scan files; of two that fit, the longer.
_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".img.gz", ".img", ".hdr", ".dcm", ".dicom", ".ima")
NAMING = (
    "of several inputs, each has a folder of its own in DIR, named as the input without its suffix; equal names get "
    "the name of their input's folder in front, and names that are still equal a number behind"
)


@dataclass(frozen=True)
class Outcome:
    """Outcome of one input: its name in this call, seconds, and the code of its error, "" if it has a result."""

    name: str
    seconds: float
    code: str = ""


def result_names(inputs: Sequence[str]) -> list[str]:
    """A name for each input's result folder, no two alike even where case does not count.

    "a/ct.nii.gz", "b/ct.nii.gz", "b/mr.nii.gz" -> "a_ct", "b_ct", "mr". A name that is still taken gets "_2", "_3".
    """
    paths = [Path(text).absolute() if Path(text).name else Path(text).resolve() for text in inputs]
    plain = [_without_suffix(path.name) for path in paths]
    counts = Counter(name.casefold() for name in plain)
    names: list[str] = []
    taken: set[str] = set()
    for path, name in zip(paths, plain, strict=True):
        wanted = f"{path.parent.name}_{name}" if counts[name.casefold()] > 1 and path.parent.name else name
        unique, number = wanted, 1
        while unique.casefold() in taken:
            number += 1
            unique = f"{wanted}_{number}"
        taken.add(unique.casefold())
        names.append(unique)
    return names


def _without_suffix(name: str) -> str:
    suffix = next((suffix for suffix in _SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)] or "scan"


def outcome_table(outcomes: Sequence[Outcome]) -> str:
    """The closing table of a call: name, seconds and what became of each input."""
    names = [one_line(outcome.name) for outcome in outcomes]
    width = max(map(len, [*names, "Input"]))
    rows = [f"{'Input':<{width}}{'Time (s)':>10}   Outcome"]
    for name, outcome in zip(names, outcomes, strict=True):
        rows.append(f"{name:<{width}}{outcome.seconds:>10.1f}   {outcome.code or 'written'}")
    failed = sum(bool(outcome.code) for outcome in outcomes)
    rows.append(f"{len(outcomes) - failed} of {len(outcomes)} inputs have a result.")
    return "\n".join(rows)
