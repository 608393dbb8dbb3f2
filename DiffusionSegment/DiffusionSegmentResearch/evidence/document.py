"""The evidence page, written atomically after all result files are read and all plots are drawn."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from DiffusionSegmentBackend.errors import from_os_error

from .plots import write_plot
from .results import Claim, Picture, Result, read_results
from .tables import markdown_table, result_table

PLOT_FOLDER = "evidence"

_TITLE = "# Evidence\n"
_INTRODUCTION = """\
## How the numbers are formed
This page is written by `make evidence` from the result files in `{folder}/`. To change it, repeat the command given in
a section, which writes that section's file anew, and run `make evidence` again; do not edit the page itself.

A case's value is the mean over the organs that the case shows, and an organ that it does not show is left out. The
mean Dice of a row is the mean of its case values, and the median is their median. The 95 % interval comes from a
bootstrap that draws cases anew (2000 rounds, fixed seed), so it speaks of other cases like these and not of other
trainings; over a handful of cases it is too narrow, and a single case has none. Surface Dice is averaged in the same
way. Only the columns of organ groups go by organ first: each organ's mean over the cases that show it, then the mean
over the group's organs. Differences are taken case by case, over the cases and organs that both rows have (n says how
many cases where a row has more); p is Wilcoxon's signed-rank test on them, two-sided, not corrected for the number of
comparisons, and left out with fewer than five cases or when no case differs. Dice and its differences are in points,
0 to 100; other numbers have three significant digits. A dash stands for what was not measured.
"""


def write_evidence(results: Path, output: Path) -> None:
    """Write the page to `output` and its plots into the folder `evidence/` beside it, from the JSON files in `results`.

    Raises:
        DiffusionSegmentError: INPUT_MISSING, INPUT_UNREADABLE or INPUT_VALUES for the result files,
            OUTPUT_UNWRITABLE or DISK_FULL for the page. Page and plots are unchanged after an invalid result file.
    """
    loaded = read_results(results)
    text = page_text(loaded, folder=results.name)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as staging:
            _write_files(loaded, text, staging=Path(staging), output=output)
    except OSError as error:
        raise from_os_error(error, output) from error


def page_text(results: Sequence[Result], *, folder: str) -> str:
    """The page in Markdown; `folder` is the name of the folder of result files, as the introduction gives it."""
    claims = [claim for result in results for claim in result.claims]
    parts = [_TITLE, *_summary(claims), _INTRODUCTION.format(folder=folder), _claims(claims)]
    return "\n".join([*parts, *(_section(result, folder) for result in results)])


def _write_files(results: Sequence[Result], text: str, *, staging: Path, output: Path) -> None:
    page = staging / output.name
    with open(page, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
    plots = [(staging / _plot_name(result), result) for result in results if result.plot is not None]
    for path, result in plots:
        write_plot(result, path)
    if plots:
        folder = output.parent / PLOT_FOLDER
        folder.mkdir(exist_ok=True)
        for path, _ in plots:
            os.replace(path, folder / path.name)
    # The page is moved last, so that it never refers to a missing plot.
    os.replace(page, output)


def _summary(claims: Sequence[Claim]) -> list[str]:
    """What a reader with a minute takes away: the claims with a brief text, those that hold first."""
    lines = [
        f"- {claim.brief}: **{claim.here}**; asked: {claim.asked}.{_verdict(claim)}"
        for claim in _sorted(claims)
        if claim.brief
    ]
    return ["## In a minute\n" + "\n".join(lines) + "\n"] if lines else []


def _verdict(claim: Claim) -> str:
    return "" if claim.holds else " *Does not hold.*"


def _sorted(claims: Sequence[Claim]) -> list[Claim]:
    return sorted(claims, key=lambda claim: not claim.holds)


def _claims(claims: Sequence[Claim]) -> str:
    if not claims:
        return "## Claims\n\nThe result files make no claims.\n"
    held = sum(claim.holds for claim in claims)
    rows = [[claim.claim, claim.asked, claim.here, "yes" if claim.holds else "no"] for claim in _sorted(claims)]
    table = markdown_table(["claim", "asked", "here", "holds"], rows)
    return f"## Claims\n\nClaims that hold: {held} of {len(claims)}.\n\n{table}"


def _section(result: Result, folder: str) -> str:
    parts = [f"## {' '.join(result.title.split())}", f"**Question.** {result.question}", f"**Answer.** {result.answer}"]
    parts.append(result_table(result).rstrip())
    if result.plot is not None:
        parts.append(f"![{_caption(result)}]({PLOT_FOLDER}/{quote(_plot_name(result))})")
    parts += [_picture(picture, folder) for picture in result.pictures]
    parts.append(f"**Protocol.** {result.protocol}")
    if result.shortfalls:
        parts.append("**Not achieved.**\n\n" + "\n".join(f"- {' '.join(text.split())}" for text in result.shortfalls))
    else:
        parts.append("**Not achieved.** Nothing left out.")
    parts.append(_provenance(result))
    return "\n\n".join(parts) + "\n"


def _picture(picture: Picture, folder: str) -> str:
    caption = " ".join(re.sub(r"[\[\]]", "", picture.caption).split())
    return f"![{caption}]({quote(folder)}/{quote(picture.file)})\n\n*{caption}*"


def _caption(result: Result) -> str:
    assert result.plot is not None
    return re.sub(r"[\[\]]", "", f"{result.title}: {result.plot.y_label} over {result.plot.x_label}")


def _provenance(result: Result) -> str:
    source = f"From `{result.stem}.json`: commit `{result.commit}`, seed {result.seed}, {result.budget}"
    return f"{source}, {result.hardware}. Repeat with:\n\n```sh\n{result.command}\n```"


def _plot_name(result: Result) -> str:
    return f"{result.stem}.png"
