"""The case report of a real result: its content in HTML and PDF, and the input that is refused."""

from __future__ import annotations

import base64
import datetime
import io
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import read_volume, write_volume
from DiffusionSegmentBackend.models.model import find_model
from DiffusionSegmentBackend.reporting.case import read_case
from DiffusionSegmentBackend.reporting.case_report import ReportHeader, write_case_report
from DiffusionSegmentBackend.reporting.colours import distinct_colours
from DiffusionSegmentBackend.reporting.content import CaseReport, case_report
from DiffusionSegmentBackend.reporting.html_page import html_page
from DiffusionSegmentBackend.reporting.review_state import read_review
from DiffusionSegmentBackend.schema.output_kinds import REPORT, SEGMENTATION, UNCERTAINTY
from matplotlib.image import imread

DATE = datetime.date(2026, 5, 4)
HOSTILE = "<img src=x onerror=alert(1)> & $\\frac{$ \"q\" 'q'.nii.gz"


class Page(HTMLParser):
    """The content of a page: tags with their attributes, table rows as lists of words, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.words = ""
        self.in_cell = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.in_cell = True
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.words += " " + " ".join(data.split())
        if self.in_cell:
            self.rows[-1][-1] += data.strip()

    def pictures(self) -> list[np.ndarray]:
        urls = [attributes["src"] or "" for tag, attributes in self.tags if tag == "img"]
        assert all(url.startswith("data:image/png;base64,") for url in urls)
        return [imread(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls]


def change(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Edit a result's report.json."""
    report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    edit(report)
    (folder / REPORT).write_text(json.dumps(report), encoding="utf-8")


def write_review(folder: Path, review: object) -> Path:
    (folder / "review.json").write_text(json.dumps(review), encoding="utf-8")
    return folder / "review.json"


@pytest.fixture
def written(finished: Path, scan_file: Path, tmp_path: Path) -> Callable[..., Page]:
    """Write the HTML report and read it back."""

    def write(folder: Path = finished, scan: Path = scan_file, **options: Any) -> Page:
        stated = {name: options.pop(name) for name in ("scan_name", "examination", "anonymous") if name in options}
        header = ReportHeader(date=DATE, **stated)
        write_case_report(folder, tmp_path / "report.html", scan=scan, header=header, **options)
        return Page((tmp_path / "report.html").read_text(encoding="utf-8"))

    return write


def content(folder: Path, scan: Volume, **options: Any) -> CaseReport:
    return case_report(read_case(folder), scan, scan_name="ct.nii.gz", date=DATE, **options)


def test_the_table_holds_every_organ_with_its_numbers(written: Callable[..., Page], finished: Path) -> None:
    page = written()
    organs = json.loads((finished / REPORT).read_text(encoding="utf-8"))["organs"]
    assert page.rows[0] == ["Organ", "Volume (mL)", "90 % interval (mL)", "Confidence", "Review"]
    assert len(page.rows) == 1 + len(organs) == 14
    for row, organ in zip(page.rows[1:], organs, strict=True):
        low, high = organ["volume_interval_ml"]
        volume = f"{organ['volume_ml']:.1f}" if organ["volume_ml"] else "not found"
        confidence = f"{100 * organ['confidence']:.0f} %" if organ["volume_ml"] else "-"
        assert row == [organ["title"], volume, f"{low:.1f} to {high:.1f}", confidence, "not reviewed"]


def test_an_absent_organ_has_neither_volume_nor_confidence(written: Callable[..., Page], result: Path) -> None:
    change(result, lambda report: report["organs"][3].update(volume_ml=0.0, confidence=0.0))
    assert written(result).rows[4][:2] == ["Gallbladder", "not found"]
    assert written(result).rows[4][3] == "-"


def test_margins_have_a_column_where_the_model_has_them(written: Callable[..., Page], result: Path) -> None:
    margin = {"mm": 4.2, "contained": 0.99, "coverage": 0.9, "scans": 22, "missed": 1}
    change(result, lambda report: report["organs"][0].update(margin=margin))
    page = written(result)
    assert page.rows[0] == ["Organ", "Volume (mL)", "90 % interval (mL)", "Confidence", "Margin", "Review"]
    assert page.rows[1][4] == "4 mm (n = 22, 1 missed)"
    assert page.rows[2][4] == ""
    assert "Margin: 99 % of the organ lie within this distance of its segment in 90 % of n scans" in page.words
    assert "Margin" not in written().words


def test_organs_have_distinct_colours_from_their_model(written: Callable[..., Page]) -> None:
    labels = json.loads((find_model("abdomen-ct") / "model.json").read_text(encoding="utf-8"))["labels"]
    styles = [attributes["style"] for tag, attributes in written().tags if attributes.get("class") == "swatch"]
    colours = distinct_colours([tuple(label["colour"]) for label in labels])
    assert styles == [f"background: rgb({', '.join(map(str, colour))})" for colour in colours]


def test_model_date_warnings_provenance_and_caution_are_shown(written: Callable[..., Page], result: Path) -> None:
    change(result, lambda report: report.update(warnings=["At the edge of the scan: liver."]))
    page = written(result)
    provenance = json.loads((result / REPORT).read_text(encoding="utf-8"))["provenance"]
    for words in (
        "ct.nii.gz",
        f"(abdomen-ct {provenance['version']})",
        "2026-05-04",
        "At the edge of the scan: liver.",
        provenance["software"],
        provenance["sha256"],
        "Not for diagnosis.",
    ):
        assert words in page.words
    for name in ("Seed", "Samples", "Sampler", "Steps per sample", "Start (alpha_bar)", "Device", "PyTorch"):
        assert name in page.words


def test_organs_and_region_of_the_run_are_shown_as_text(written: Callable[..., Page], result: Path) -> None:
    box = [-150.0, 0, 0, -2.0, 0, -120.0, 0, -3.0, 0, 0, 125.0, -64.0, 0, 0, 0, 1.0]
    change(result, lambda report: report["provenance"].update(organs=["liver", "spleen"], region=box))
    page = written(result)
    assert "liver, spleen" in page.words
    assert "300 x 240 x 250 mm around (-2, -3, -64) LPS" in page.words
    change(result, lambda report: report["provenance"].update(organs=None, region=None))
    page = written(result)
    assert "the whole scan" in page.words
    assert "null" not in page.words


def test_the_four_worst_regions_are_shown_with_their_sentences(written: Callable[..., Page], finished: Path) -> None:
    page = written()
    regions = json.loads((finished / REPORT).read_text(encoding="utf-8"))["review"]
    assert len(regions) > 4
    assert [region["sentence"] in page.words for region in regions[:5]] == [True] * 4 + [False]
    pictures = page.pictures()
    assert len(pictures) == 4
    for picture in pictures:
        colourful = np.ptp(picture[..., :3], axis=-1) > 0.2
        assert picture.shape[0] > 300
        assert 0.001 < colourful.mean() < 0.8


def test_a_result_without_regions_to_review_is_reported_as_such(written: Callable[..., Page], result: Path) -> None:
    change(result, lambda report: report.update(review=[]))
    page = written(result)
    assert page.pictures() == []
    assert "names no region to review" in page.words


def test_html_in_names_and_sentences_is_escaped(written: Callable[..., Page], result: Path, tmp_path: Path) -> None:
    scan = tmp_path / HOSTILE
    shutil.copy(result / SEGMENTATION, scan)
    change(result, lambda report: report["review"][0].update(sentence="<script>alert(2)</script>"))
    page = written(result, scan)
    assert HOSTILE in page.words
    assert "<script>alert(2)</script>" in page.words
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe"})
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    write_case_report(result, tmp_path / "report.pdf", scan=scan)
    assert (tmp_path / "report.pdf").stat().st_size > 10_000


def test_the_page_has_no_external_resources(finished: Path, scan: Volume) -> None:
    text = html_page(content(finished, scan))
    without_pictures = re.sub(r"data:image/png;base64,[\w+/=]+", "", text)
    assert "http://" not in without_pictures
    assert "https://" not in without_pictures
    assert "url(" not in without_pictures


def test_before_and_after_are_side_by_side(written: Callable[..., Page], finished: Path, result: Path) -> None:
    """The corrected result has no liver and no regions to review: those of the result before are shown."""

    def corrected(report: dict[str, Any]) -> None:
        report["organs"][5].update(volume_ml=1234.5, volume_interval_ml=[1234.5, 1234.5])
        report["review"] = []

    change(result, corrected)
    labels = read_volume(result / SEGMENTATION)
    write_volume(Volume(np.where(labels.array == 6, 0, labels.array), labels.index_to_lps), result / SEGMENTATION)
    page = written(result, before=finished)
    assert page.rows[0][1:3] == ["Before (mL)", "Volume (mL)"]
    assert page.rows[6][2] == "1234.5"
    assert page.rows[6][1] == written(finished).rows[6][1]
    plain = written(finished, before=finished).pictures()
    assert len(page.pictures()) == 4
    changed = [np.abs(one - other).max(axis=-1) for one, other in zip(page.pictures(), plain, strict=True)]
    halves = [np.array_split(difference, 2, axis=1) for difference in changed]
    assert max(left.max() for left, _ in halves) == 0
    assert max(right.max() for _, right in halves) > 0.2


def test_the_review_is_shown(written: Callable[..., Page], tmp_path: Path) -> None:
    review = {
        "organs": {"liver": "accepted", "spleen": "needs work", "aorta": "flagged"},
        "regions": [{"index": 0, "state": "corrected"}, {"index": 2, "state": "flagged"}],
    }
    page = written(review=write_review(tmp_path, review))
    states = {row[0]: row[-1] for row in page.rows[1:]}
    assert (states["Liver"], states["Spleen"], states["Aorta"]) == ("accepted", "needs work", "flagged")
    assert states["Stomach"] == "not reviewed"
    shown = re.findall(r"expected to be wrong\. (\w+)", page.words)
    assert shown == ["corrected", "open", "flagged", "open"]


def test_a_review_can_be_required(written: Callable[..., Page], finished: Path, tmp_path: Path) -> None:
    organs = {organ.name: "accepted" for organ in read_case(finished).organs}
    organs["liver"], organs["spleen"] = "not reviewed", "needs work"
    with pytest.raises(DiffusionSegmentError, match="not finished: spleen, liver") as caught:
        written(review=write_review(tmp_path, {"organs": organs}), require_review=True)
    assert caught.value.code is ErrorCode.INPUT_VALUES
    with pytest.raises(DiffusionSegmentError, match="not finished"):
        written(require_review=True)
    organs["liver"], organs["spleen"] = "accepted", "flagged"
    assert written(review=write_review(tmp_path, {"organs": organs}), require_review=True).rows


@pytest.mark.parametrize(
    ("review", "code", "word"),
    [
        ({"organs": {"liver": "fine"}}, ErrorCode.INPUT_UNREADABLE, "fine"),
        ({"regions": [{"index": 0, "state": "needs work"}]}, ErrorCode.INPUT_UNREADABLE, "needs work"),
        ({"organs": {"heart": "accepted"}}, ErrorCode.INPUT_VALUES, "heart"),
        ({"regions": [{"index": 999, "state": "open"}]}, ErrorCode.INPUT_VALUES, "999"),
        ({"regions": [{"index": -1, "state": "open"}]}, ErrorCode.INPUT_VALUES, "-1"),
        ({"regions": [{"index": 1, "state": "open"}] * 2}, ErrorCode.INPUT_UNREADABLE, "twice"),
        ({"regions": [{"index": "1", "state": "open"}]}, ErrorCode.INPUT_UNREADABLE, "index"),
        ({"regions": [{"state": "open"}]}, ErrorCode.INPUT_UNREADABLE, "index"),
        (["liver"], ErrorCode.INPUT_UNREADABLE, "not a review"),
    ],
)
def test_an_invalid_review_is_refused(
    written: Callable[..., Page], tmp_path: Path, review: object, code: ErrorCode, word: str
) -> None:
    with pytest.raises(DiffusionSegmentError, match=word) as caught:
        written(review=write_review(tmp_path, review))
    assert caught.value.code is code
    assert "\n" not in str(caught.value)


def test_a_missing_or_unreadable_review_is_refused(tmp_path: Path) -> None:
    (tmp_path / "review.json").write_text("{", encoding="utf-8")
    for name, code in (("none.json", ErrorCode.INPUT_MISSING), ("review.json", ErrorCode.INPUT_UNREADABLE)):
        with pytest.raises(DiffusionSegmentError) as caught:
            read_review(tmp_path / name)
        assert caught.value.code is code


@pytest.mark.parametrize("name", [REPORT, SEGMENTATION, UNCERTAINTY])
def test_an_unfinished_result_is_refused(written: Callable[..., Page], result: Path, name: str) -> None:
    (result / name).unlink()
    with pytest.raises(DiffusionSegmentError, match=f"not a finished result: it holds no {name}") as caught:
        written(result)
    assert caught.value.code is ErrorCode.INPUT_MISSING


def drop_provenance(report: dict[str, Any]) -> None:
    del report["provenance"]["sha256"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda report: report.pop("organs"),
        lambda report: report["organs"][0].update(volume_interval_ml=[1.0]),
        lambda report: report["review"][0].update(centroid_lps_mm="here"),
        drop_provenance,
    ],
)
def test_a_damaged_report_is_refused(
    written: Callable[..., Page], result: Path, damage: Callable[[dict[str, Any]], None]
) -> None:
    change(result, damage)
    with pytest.raises(DiffusionSegmentError, match="is damaged") as caught:
        written(result)
    assert caught.value.code is ErrorCode.INPUT_UNREADABLE


def test_another_scan_or_another_result_before_is_refused(
    written: Callable[..., Page], result: Path, scan: Volume, tmp_path: Path
) -> None:
    write_volume(Volume(scan.array[1:], scan.index_to_lps), tmp_path / "other.nii.gz")
    with pytest.raises(DiffusionSegmentError, match="differ in geometry") as caught:
        written(scan=tmp_path / "other.nii.gz")
    assert caught.value.code is ErrorCode.GEOMETRY
    moved = scan.index_to_lps + np.array([[0, 0, 0, 5.0], *[[0.0] * 4] * 3])
    for name in (SEGMENTATION, UNCERTAINTY):
        write_volume(Volume(read_volume(result / name).array, moved), result / name)
    with pytest.raises(DiffusionSegmentError, match="before and after differ in geometry"):
        written(before=result)


def test_without_the_model_titles_stay_and_colours_differ(written: Callable[..., Page], result: Path) -> None:
    change(result, lambda report: report["provenance"].update(model="not-installed-here"))
    page = written(result)
    assert page.rows[6][0] == "Liver"
    styles = {attributes["style"] for _, attributes in page.tags if attributes.get("class") == "swatch"}
    assert len(styles) == 13
    assert len(page.pictures()) == 4


@pytest.mark.parametrize("name", ["report.html", "report.pdf"])
def test_a_full_disk_keeps_the_older_report(
    finished: Path, scan_file: Path, tmp_path: Path, small_files_only: Callable[[], None], name: str
) -> None:
    (tmp_path / name).write_text("older", encoding="utf-8")
    small_files_only()
    with pytest.raises(DiffusionSegmentError, match="disk is full"):
        write_case_report(finished, tmp_path / name, scan=scan_file)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text(encoding="utf-8") == "older"


class TestCommand:
    def run(self, *arguments: object) -> int:
        return main([str(argument) for argument in arguments])

    def test_report_writes_html_and_pdf(self, finished: Path, scan_file: Path, tmp_path: Path) -> None:
        for name in ("report.html", "new/report.pdf"):
            assert self.run("report", finished, "--scan", scan_file, "-o", tmp_path / name) == 0
            assert (tmp_path / name).is_file()

    def test_errors_are_one_line_and_keep_the_older_report(
        self, finished: Path, scan_file: Path, result: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "report.html").write_text("older", encoding="utf-8")
        (result / REPORT).unlink()
        scan = ("--scan", scan_file)
        for folder, output, extra, code in (
            (finished, "report.doc", (), "OPTION"),
            (result, "report.html", (), "INPUT_MISSING"),
            (tmp_path / "nowhere", "report.html", (), "INPUT_MISSING"),
            (finished, "report.html", ("--require-review",), "INPUT_VALUES"),
        ):
            assert self.run("report", folder, *scan, "-o", tmp_path / output, *extra) == 2
            (line,) = capsys.readouterr().err.strip().splitlines()
            assert line.startswith(f"{code}: ")
        assert (tmp_path / "report.html").read_text(encoding="utf-8") == "older"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "result"]
