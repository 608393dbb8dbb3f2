"""Tables, codebook and page of a cohort, made from the result folders."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .. import __version__
from ..models.manifest import ModelDescription
from ..schema.dataclass_json import SchemaError
from ..schema.output_kinds import REPORT
from ..schema.report import Report
from .columns import CODEBOOK, IDENTIFIERS, ORGANS, REGIONS, SCANS, Column
from .folder import CohortFolder
from .page import write_page
from .rows import organ_rows, region_rows, review_priorities, scan_row, volume_norms
from .scan import CohortScan, Outcome
from .tables import Row, table, write_table


def write_results(
    folder: CohortFolder,
    scans: Sequence[CohortScan],
    outcomes: Mapping[str, Outcome],
    model: ModelDescription,
    *,
    identifiers: bool,
) -> None:
    """Write all tables and the page; reports are read one by one, so that memory does not grow with their number.

    Raises:
        DiffusionSegmentError: DISK_FULL or OUTPUT_UNWRITABLE; older tables stay as they were.
    """
    ordered = sorted(scans, key=lambda scan: scan.scan_id)
    labels = {label.name: label for label in model.labels}
    metadata = {"software": f"DiffusionSegment {__version__}", "model": model.name, "model_version": model.version}
    norms = volume_norms(_measured_volumes(folder, ordered, outcomes))
    rows: list[Row] = []
    with (
        table(folder.root, "organs", ORGANS, metadata) as organs,
        table(folder.root, "regions", REGIONS, metadata) as regions,
    ):
        for scan, outcome, report in _reports(folder, ordered, outcomes):
            row = scan_row(scan, outcome, report, identifiers=identifiers)
            if report is not None and outcome is not None:
                of_organs = organ_rows(scan.scan_id, report, outcome.cut, labels, norms)
                for organ in of_organs:
                    organs.add(organ)
                for region in region_rows(scan.scan_id, report):
                    regions.add(region)
                deviations = [abs(organ["volume_z"]) for organ in of_organs if organ["volume_z"] is not None]
                row["max_volume_z"] = max(deviations, default=None)
                row["volumes"] = {organ["organ"]: organ["volume_ml"] for organ in of_organs}
                row["first_region"] = report.review[0].sentence if report.review else None
            rows.append(row)
    for row, priority in zip(rows, review_priorities(rows), strict=True):
        row["review_priority"] = priority
    columns = (*SCANS, *(IDENTIFIERS if identifiers else ()))
    write_table(folder.root, "scans", columns, rows, metadata)
    _write_codebook(folder.root, columns)
    _write_inputs(folder, ordered, outcomes)
    write_page(folder, rows, model)


def read_report(path: Path) -> Report | None:
    """The report of a result folder; None if there is none, or it is damaged."""
    try:
        return Report.from_json(json.loads((path / REPORT).read_text(encoding="utf-8")))
    except (OSError, ValueError, SchemaError, RecursionError):
        return None


def _reports(
    folder: CohortFolder, scans: Sequence[CohortScan], outcomes: Mapping[str, Outcome]
) -> Iterator[tuple[CohortScan, Outcome | None, Report | None]]:
    for scan in scans:
        outcome = outcomes.get(scan.scan_id)
        done = outcome is not None and not outcome.code
        yield scan, outcome, read_report(folder.result(scan.scan_id)) if done else None


def _measured_volumes(
    folder: CohortFolder, scans: Sequence[CohortScan], outcomes: Mapping[str, Outcome]
) -> dict[str, list[float]]:
    """The volumes in mL of each organ in the scans that contain it whole."""
    volumes: dict[str, list[float]] = defaultdict(list)
    for _, outcome, report in _reports(folder, scans, outcomes):
        if report is None or outcome is None:
            continue
        for organ in report.organs:
            if organ.volume_ml > 0 and organ.name not in outcome.cut:
                volumes[organ.name].append(organ.volume_ml)
    return volumes


def _write_codebook(root: Path, scan_columns: Sequence[Column]) -> None:
    tables = {"scans": scan_columns, "organs": ORGANS, "regions": REGIONS}
    rows = [
        {"table": name, "column": column.name, "type": column.kind, "meaning": column.meaning}
        for name, columns in tables.items()
        for column in columns
    ]
    with table(root, "codebook", CODEBOOK, {}, parquet=False) as writer:
        for row in rows:
            writer.add(row)


def _write_inputs(folder: CohortFolder, scans: Sequence[CohortScan], outcomes: Mapping[str, Outcome]) -> None:
    """Which scan is which, and the full messages of errors: in the private folder."""
    columns = (SCANS[0], *IDENTIFIERS, Column("message", "text", "the error in full"))
    with table(folder.private, "inputs", columns, {}, parquet=False) as writer:
        for scan in scans:
            outcome = outcomes.get(scan.scan_id)
            known = scan_row(scan, None, None, identifiers=True)
            message = outcome.message if outcome is not None else ""
            writer.add({**known, "message": message or (scan.unfit.reason if scan.unfit is not None else None)})
