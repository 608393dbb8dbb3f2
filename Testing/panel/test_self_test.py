"""The self-test that ctest runs inside Slicer: a segmentation with the real worker and the bundled model."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import slicer
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from fixtures.self_test_findings import FINDINGS
from panel.conftest import PanelUser

FILE = Path(__file__).resolve().parents[2] / "DiffusionSegment" / "Testing" / "Python" / "DiffusionSegmentSelfTest.py"


@pytest.mark.slow
def test_reload_and_test_segments_the_phantom(user: PanelUser) -> None:
    user.module.DiffusionSegmentTest().runTest()
    assert slicer.mrmlScene.GetFirstNodeByName("Phantom") is not None
    assert len(user.segmentations()) == 1


def test_without_packages_it_passes_when_the_run_is_refused(user: PanelUser, monkeypatch: pytest.MonkeyPatch) -> None:
    from DiffusionSegmentLib import installation, scripting, self_test

    missing = installation.InstallationPlan(installation.REQUIREMENTS[:1])

    def refuse() -> None:
        raise DiffusionSegmentError(ErrorCode.NO_TORCH, "Not installed: torch.", hint="Click Segment.")

    monkeypatch.setattr(self_test, "askWorker", lambda: replace(FINDINGS, torch="", missing=("torch",)))
    monkeypatch.setattr(self_test, "planInstallation", lambda: missing)
    monkeypatch.setattr(scripting, "requireInstalled", refuse)
    self_test.runSelfTest()
    monkeypatch.setattr(scripting, "requireInstalled", lambda: None)
    monkeypatch.setattr(self_test.Scripting, "segment", lambda *_: None)
    with pytest.raises(AssertionError, match="should be refused"):
        self_test.runSelfTest()


def test_the_file_of_ctest_contains_that_test() -> None:
    case = runpy.run_path(str(FILE))["DiffusionSegmentSelfTest"]
    assert [name for name in vars(case) if name.startswith("test_")] == ["test_main_job"]
