"""The result of `evaluate` on disk: strict JSON, and a CSV file with a row per case, organ and variant."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from .. import __version__
from ..datasets.labelled_folders import FolderCases
from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.atomic_writes import staged_file
from .case_measures import CaseMeasures, OrganMeasures, OutputMeasures
from .evaluate import Evaluation
from .summary import (
    DICE,
    LEVEL,
    ROUNDS,
    SEED,
    SURFACE_DICE,
    VOX2VEC_DICE,
    Estimate,
    OrganSummary,
    OutputSummary,
    body_coordinate_spread,
    summarise_output,
    summarise_variant,
)

FORMAT = "diffusion-segment evaluation"
FORMAT_VERSION = 1
CSV_COLUMNS = (
    *("case", "organ", "variant", DICE, SURFACE_DICE, "predicted_ml", "true_ml"),
    *("interval_low_ml", "interval_high_ml", VOX2VEC_DICE),
)
_SCORE_DIGITS, _ML_DIGITS = 4, 2


def check_output(path: Path) -> None:
    """Check that the name of the JSON file differs from that of its CSV file and is not a folder.

    Raises:
        DiffusionSegmentError: OPTION.
    """
    if path == csv_path(path) or path.is_dir():
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"{path} cannot be the result file.", hint="Name a JSON file, such as metrics.json."
        )


def csv_path(path: Path) -> Path:
    """The CSV file beside a result file."""
    return path.with_suffix(".csv")


def write_evaluation(path: Path, evaluation: Evaluation, folders: list[FolderCases], *, part: str | None) -> None:
    """Write the JSON file and the CSV file beside it, both or neither.

    Raises:
        DiffusionSegmentError: OUTPUT_UNWRITABLE or DISK_FULL.
    """
    write_pair(path, evaluation_json(evaluation, folders, part=part), evaluation_csv(evaluation))


def write_pair(path: Path, values: dict[str, Any], table: str) -> None:
    """Write JSON without NaN, and a CSV file beside it.

    Raises:
        DiffusionSegmentError: OUTPUT_UNWRITABLE or DISK_FULL; then neither file is written.
    """
    text = json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    with staged_file(path) as json_file, staged_file(csv_path(path)) as csv_file:
        # Undecodable bytes of file names become '?'.
        csv_file.write_bytes(table.encode("utf-8", errors="replace"))
        json_file.write_bytes(text.encode("utf-8", errors="replace"))


def csv_text(columns: tuple[str, ...], rows: list[dict[str, Any]]) -> str:
    """Rows as comma-separated values with a header; None becomes an empty field."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def evaluation_csv(evaluation: Evaluation) -> str:
    """One row per case, annotated organ and variant."""
    return csv_text(
        CSV_COLUMNS, [row for case in evaluation.cases for row in _csv_rows(case, evaluation.output_variant)]
    )


def _csv_rows(case: CaseMeasures, output_variant: str) -> list[dict[str, Any]]:
    rows = []
    for variant, organs in case.variants.items():
        intervals = case.output.intervals_ml if case.output is not None and variant == output_variant else {}
        for organ, one in organs.items():
            low, high = intervals.get(organ, (None, None))
            rows.append(
                {
                    "case": case.name,
                    "organ": organ,
                    "variant": variant,
                    **_organ_json(one),
                    "true_ml": _ml(case.true_ml[organ]),
                    "interval_low_ml": _ml(low),
                    "interval_high_ml": _ml(high),
                    VOX2VEC_DICE: _score(one.dice_1x1x2mm),
                }
            )
    return rows


def evaluation_json(evaluation: Evaluation, folders: list[FolderCases], *, part: str | None) -> dict[str, Any]:
    """The content of the JSON file, as docs/EVALUATION.md describes it."""
    summaries = {variant: summarise_variant(evaluation, variant) for variant in evaluation.variants}
    means = {variant: _plain_means(one.scores) for variant, one in summaries.items()}
    spread = body_coordinate_spread(evaluation.cases, evaluation.organs)
    plan = evaluation.run
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "software": f"DiffusionSegment {__version__}",
        "model": evaluation.model,
        "model_version": evaluation.version,
        "sha256": evaluation.sha256,
        "options": {
            "samples": evaluation.run.samples,
            "steps": plan.steps,
            "seed": plan.seed,
            "sampler": plan.sampler,
            "schedule": plan.schedule,
            "abar_start": plan.abar_start,
        },
        "data": [_folder_json(one, part) for one in folders],
        "cases": len(evaluation.cases),
        "organs": list(evaluation.organs),
        "variants": list(evaluation.variants),
        "answer": evaluation.output_variant,
        "bootstrap": {"level": LEVEL, "rounds": ROUNDS, "seed": SEED},
        "mean_dice": {variant: one[DICE] for variant, one in means.items()},
        "median_dice": {variant: _median(one.scores[DICE]) for variant, one in summaries.items()},
        SURFACE_DICE: {variant: one[SURFACE_DICE] for variant, one in means.items()},
        **({VOX2VEC_DICE: {v: one[VOX2VEC_DICE] for v, one in means.items()}} if evaluation.vox2vec else {}),
        "organ_dice": {
            variant: {organ: _plain_means(o.scores)[DICE] for organ, o in one.organs.items()}
            for variant, one in summaries.items()
        },
        "summary": {
            variant: {
                **{measure: _estimate_json(value) for measure, value in one.scores.items()},
                "organs": {organ: _organ_summary_json(o) for organ, o in one.organs.items()},
            }
            for variant, one in summaries.items()
        },
        **_output_summary_json(summarise_output(evaluation)),
        "bodypart_spread_mm": None if spread is None else [round(v, _SCORE_DIGITS) for v in spread],
        "by_case": {case.name: _case_json(case) for case in evaluation.cases},
    }


def _folder_json(one: FolderCases, part: str | None) -> dict[str, Any]:
    return {
        "images": str(one.folder.images.resolve()),
        "labels": str(one.folder.labels.resolve()),
        "part": part,
        "cases": [case.name for case in one.cases],
        "missing": list(one.missing),
    }


def _case_json(case: CaseMeasures) -> dict[str, Any]:
    return {
        "image": case.image,
        "label": case.label,
        "true_ml": {organ: _ml(value) for organ, value in case.true_ml.items()},
        "variants": {
            variant: {organ: _organ_json(one) for organ, one in organs.items()}
            for variant, organs in case.variants.items()
        },
        **_output_json(case.output),
        "bodypart_at_centroids_mm": {
            organ: None if point is None else [round(value, 1) for value in point]
            for organ, point in case.body_coordinates_mm.items()
        },
        "seconds": dict(case.seconds),
    }


def _organ_json(one: OrganMeasures) -> dict[str, Any]:
    scores = {DICE: _score(one.dice), SURFACE_DICE: _score(one.surface_dice_2mm), "predicted_ml": _ml(one.predicted_ml)}
    return scores if one.dice_1x1x2mm is None else {**scores, VOX2VEC_DICE: _score(one.dice_1x1x2mm)}


def _output_json(output: OutputMeasures | None) -> dict[str, Any]:
    if output is None:
        return {}
    return {
        "intervals_ml": {organ: [_ml(low), _ml(high)] for organ, (low, high) in output.intervals_ml.items()},
        "errors_in_most_uncertain": {k: _score(v) for k, v in output.errors_in_most_uncertain.items()},
        "islands": {"taken out": output.removed_islands, "mostly the organ": output.islands_mostly_organ},
    }


def _output_summary_json(output: OutputSummary | None) -> dict[str, Any]:
    if output is None:
        return {}
    return {
        "volume_interval_coverage": _score(output.interval_coverage),
        "errors_in_most_uncertain": {k: _score(v) for k, v in output.errors_in_most_uncertain.items()},
        "islands": {"taken out": output.removed_islands, "mostly the organ": output.islands_mostly_organ},
    }


def _organ_summary_json(one: OrganSummary) -> dict[str, Any]:
    return {
        **{measure: _estimate_json(value) for measure, value in one.scores.items()},
        "predicted_ml": _ml(one.predicted_ml),
        "true_ml": _ml(one.true_ml),
        "mean_absolute_error_ml": _ml(one.mean_absolute_error_ml),
    }


def _estimate_json(one: Estimate | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {
        "mean": _score(one.mean),
        "median": _score(one.median),
        "interval": None if one.interval is None else [_score(bound) for bound in one.interval],
        "cases": one.cases,
    }


def _plain_means(scores: dict[str, Estimate | None]) -> dict[str, float | None]:
    return {measure: None if one is None else _score(one.mean) for measure, one in scores.items()}


def _median(one: Estimate | None) -> float | None:
    return None if one is None else _score(one.median)


def _score(value: float | None) -> float | None:
    return None if value is None else round(value, _SCORE_DIGITS)


def _ml(value: float | None) -> float | None:
    return None if value is None else round(value, _ML_DIGITS)
