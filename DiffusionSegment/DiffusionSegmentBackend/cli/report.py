"""The command line of the clinic: `diffusion-segment report | export-dicom`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .command_parser import examples
from .series_option import add_series_option


def add_reporting_commands(commands: Any) -> None:
    """Add the commands to the subparsers of `diffusion-segment`."""
    _add_report(commands)
    _add_export_dicom(commands)


def _add_report(commands: Any) -> None:
    parser = commands.add_parser(
        "report",
        help="write a one-page report of a result, as HTML or PDF",
        epilog=examples("report result --scan ct.nii.gz -o report.pdf"),
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="the result of `segment` or `correct`")
    parser.add_argument("--scan", type=Path, required=True, metavar="INPUT", help="the scan that was segmented")
    add_series_option(parser)
    parser.add_argument("--before", type=Path, metavar="DIR0", help="the result before the corrections")
    parser.add_argument("--review", type=Path, metavar="FILE", help="review.json: the reader's decisions")
    parser.add_argument("--require-review", action="store_true", help="refuse unless every organ found is reviewed")
    parser.add_argument(
        "--anonymous", action="store_true", help="leave out the scan's name, patient, study date and series"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="report.html or report.pdf")
    parser.set_defaults(run=_run_report)


def _add_export_dicom(commands: Any) -> None:
    parser = commands.add_parser(
        "export-dicom",
        help="write a result as DICOM SEG",
        epilog=examples("export-dicom result --scan dicom/patient7 -o seg.dcm"),
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="the result of `segment` or `correct`")
    parser.add_argument("--scan", type=Path, required=True, metavar="DICOM", help="the segmented series")
    add_series_option(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="e.g. seg.dcm")
    parser.set_defaults(run=_run_export_dicom)


def _run_report(options: argparse.Namespace) -> None:
    from ..reporting.case_report import ReportHeader, write_case_report

    write_case_report(
        options.folder,
        options.output,
        scan=options.scan,
        series=options.series,
        before=options.before,
        review=options.review,
        require_review=options.require_review,
        header=ReportHeader(anonymous=options.anonymous),
    )


def _run_export_dicom(options: argparse.Namespace) -> None:
    from ..reporting.dicom_seg import write_dicom_seg

    write_dicom_seg(options.folder, options.output, scan=options.scan, series=options.series)
