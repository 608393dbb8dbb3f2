"""`diffusion-segment evaluate` and `compare`: folders and files at both ends of the evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..datasets.labelled_folders import LabelledFolder, labelled_cases
from ..evaluation.comparison import compare
from ..evaluation.comparison_files import write_comparison
from ..evaluation.evaluate import EvaluationOptions, evaluate
from ..evaluation.result_files import check_output, csv_path, write_evaluation
from ..evaluation.stored_evaluation import read_evaluation
from ..evaluation.tables import comparison_text, evaluation_text
from ..imaging.atomic_writes import check_writable
from ..models.model import load_model
from ..schema.run_options import RunOptions


def evaluate_folders(
    folders: Sequence[LabelledFolder],
    output: Path,
    *,
    part: str | None,
    options: RunOptions,
    measured: EvaluationOptions,
) -> None:
    """Evaluate on labelled folders, write the result to `output` and a CSV file beside it, and print tables.

    Raises:
        DiffusionSegmentError: OPTION, TRAINING_DATA, OUTPUT_UNWRITABLE, what a run raises; nothing is written then.
    """
    check_output(output)
    cases = labelled_cases(folders, part=part)
    check_writable(output.parent)
    model = load_model(options.model, options.device, precision=options.precision)
    evaluation = evaluate(model, [case for one in cases for case in one.cases], options, measured=measured)
    write_evaluation(output, evaluation, cases, part=part)
    print(evaluation_text(evaluation, cases))
    print(f"\nWritten to {output} and {csv_path(output)}.")


def compare_files(
    a: Path, b: Path, *, variant_a: str | None = None, variant_b: str | None = None, output: Path | None = None
) -> None:
    """Print how the evaluation `b` differs from `a`, and write it to `output` with a CSV file beside it, if given.

    Raises:
        DiffusionSegmentError: as `read_evaluation` and `compare`; OPTION or OUTPUT_UNWRITABLE for the output.
    """
    if output is not None:
        check_output(output)
    comparison = compare(read_evaluation(a), read_evaluation(b), variant_a=variant_a, variant_b=variant_b)
    if output is not None:
        write_comparison(output, comparison)
    print(comparison_text(comparison))
    if output is not None:
        print(f"\nWritten to {output} and {csv_path(output)}.")
