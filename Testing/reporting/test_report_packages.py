"""The packages of the extra `report` are named, with the next step, where one is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from DiffusionSegmentBackend.cli.main import main


@pytest.mark.parametrize(
    ("command", "package"),
    [("report", "jinja2"), ("report", "matplotlib"), ("export-dicom", "highdicom"), ("export-dicom", "pydicom")],
)
def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, package: str
) -> None:
    for name in list(sys.modules):
        if name.startswith("DiffusionSegmentBackend.reporting."):
            monkeypatch.delitem(sys.modules, name)
        if name.partition(".")[0] == package:
            monkeypatch.setitem(sys.modules, name, None)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]
    assert main([command, str(tmp_path), "--scan", str(tmp_path), "-o", str(tmp_path / "report.html")]) == 3
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"PACKAGE_MISSING: The Python package {package}")
    assert line.endswith("is missing. Install it and try again.")
