"""A few of many studies; `python -m dicom_node.many_studies --count 50` sends more of them."""

from __future__ import annotations

from pathlib import Path

from .many_studies import send_many


def test_every_study_is_answered_once(tmp_path: Path) -> None:
    outcome = send_many(tmp_path, count=4, twice=1)
    assert outcome.each_once, outcome
