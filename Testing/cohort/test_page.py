"""The page in headless Chromium, from a file and without a network: order, histograms, escaped texts."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from DiffusionSegmentBackend.cohort.folder import CohortFolder
from DiffusionSegmentBackend.cohort.page import page_html, write_page
from DiffusionSegmentBackend.cohort.picture import png
from DiffusionSegmentBackend.models.manifest import find_model, read_description

ATTACK = "</script><script>document.title='attacked'</script><img src=x onerror=\"document.title='attacked'\">"
MODEL = read_description(find_model("abdomen-ct"))


def chromium(page: Path, profile: Path, *more: str) -> str:
    """What Chromium prints of a page; it may resolve no name of a host."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert program is not None, "Chromium is missing: make system-packages"
    command = [
        *(program, "--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"),
        *(f"--user-data-dir={profile}", "--virtual-time-budget=5000", "--enable-logging=stderr", "--v=0"),
        *(*more, page.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "Content Security Policy" not in done.stderr
    return done.stdout


def row(number: int, **more: Any) -> dict[str, Any]:
    values = {
        "scan_id": f"{number:016x}",
        "status": "done",
        "review_priority": number / 1000,
        "expected_wrong_ml": 1.5 * number,
        "confidence": 0.9,
        "alarms": 0,
        "max_volume_z": None,
        "first_region": f"Look here, {number}.",
        "volumes": {"spleen": 100.0 + number, "liver": None},
    }
    return {**values, **more}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[list[dict[str, Any]]], Path]:
    def writer(rows: list[dict[str, Any]]) -> Path:
        folder = CohortFolder(tmp_path / "cohort")
        (folder.root / "thumbnails").mkdir(parents=True)
        for one in rows:
            if one["status"] == "done":
                folder.thumbnail(one["scan_id"]).write_bytes(png(np.full((160, 320, 3), 99, np.uint8)))
        write_page(folder, rows, MODEL)
        return folder.root / "index.html"

    return writer


def test_scans_are_in_the_order_of_their_need_of_review_and_the_others_at_the_end(
    write: Callable[[list[dict[str, Any]]], Path], tmp_path: Path
) -> None:
    failed = {"scan_id": "f" * 16, "status": "failed", "code": "WORKER_DIED", "reason": "The process ended, twice."}
    dom = chromium(write([row(1), failed, row(3), row(2)]), tmp_path / "profile", "--dump-dom")
    order = [int(text, 16) if text != "f" * 16 else text for text in re.findall(r'<tr data-scan="(\w+)"', dom)]
    assert order == [3, 2, 1, "f" * 16]
    assert "4 of 4 scans" in dom
    assert "The process ended, twice." in dom
    assert "4 scans, 3 with a result, 1 failed." in dom


def test_every_organ_has_a_histogram_of_its_measured_volumes(
    write: Callable[[list[dict[str, Any]]], Path], tmp_path: Path
) -> None:
    dom = chromium(write([row(n) for n in range(40)]), tmp_path / "profile", "--dump-dom")
    captions = dict(re.findall(r"<figcaption>([^<]+), n = (\d+)</figcaption>", dom))
    assert len(captions) == len(MODEL.labels)
    assert (captions["Spleen"], captions["Liver"]) == ("40", "0")
    assert len(re.findall(r'class="bar"', dom)) == 16
    assert 'class="median"' in dom


def test_texts_are_shown_and_never_run(write: Callable[[list[dict[str, Any]]], Path], tmp_path: Path) -> None:
    page = write([row(1, first_region=ATTACK, path=ATTACK, patient_id=ATTACK)])
    dom = chromium(page, tmp_path / "profile", "--dump-dom")
    assert "<title>Cohort</title>" in dom
    assert html.escape(ATTACK, quote=False) in dom


def test_the_page_loads_pictures_beside_it_and_nothing_else(
    write: Callable[[list[dict[str, Any]]], Path], tmp_path: Path
) -> None:
    page = write([row(1)])
    text = page.read_text(encoding="utf-8")
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    picture = tmp_path / "page.png"
    chromium(page, tmp_path / "profile", f"--screenshot={picture}", "--window-size=1200,1600")
    from matplotlib.image import imread

    pixels = np.round(imread(picture)[..., :3] * 255)
    # The thumbnail is grey 99 and shown with 240 x 120 pixels.
    assert np.count_nonzero((pixels == 99).all(axis=-1)) > 0.9 * 240 * 120


def test_a_page_of_thousands_of_scans_shows_a_hundred_at_a_time(
    write: Callable[[list[dict[str, Any]]], Path], tmp_path: Path
) -> None:
    rows = [row(n, status="waiting") for n in range(5000)]
    page = write(rows)
    dom = chromium(page, tmp_path / "profile", "--dump-dom")
    assert len(re.findall(r"<tr data-scan=", dom)) == 100
    assert "Page 1 of 50" in dom


def test_a_policy_forbids_what_the_page_does_not_contain() -> None:
    text = page_html({"summary": "", "organs": [], "scans": []})
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]
