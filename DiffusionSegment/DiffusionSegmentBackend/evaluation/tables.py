"""Evaluations and comparisons as plain text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..datasets.labelled_folders import FolderCases
from .comparison import ComparedScore, Comparison
from .evaluate import Evaluation
from .statistics import PairedDifference
from .summary import (
    DICE,
    SURFACE_DICE,
    VOX2VEC_DICE,
    Estimate,
    OrganSummary,
    VariantSummary,
    measures_of,
    summarise_output,
    summarise_variant,
)

_TITLES = {DICE: "Dice", SURFACE_DICE: "surface Dice 2 mm", VOX2VEC_DICE: "Dice 1x1x2 mm"}
_INTERVAL = "[95 % interval]"
NOTHING = "–"


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width, the first one left-aligned, the others right-aligned."""
    lines = [header, *rows]
    widths = [max(len(line[n]) for line in lines) for n in range(len(header))]
    aligned = [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    ]
    return "\n".join(line.rstrip() for line in aligned)


def evaluation_text(evaluation: Evaluation, folders: Sequence[FolderCases]) -> str:
    """A row per variant over all cases, then a row per organ of the variant that `segment` outputs."""
    summaries = {variant: summarise_variant(evaluation, variant) for variant in evaluation.variants}
    shown = evaluation.output_variant if evaluation.output_variant in summaries else evaluation.variants[-1]
    parts = [
        f"{evaluation.model} {evaluation.version}, {_cases(len(evaluation.cases))}",
        _variant_table(evaluation, summaries),
        _organ_table(evaluation, shown, summaries[shown]),
        *_output_lines(evaluation),
        *_notes(evaluation, folders),
    ]
    return "\n\n".join(parts)


def _variant_table(evaluation: Evaluation, summaries: dict[str, VariantSummary]) -> str:
    measures = measures_of(evaluation)
    header = ["mean over cases", *(f"{_TITLES[m]} {_INTERVAL}" for m in measures), "median Dice"]
    rows = [
        [variant, *(_estimate(one.scores[m]) for m in measures), _median(one.scores[DICE])]
        for variant, one in summaries.items()
    ]
    return text_table(header, rows)


def _organ_table(evaluation: Evaluation, variant: str, summary: VariantSummary) -> str:
    measures = measures_of(evaluation)
    header = [f"organ, {variant}", *(f"{_TITLES[m]} {_INTERVAL}" for m in measures)]
    header += ["predicted mL", "true mL", "cases"]
    return text_table(header, [_organ_row(organ, one, measures) for organ, one in summary.organs.items()])


def _organ_row(organ: str, one: OrganSummary, measures: Sequence[str]) -> list[str]:
    dice = one.scores[DICE]
    scores = [_estimate(one.scores[m]) for m in measures]
    return [organ, *scores, f"{one.predicted_ml:.1f}", f"{one.true_ml:.1f}", str(dice.cases if dice else 0)]


def _output_lines(evaluation: Evaluation) -> list[str]:
    output = summarise_output(evaluation)
    if output is None or output.interval_coverage is None:
        return []
    shares = _listed(f"{100 * float(share):g}" for share in output.errors_in_most_uncertain)
    wrong = _listed(f"{100 * value:.0f}" for value in output.errors_in_most_uncertain.values())
    return [
        f"The 90 % volume intervals hold {100 * output.interval_coverage:.0f} % of the true volumes.\n"
        f"The {shares} % most uncertain voxels of the body hold {wrong} % of the wrong ones."
    ]


def _listed(numbers: Iterable[str]) -> str:
    *first, last = numbers
    return f"{', '.join(first)} and {last}"


def _notes(evaluation: Evaluation, folders: Sequence[FolderCases]) -> list[str]:
    notes = [
        f"Note: {one.folder.images} lacks {_named(one.missing)}, which splits.json names."
        for one in folders
        if one.missing
    ]
    empty = [case.name for case in evaluation.cases if not any(case.true_ml.values())]
    if empty:
        notes.append(f"Note: The true labels show no organ in {_named(empty)}, so that there is no Dice.")
    return ["\n".join(notes)] if notes else []


def comparison_text(comparison: Comparison) -> str:
    """The compared files, and a table per measure: all organs first, then each organ."""
    a, b = comparison.a, comparison.b
    left_out = [
        f"Only in {name}: {_named(cases)}."
        for name, cases in (("A", comparison.only_a), ("B", comparison.only_b))
        if cases
    ]
    heading = [
        f"A: {a.model}, {comparison.variant_a} ({a.path})",
        f"B: {b.model}, {comparison.variant_b} ({b.path})",
        f"{_cases(len(comparison.cases))} in both. {' '.join(left_out)}".rstrip(),
        "Differences are B - A with 95 % bootstrap intervals over cases; p of Wilcoxon's signed-rank test (two-sided,",
        "from five pairs on), p (Holm) adjusted for the number of organs.",
    ]
    tables = [_comparison_table(measure, rows) for measure, rows in comparison.rows.items()]
    return "\n\n".join(["\n".join(heading), *tables])


def _comparison_table(measure: str, rows: Sequence[ComparedScore]) -> str:
    header = [_TITLES[measure], "A", "B", f"B - A {_INTERVAL}", "p", "p (Holm)", "cases"]
    return text_table(
        header,
        [
            [
                row.organ or "all organs",
                f"{row.mean_a:.3f}",
                f"{row.mean_b:.3f}",
                _difference(row.difference),
                _probability(row.difference.p),
                _probability(row.p_holm),
                str(row.difference.n),
            ]
            for row in rows
        ],
    )


def _difference(one: PairedDifference) -> str:
    # Adding zero turns -0.0 into 0.0.
    mean, low, high = (f"{round(value, 3) + 0.0:+.3f}" for value in (one.mean, one.low, one.high))
    return f"{mean} [{low}, {high}]" if one.n > 1 else mean


def _probability(p: float | None) -> str:
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _estimate(one: Estimate | None) -> str:
    if one is None:
        return NOTHING
    return f"{one.mean:.3f}" + (f" [{one.interval[0]:.3f}, {one.interval[1]:.3f}]" if one.interval else "")


def _median(one: Estimate | None) -> str:
    return NOTHING if one is None else f"{one.median:.3f}"


def _cases(count: int) -> str:
    return "1 case" if count == 1 else f"{count} cases"


def _named(names: Sequence[str]) -> str:
    """The first five names, and the number of the others."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
