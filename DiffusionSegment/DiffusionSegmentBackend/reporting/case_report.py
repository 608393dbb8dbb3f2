"""The case report of a result folder, as a file."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.atomic_writes import check_writable, staged_file, write_text
from ..imaging.dicom_examination import read_examination
from ..imaging.volume_io import Scan, read_scan
from ..schema.examination import Examination
from .case import read_case
from .content import case_report, scan_name_of
from .html_page import html_page
from .pdf_page import write_pdf_page
from .review_state import read_review

_SUFFIXES = (".html", ".pdf")


@dataclass(frozen=True, kw_only=True)
class ReportHeader:
    """What the header of a report states.

    `date` is today unless given. `scan_name` defaults to the scan's file or folder, `examination` to that of the DICOM
    series. An `anonymous` report omits both, and the entries of the provenance that identify the scan.
    """

    date: datetime.date | None = None
    scan_name: str | None = None
    examination: Examination | None = None
    anonymous: bool = False


DEFAULT_HEADER = ReportHeader()


def write_case_report(
    folder: Path,
    output: Path,
    *,
    scan: Path,
    series: str | None = None,
    before: Path | None = None,
    review: Path | None = None,
    require_review: bool = False,
    header: ReportHeader = DEFAULT_HEADER,
) -> None:
    """Write the one-page report of the result in `folder` to `output`, HTML or PDF by its suffix.

    `series` names one of several DICOM series in `scan` (default: the one of the result), as in `read_volume`.
    `before` is the folder of the uncorrected result, `review` a review.json.

    Raises:
        DiffusionSegmentError: OPTION for another suffix, INPUT_MISSING for an unfinished result, GEOMETRY when scan and
            results differ in geometry, INPUT_VALUES for an unfinished review with `require_review`,
            OUTPUT_UNWRITABLE or DISK_FULL; an older report then stays as it was.
    """
    if output.suffix.lower() not in _SUFFIXES:
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"{output.name} is neither HTML nor PDF.", hint="Name it report.html or report.pdf."
        )
    check_writable(output.parent)
    case = read_case(folder)
    read = read_scan(scan, series=series or case.series_uid)
    report = case_report(
        case,
        read.volume,
        scan_name="" if header.anonymous else header.scan_name or scan_name_of(scan),
        examination=None if header.anonymous else header.examination or _examination_of(read),
        date=header.date or datetime.date.today(),
        review=read_review(review) if review else None,
        before=read_case(before) if before else None,
        require_review=require_review,
    )
    if output.suffix.lower() == ".html":
        write_text(output, html_page(report))
    else:
        with staged_file(output) as partial:
            write_pdf_page(report, partial)
    print(f"Written to {output}.")


def _examination_of(scan: Scan) -> Examination:
    return read_examination(scan.dicom.series.path) if scan.dicom is not None else Examination()
