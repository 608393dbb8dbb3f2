"""What a command prints of a result: organs with their volumes, warnings, and where to look first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import one_line
from ..schema.report import OrganResult, Report


def summarise(report: Report, folder: Path) -> None:
    """Print what was read, the organs with their volumes, warnings, where to look first, and the time of the run."""
    if report.provenance.source.series is not None:
        print(f"Read {one_line(report.provenance.source.series)}.")
    print(organ_table(report.organs))
    for warning in report.warnings:
        print(f"Note: {one_line(warning)}")
    if report.expected_wrong_ml is not None:
        print(f"Expected to be wrong: {report.expected_wrong_ml:.1f} mL in all.")
    if report.review:
        print(f"Look first at: {report.review[0].sentence}")
    print(f"Written to {folder} in {report.timings_s['total']:.1f} s.")


def organ_table(organs: Sequence[OrganResult]) -> str:
    """A line an organ: its title, volume in mL, the 90 % interval of the volume, mean probability of its voxels."""
    interval = "90 % interval (mL)"
    width = max([25, *(len(organ.title) for organ in organs)])
    rows = [f"{'Organ':<{width}}{'Volume (mL)':>13}{interval:>22}{'Confidence (%)':>17}"]
    for organ in organs:
        low, high = organ.volume_interval_ml
        sure = f"{100 * organ.confidence:.0f}" if organ.volume_ml > 0 else "-"
        between = f"{low:.1f} to {high:.1f}"
        rows.append(f"{organ.title:<{width}}{organ.volume_ml:>13.1f}{between:>22}{sure:>17}")
    return "\n".join(rows)
