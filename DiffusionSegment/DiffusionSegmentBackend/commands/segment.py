"""What the commands do, with files at both ends of the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import DiffusionSegmentError, ErrorCode, one_line
from ..imaging.dicom_scan import check_hounsfield
from ..imaging.label_maps import read_label_map
from ..imaging.output_folder import check_replaceable
from ..imaging.shear import notes_of
from ..imaging.volume_io import Scan, read_scan
from ..models.manifest import is_installed
from ..models.model import Model, load_model
from ..pipeline.options import drawn, options_for_scan, run_plan_of
from ..pipeline.segment import build_segmentation, open_session
from ..schema.output_kinds import RESULT
from ..schema.provenance import Source
from ..schema.report import Report
from ..schema.run_options import RunOptions, RunPlan
from .progress_display import ProgressBar
from .result_extras import NOTHING_MORE, Extras, RunInput, write_run
from .several_inputs import Outcome, outcome_table, result_names
from .summary import summarise


@dataclass(frozen=True, kw_only=True)
class RunChoices:
    """What is asked of every scan of a call; `series` names one of several DICOM series, as in `read_volume`.

    `presegmentation` is a label map on disk from which the samples start. With `overwrite` a result is written into a
    folder that holds other files as well; `extras` says what else to write.
    """

    options: RunOptions = field(default_factory=RunOptions)
    presegmentation: Path | None = None
    series: str | None = None
    overwrite: bool = False
    extras: Extras = NOTHING_MORE


def segment_file(source: str, folder: Path, choices: RunChoices, *, bar: ProgressBar | None = None) -> Report:
    """Segment one scan on disk into `folder` and print a summary; returns the report.

    Raises:
        DiffusionSegmentError: whatever is wrong with the scan, the options, the model or the folder.
    """
    bar = bar or ProgressBar(quiet=True)
    check_replaceable(folder, RESULT, overwrite=choices.overwrite)
    report = _segment_into(folder, source, load_with_passes(choices.options, bar), choices, bar)
    bar.close()
    summarise(report, folder)
    return report


def segment_files(
    sources: Sequence[str],
    folder: Path,
    choices: RunChoices,
    *,
    bar: ProgressBar,
    report_error: Callable[[BaseException, str], DiffusionSegmentError],
) -> int:
    """Segment scans on disk into a folder each below `folder`, with the model loaded once, and print a table.

    Errors of a scan go to `report_error` with its name, and the others go on. Returns the exit status of
    the first error, 0 without one.

    Raises:
        DiffusionSegmentError: whatever is wrong with the model, CANCELLED.
    """
    model = load_with_passes(choices.options, bar)
    outcomes: list[Outcome] = []
    status = 0
    for number, (source, name) in enumerate(zip(sources, result_names(sources), strict=True), start=1):
        bar.next_run(f"{number}/{len(sources)} {one_line(name)}", waiting=len(sources) - number)
        try:
            check_replaceable(folder / name, RESULT, overwrite=choices.overwrite)
            report = _segment_into(folder / name, source, model, choices, bar)
        except KeyboardInterrupt as error:
            bar.close()
            print(outcome_table(outcomes))
            raise _stopped(outcomes, len(sources)) from error
        except Exception as error:
            bar.close()
            failure = report_error(error, source)
            outcomes.append(Outcome(name, bar.elapsed, failure.code.value))
            status = status or failure.exit_status
        else:
            bar.close()
            outcomes.append(Outcome(name, bar.elapsed))
            print(f"{one_line(name)} ({number} of {len(sources)})")
            summarise(report, folder / name)
            print()
    print(outcome_table(outcomes))
    return status


def _stopped(outcomes: Sequence[Outcome], count: int) -> DiffusionSegmentError:
    written = sum(not outcome.code for outcome in outcomes)
    return DiffusionSegmentError(
        ErrorCode.CANCELLED, "Stopped by the user.", hint=f"{written} of {count} results are written."
    )


def load_with_passes(
    options: RunOptions, bar: ProgressBar, *, plan_of: Callable[[RunOptions, Model], RunPlan] = run_plan_of
) -> Model:
    """Load the model of a run, and state on the bar how often its refiner passes over a scan.

    `plan_of` fills in the defaults: `run_plan_of`, or `review_plan_of`.

    Raises:
        DiffusionSegmentError: as `load_model`, and OPTION.
    """
    bar("load", 0, 1)
    model = load_model(options.model, options.device, precision=options.precision)
    plan = drawn(plan_of(options, model), model)
    bar.expect_passes(plan.samples * plan.steps)
    return model


def _segment_into(folder: Path, source: str, model: Model, choices: RunChoices, bar: ProgressBar) -> Report:
    bar("read", 0, 1)
    return segment_scan(read_scan(source, series=choices.series), source, folder, model, choices, bar=bar)


def segment_scan(
    scan: Scan, source: str, folder: Path, model: Model, choices: RunChoices, *, bar: ProgressBar, stated: bool = True
) -> Report:
    """Segment a scan that was read from `source` into `folder`; returns the report as it was written.

    The report states source and series only if they are to be `stated`.

    Raises:
        DiffusionSegmentError: whatever is wrong with the scan or the options, OUTPUT_UNWRITABLE, DISK_FULL.
    """
    volume = scan.volume
    if scan.dicom is not None and not choices.options.force:
        check_hounsfield(scan.dicom)
    options = options_for_scan(
        choices.options,
        modality=scan.modality,
        presegmentation=read_label_map(choices.presegmentation, volume) if choices.presegmentation else None,
    )
    session = open_session(volume, model, options, progress=bar)
    beside = folder if folder.is_dir() else folder.parent
    result = build_segmentation(session, model, bodypart=options.bodypart, progress=bar, folder=beside)
    origin = source_of(source, scan, model, presegmentation=choices.presegmentation) if stated else Source()
    report = replace(
        result.report,
        warnings=(*notes_of(volume), *result.report.warnings),
        provenance=replace(result.report.provenance, source=origin),
    )
    bar("write", 0, 1)
    return write_run(
        replace(result, report=report),
        session,
        RunInput(volume, model, options),
        folder,
        choices.extras,
        timings=bar.timings,
    )


def source_of(path: str, scan: Scan, model: Model, *, presegmentation: Path | None = None) -> Source:
    """The files of a run for its provenance; the model's folder only where the model is not installed."""
    model_folder, series = model.description.folder, scan.dicom.series if scan.dicom is not None else None
    return Source(
        input=str(Path(path).resolve()),
        model_folder=None if is_installed(model_folder) else str(model_folder.resolve()),
        presegmentation=str(presegmentation.resolve()) if presegmentation is not None else None,
        series=series.title if series is not None else None,
        series_uid=series.key if series is not None else None,
    )
