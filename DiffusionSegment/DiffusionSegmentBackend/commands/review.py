"""Review of a segmentation from any source: a result folder with its uncertainty and the regions to review."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from ..errors import DiffusionSegmentError, ErrorCode, one_line
from ..imaging.dicom_scan import check_hounsfield
from ..imaging.output_folder import check_replaceable
from ..imaging.segmentation_files import SegmentationFile, read_segmentation
from ..imaging.shear import notes_of
from ..imaging.volume import Volume
from ..imaging.volume_io import Scan, read_scan, write_map
from ..models.model import Model
from ..pipeline.checks import check_modality
from ..pipeline.options import options_for_scan, review_plan_of
from ..pipeline.segment import build_segmentation, open_session
from ..presegmenters.plugin import DEFAULT_LIMIT_MIN, PresegmenterModel
from ..presegmenters.run import RunLimits, run_presegmenter
from ..schema.model_manifest import ModelLabel
from ..schema.output_kinds import RESULT, REVIEWED
from ..schema.report import Report
from ..schema.reviewed_segmentation import OtherSegment, ReviewedSegmentation
from ..schema.run_options import RunOptions
from ..schema.segment_matching import GIVEN, VALUE, SegmentMatching, SegmentName, match_segments
from .progress_display import ProgressBar
from .result_extras import NOTHING_MORE, Extras, RunAdditions, RunInput, write_run
from .segment import load_with_passes, source_of
from .summary import summarise

_LARGEST = 255


@dataclass(frozen=True, kw_only=True)
class ReviewChoices:
    """Options of a review.

    `segmentation` is the file, or the model of another program that makes it within `limit_min` minutes; `names` are
    those of its segments by value, where it has none; `given` the organs by segment that are decided by the user; the
    rest is as in `segment.RunChoices`.
    """

    segmentation: Path | PresegmenterModel
    limit_min: float = DEFAULT_LIMIT_MIN
    names: Mapping[int, str] | None = None
    given: Mapping[str, str] = field(default_factory=dict)
    options: RunOptions = field(default_factory=RunOptions)
    series: str | None = None
    overwrite: bool = False
    extras: Extras = NOTHING_MORE


@dataclass(frozen=True)
class GivenFile:
    """The file of a segmentation, the names of its values where they are given, and what the report names it."""

    path: Path
    names: Mapping[int, str] | None
    source: str


@dataclass(frozen=True)
class ReviewInput:
    """A segmentation with the values of the model, and larger ones for other segments; and how it was matched.

    `organs` are the names of the labels that it covers; `warnings` are sentences for the report.
    """

    labels: NDArray[np.uint8]
    organs: tuple[str, ...]
    record: ReviewedSegmentation
    warnings: tuple[str, ...] = ()


def review_file(source: str, folder: Path, choices: ReviewChoices, *, bar: ProgressBar | None = None) -> Report:
    """Review a segmentation of one scan on disk into `folder` and print a summary; returns the report.

    Raises:
        DiffusionSegmentError: whatever is wrong with scan, segmentation, options, model or folder; INPUT_VALUES where
            no segment is a label of the model.
    """
    bar = bar or ProgressBar(quiet=True)
    check_replaceable(folder, RESULT, overwrite=choices.overwrite)
    model = load_with_passes(choices.options, bar, plan_of=review_plan_of)
    bar("read", 0, 1)
    scan = read_scan(source, series=choices.series)
    if scan.dicom is not None and not choices.options.force:
        check_hounsfield(scan.dicom)
    with given_file(scan, choices, bar) as file:
        given = read_review_input(scan, model.description.labels, file, choices)
    for line in match_table(given.record, model.description.labels):
        bar.say(line)
    report = _review_into(folder, source, scan, model, given, choices, bar)
    bar.close()
    summarise(report, folder)
    return report


@contextmanager
def given_file(scan: Scan, choices: ReviewChoices, bar: ProgressBar) -> Iterator[GivenFile]:
    """The file of the segmentation; that of a presegmenter exists while the context is open.

    Raises:
        DiffusionSegmentError: MODALITY for a presegmenter of another modality than the scan's, and as
            `run_presegmenter`.
    """
    model = choices.segmentation
    if isinstance(model, Path):
        yield GivenFile(model, choices.names, str(model.resolve()))
        return
    if model.modality is not None and not choices.options.force:
        check_modality(scan.volume.array, expected=model.modality, stated=scan.modality)
    bar("presegmenter", 0, 1)
    limits = RunLimits(device=choices.options.device, minutes=choices.limit_min)
    with TemporaryDirectory(prefix="diffusion-segment-") as folder:
        output = run_presegmenter(model, scan.volume, Path(folder), limits)
        yield GivenFile(output, choices.names or model.names, model.title)


def read_review_input(
    scan: Scan, labels: tuple[ModelLabel, ...], given: GivenFile, choices: ReviewChoices
) -> ReviewInput:
    """Read the segmentation on the voxels of the scan, with the values of the model's labels.

    Raises:
        DiffusionSegmentError: as `read_segmentation` and `match_segments`, INPUT_VALUES where no segment is a label of
            the model, OPTION for requested organs that the segmentation does not cover.
    """
    file = read_segmentation(given.path, scan, names=given.names, force=choices.options.force)
    own = not file.has_names and all(value <= len(labels) for value in file.names)
    if own:
        file = _with_names_of_model(file, labels)
    values = tuple(file.names)
    matching = match_segments([file.names[value] for value in values], labels, given=choices.given)
    if own:
        matching = _by_value(matching)
    if not matching.matched:
        segments = ", ".join(matching.segments) or "none"
        raise DiffusionSegmentError(
            ErrorCode.INPUT_VALUES,
            f"No segment of {given.source} is an organ of the model; its segments: {segments}.",
            hint="Match them with --match NAME=ORGAN, or choose another model.",
        )
    table, others = _value_table(values, matching, labels, given.source)
    values_of_model, not_covered = table[file.labels], None
    if file.covered is not None:
        not_covered = _free_value(others, labels, given.source)
        values_of_model[~file.covered] = not_covered
    return ReviewInput(
        labels=values_of_model,
        organs=_covered(matching, labels, choices.options.organs, given.source),
        record=ReviewedSegmentation(
            source=given.source, not_covered=not_covered, matches=matching.matched, unmatched=others
        ),
        warnings=(
            *file.notes,
            *(["The label map names no segments: its values were taken for those of the model."] if own else []),
            *([_not_judged(others)] if others else []),
        ),
    )


def _with_names_of_model(file: SegmentationFile, labels: tuple[ModelLabel, ...]) -> SegmentationFile:
    names = {label.value: SegmentName(name=label.name) for label in labels if label.value in file.names}
    return replace(file, names=names)


def _by_value(matching: SegmentMatching) -> SegmentMatching:
    """A matching by the names of the model with the reason that the names have: the values."""
    matches = tuple(
        match if match is None or match.reason == GIVEN else replace(match, reason=VALUE) for match in matching.matches
    )
    return replace(matching, matches=matches)


def _value_table(
    values: tuple[int, ...], matching: SegmentMatching, labels: tuple[ModelLabel, ...], source: str
) -> tuple[NDArray[np.uint8], tuple[OtherSegment, ...]]:
    """The value of the result for every value of the file; other segments have values from 255 downwards."""
    table = np.zeros(_LARGEST + 1, dtype=np.uint8)
    others: list[OtherSegment] = []
    for value, name, match in zip(values, matching.segments, matching.matches, strict=True):
        if match is not None:
            table[value] = match.value
            continue
        other = OtherSegment(name=name, value=_free_value(others, labels, source))
        table[value] = other.value
        others.append(other)
    return table, tuple(others)


def _free_value(others: Sequence[OtherSegment], labels: tuple[ModelLabel, ...], source: str) -> int:
    """The next value, from 255 downwards, that no label of the model has.

    Raises:
        DiffusionSegmentError: INPUT_VALUES where there is none.
    """
    value = _LARGEST - len(others)
    if value <= len(labels):
        raise DiffusionSegmentError(
            ErrorCode.INPUT_VALUES,
            f"{source} has too many segments that are no organs of the model.",
            hint="Export those that are to be reviewed.",
        )
    return value


def _covered(
    matching: SegmentMatching, labels: tuple[ModelLabel, ...], organs: tuple[str, ...] | None, source: str
) -> tuple[str, ...]:
    """The organs that are reviewed: those of the segmentation, or of them those that were requested.

    Raises:
        DiffusionSegmentError: OPTION for a requested organ that the segmentation does not cover.
    """
    if organs is None:
        return matching.organs
    requested = match_segments([SegmentName(name=name) for name in organs], labels)
    for name, match in zip(organs, requested.matches, strict=True):
        if match is None or match.organ not in matching.organs:
            raise DiffusionSegmentError(
                ErrorCode.OPTION,
                f"{source} has no segment of the organ '{name}'.",
                hint=f"It covers {', '.join(matching.organs)}.",
            )
    return requested.organs


def _not_judged(others: tuple[OtherSegment, ...]) -> str:
    names = [other.name for other in others[:5]]
    more = f" and {len(others) - 5} more" if len(others) > 5 else ""
    return f"Not reviewed, because they are no organs of the model: {', '.join(names)}{more}."


def match_table(record: ReviewedSegmentation, labels: tuple[ModelLabel, ...]) -> list[str]:
    """A line for each segment: its name, the organ that it is, and the reason."""
    titles = {label.name: label.title for label in labels}
    width = max([25, *(len(match.segment) for match in record.matches)])
    lines = [f"{'Segment':<{width}}  {'Organ':<25}  by"]
    lines += [
        f"{one_line(match.segment):<{width}}  {titles[match.organ]:<25}  {match.reason}" for match in record.matches
    ]
    if record.unmatched:
        lines.append(f"No organ of the model: {one_line(', '.join(other.name for other in record.unmatched))}")
    return lines


def _review_into(
    folder: Path,
    source: str,
    scan: Scan,
    model: Model,
    given: ReviewInput,
    choices: ReviewChoices,
    bar: ProgressBar,
) -> Report:
    volume = scan.volume
    options = options_for_scan(
        replace(choices.options, organs=given.organs), modality=scan.modality, reviewed=given.labels
    )
    session = open_session(volume, model, options, progress=bar)
    beside = folder if folder.is_dir() else folder.parent
    result = build_segmentation(session, model, bodypart=options.bodypart, progress=bar, folder=beside)
    report = replace(
        result.report,
        reviewed=given.record,
        warnings=(*notes_of(volume), *given.warnings, *result.report.warnings),
        provenance=replace(result.report.provenance, source=source_of(source, scan, model)),
    )
    bar("write", 0, 1)

    def write(staging: Path) -> None:
        write_map(Volume(given.labels, volume.index_to_lps), staging / REVIEWED)

    return write_run(
        replace(result, report=report),
        session,
        RunInput(volume, model, options),
        folder,
        choices.extras,
        additions=RunAdditions(write=write),
        timings=bar.timings,
    )
