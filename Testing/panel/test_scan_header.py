"""The line below the input volume names patient, study and series, unless patient data are hidden on request."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import slicer
from panel.conftest import PanelUser

TAGS = {"0010,0010": "Roe^Jane", "0010,0020": "MRN <4711>", "0008,0020": "20260301", "0008,103E": "Portal venous"}
LINE = "Patient: Roe, Jane · ID: MRN <4711> · Study: 2026-03-01 · Series: Portal venous"


@pytest.fixture
def fromDicom(user: PanelUser, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A scan of Slicer's DICOM database, chosen as the input."""
    asked: Any = SimpleNamespace(instanceValue=lambda uid, tag: TAGS.get(tag, "") if uid == "1.1" else "")
    monkeypatch.setattr(slicer, "dicomDatabase", asked, raising=False)
    node = user.addVolume(name="2: Portal venous")
    node.SetAttribute("DICOM.instanceUIDs", "1.1")
    user.ui.inputSelector.setCurrentNode(None)
    user.ui.inputSelector.setCurrentNode(node)
    user.application.process()
    return node


def test_the_header_names_patient_study_and_series(user: PanelUser, fromDicom: Any) -> None:
    assert user.ui.scanLabel.text == LINE
    assert user.ui.scanLabel.visible


def test_a_scan_without_dicom_has_no_header(user: PanelUser, fromDicom: Any) -> None:
    user.addVolume(name="From a file")
    assert user.ui.scanLabel.text == ""
    assert not user.ui.scanLabel.visible


def test_patient_data_are_hidden_on_request(user: PanelUser, fromDicom: Any) -> None:
    user.click(user.ui.anonymousBox)
    assert user.ui.scanLabel.text == ""
    user.click(user.ui.anonymousBox)
    assert user.ui.scanLabel.text == LINE


def test_closing_the_scene_clears_the_header(user: PanelUser, fromDicom: Any) -> None:
    slicer.mrmlScene.Clear(False)
    user.application.process()
    assert user.ui.scanLabel.text == ""
