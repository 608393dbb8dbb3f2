"""The command `cohort`: discovery, dispatch, tables and page."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from ..errors import DiffusionSegmentError, ErrorCode
from ..models.manifest import DESCRIPTION_FILE, ModelDescription, find_model, read_description
from ..protocol.requests import SegmentFiles
from ..schema.run_options import RunOptions
from .dicom_scans import DicomLister
from .discovery import Discovery
from .dispatcher import dispatch
from .executor import StartExecutor
from .folder import CohortFolder, prepare_folder
from .journal import Journal, read_journal
from .keys import settings_digest
from .lock import locked
from .progress import CohortProgress
from .pseudonyms import read_pseudonyms
from .resources import Resources, free_bytes
from .results import write_results
from .scan import CohortScan, Job, Outcome
from .worker_process import WorkerSettings

# Of the free memory, for all workers together.
_MEMORY_SHARE = 0.9
_GB = 1e9
_MINUTE = 60.0


@dataclass(frozen=True, kw_only=True)
class CohortOptions:
    """What is asked of a cohort; `time_limit_min` are the minutes after which an attempt at a scan is ended.

    With `identifiers`, tables and results state paths, patient IDs and UIDs. With `retry_failed`, scans that failed in
    an earlier run are tried again. With `share_memory` each worker gets an equal part of this computer's free memory.
    """

    sources: tuple[Path, ...]
    output: Path
    run: RunOptions
    resources: Resources
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    time_limit_min: float = 30.0
    pseudonym_key: Path | None = None
    dicom_seg: bool = False
    identifiers: bool = False
    resume: bool = False
    retry_failed: bool = False
    share_memory: bool = True
    quiet: bool = False


@dataclass(frozen=True)
class CohortPlan:
    """All scans of a cohort, what is known of them from earlier runs, and those to segment."""

    scans: tuple[CohortScan, ...]
    finished: dict[str, Outcome]
    waiting: tuple[CohortScan, ...]


def run_cohort(options: CohortOptions, start: StartExecutor) -> int:
    """Segment all scans of a cohort; returns 0 if every scan that fits the model has a result, otherwise 1.

    Raises:
        DiffusionSegmentError: whatever is wrong with input, model, options or output folder; CANCELLED.
    """
    if not options.time_limit_min > 0:
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"--time-limit is {options.time_limit_min:g} min.", hint="Choose more than 0."
        )
    model = read_description(find_model(options.run.model))
    for name in options.run.organs or ():
        model.label_named(name)
    folder = prepare_folder(options.output, resume=options.resume)
    with locked(folder.private / "lock"), _terminable():
        settings = settings_digest(
            (model.folder / DESCRIPTION_FILE).read_bytes(), options.run, dicom_seg=options.dicom_seg
        )
        earlier = read_journal(folder.journal)
        plan = _plan(_scans(options, folder, model), earlier, settings, folder, options)
        _announce(plan, options)
        recorded: set[str] = set()
        try:
            _segment(plan, earlier, settings, folder, options, start, recorded)
        finally:
            outcomes = {**plan.finished, **_of_journal(folder.journal, recorded)}
            write_results(folder, plan.scans, outcomes, model, identifiers=options.identifiers)
    return _summarise(plan, outcomes, folder)


def _of_journal(path: Path, recorded: Set[str]) -> dict[str, Outcome]:
    """The outcomes of the scans that this call has recorded; they are not kept in memory while it runs."""
    return {name: outcome for name, outcome in read_journal(path).items() if name in recorded} if recorded else {}


@contextmanager
def _terminable() -> Iterator[None]:
    """End on SIGTERM as on an interrupt from the keyboard: workers are ended, and tables written."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _scans(options: CohortOptions, folder: CohortFolder, model: ModelDescription) -> tuple[CohortScan, ...]:
    """All scans of the sources.

    Raises:
        DiffusionSegmentError: INPUT_MISSING, also where there is no scan at all.
    """
    pseudonyms = read_pseudonyms(options.pseudonym_key or folder.private / "pseudonym.key")
    lister = DicomLister(pseudonyms, folder.lists, model.modality, force=options.run.force)
    scans = tuple(Discovery(pseudonyms, lister, folder.root).scans(options.sources))
    if not scans:
        names = ", ".join(str(source) for source in options.sources)
        raise DiffusionSegmentError(
            ErrorCode.INPUT_MISSING, f"There are no scans in {names}.", hint="Give DICOM, NIfTI, NRRD or MHA files."
        )
    return scans


def _plan(
    scans: Sequence[CohortScan],
    earlier: dict[str, Outcome],
    settings: str,
    folder: CohortFolder,
    options: CohortOptions,
) -> CohortPlan:
    """Separate the scans that have an outcome, from an earlier run or because they do not fit, from the others."""
    finished: dict[str, Outcome] = {}
    waiting: list[CohortScan] = []
    for scan in scans:
        outcome = earlier.get(scan.scan_id)
        if scan.unfit is not None:
            finished[scan.scan_id] = Outcome(scan_id=scan.scan_id, code=scan.unfit.code, attempts=0)
        elif outcome is not None and _is_current(outcome, scan, settings, folder, retry=options.retry_failed):
            finished[scan.scan_id] = outcome
        else:
            waiting.append(scan)
    return CohortPlan(tuple(scans), finished, tuple(waiting))


def _is_current(outcome: Outcome, scan: CohortScan, settings: str, folder: CohortFolder, *, retry: bool) -> bool:
    """Whether an earlier outcome holds for the same files and settings, without reading the files."""
    same = bool(scan.stamp) and (outcome.stamp, outcome.settings) == (scan.stamp, settings)
    if outcome.code:
        return same and not retry
    return same and (folder.result(scan.scan_id) / "report.json").is_file()


def _segment(
    plan: CohortPlan,
    earlier: dict[str, Outcome],
    settings: str,
    folder: CohortFolder,
    options: CohortOptions,
    start: StartExecutor,
    recorded: set[str],
) -> None:
    """Segment the waiting scans; their outcomes go to the journal, and their names to `recorded`."""
    if not plan.waiting:
        return
    stamps = {scan.scan_id: scan.stamp for scan in plan.waiting}
    progress = CohortProgress(len(plan.waiting), quiet=options.quiet)

    with Journal(folder.journal) as journal:

        def record(outcome: Outcome) -> None:
            stated = replace(outcome, stamp=stamps[outcome.scan_id], settings=settings)
            before = earlier.get(outcome.scan_id)
            if outcome.kept and before is not None:
                # The bytes are the same, only the times of the files have changed.
                stated = replace(before, stamp=stated.stamp, kept=True)
            journal.add(stated)
            recorded.add(outcome.scan_id)
            progress(stated)

        executor = start(options.resources, options.worker, folder.private)
        try:
            dispatch(_jobs(plan, earlier, settings, folder, options), executor, record)
        except KeyboardInterrupt as error:
            raise DiffusionSegmentError(
                ErrorCode.CANCELLED,
                "Stopped by the user.",
                hint=f"{len(plan.finished) + len(recorded)} of {len(plan.scans)} scans are done; "
                "--resume goes on with the others.",
            ) from error
        finally:
            executor.close()
            progress.close()


def _jobs(
    plan: CohortPlan, earlier: dict[str, Outcome], settings: str, folder: CohortFolder, options: CohortOptions
) -> Iterator[Job]:
    """The jobs of the waiting scans, made one by one."""
    values = {item.name: getattr(options.run, item.name) for item in fields(RunOptions)}
    if options.run.memory_limit_gb is None and options.share_memory:
        values["memory_limit_gb"] = round(_MEMORY_SHARE * free_bytes() / options.resources.workers / _GB, 3)
    for scan in plan.waiting:
        before = earlier.get(scan.scan_id)
        request = SegmentFiles(
            id=scan.scan_id,
            output_folder=str(folder.private.absolute()),
            scan=scan.source,
            series=scan.series,
            result_folder=str(folder.result(scan.scan_id).absolute()),
            thumbnail=str(folder.thumbnail(scan.scan_id).absolute()),
            dicom_seg=str(folder.dicom_seg(scan.scan_id).absolute()) if options.dicom_seg and scan.series else "",
            settings=settings,
            finished_key=before.key if before is not None and not before.code else "",
            identifiers=options.identifiers,
            **values,
        )
        yield Job(scan_id=scan.scan_id, request=request, seconds=options.time_limit_min * _MINUTE)


def _announce(plan: CohortPlan, options: CohortOptions) -> None:
    unfit = sum(scan.unfit is not None for scan in plan.scans)
    before = len(plan.finished) - unfit
    print(
        f"{len(plan.scans)} scans: {len(plan.waiting)} to segment, {before} done before, {unfit} not fit for "
        f"{options.run.model}. Workers: {options.resources.workers}.",
        flush=True,
    )


def _summarise(plan: CohortPlan, outcomes: dict[str, Outcome], folder: CohortFolder) -> int:
    unfit = {scan.scan_id for scan in plan.scans if scan.unfit is not None}
    failed = [outcome for name, outcome in outcomes.items() if outcome.code and name not in unfit]
    done = sum(not outcome.code for outcome in outcomes.values())
    print(f"{done} of {len(plan.scans)} scans have a result, {len(unfit)} were not fit, {len(failed)} failed.")
    print(f"Tables and {folder.root / 'index.html'} are written.")
    return int(bool(failed))

