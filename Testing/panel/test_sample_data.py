"""Sample data: a phantom with its picture and a public CT are offered; nothing is computed before the click."""

from __future__ import annotations

import inspect
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from DiffusionSegmentLib.sample_data import addPhantom
from panel.conftest import PanelUser
from pythonqt.slicer_application import Application
from slicer.util import arrayFromVolume

MODULE = Path(__file__).resolve().parents[2] / "DiffusionSegment"


class SampleDataLogic:
    """Slicer's registry of sample data, with the names of its parameters."""

    registered: list[dict[str, Any]] = []  # noqa: RUF012

    @staticmethod
    def registerCustomSampleDataSource(
        category: str = "Custom",
        sampleName: str | None = None,
        uris: str | None = None,
        fileNames: str | None = None,
        nodeNames: str | None = None,
        customDownloader: Any = None,
        thumbnailFileName: str | None = None,
        loadFileTypes: str | None = None,
        loadFiles: bool | None = None,
        loadFileProperties: Any = None,
        checksums: str | None = None,
    ) -> None:
        frame = inspect.currentframe()
        assert frame is not None
        SampleDataLogic.registered.append(dict(frame.f_locals))


@pytest.fixture
def registered(application: Application, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What Sample Data offers once Slicer has started with the module."""
    import DiffusionSegment

    monkeypatch.setattr(SampleDataLogic, "registered", [])
    monkeypatch.setitem(sys.modules, "SampleData", types.SimpleNamespace(SampleDataLogic=SampleDataLogic))
    DiffusionSegment.DiffusionSegment(types.SimpleNamespace())
    assert SampleDataLogic.registered == []
    application.app.emit("startupCompleted()")
    application.app.disconnectAll()
    return SampleDataLogic.registered


def test_the_phantom_is_offered_with_its_picture(registered: list[dict[str, Any]]) -> None:
    phantom = registered[0]
    assert phantom["category"] == "DiffusionSegment"
    picture = Path(phantom["thumbnailFileName"])
    width, height = (int.from_bytes(picture.read_bytes()[at : at + 4]) for at in (16, 20))
    assert (width, height) == (260, 280)


def test_a_public_ct_is_offered_by_address_and_checksum(registered: list[dict[str, Any]]) -> None:
    source = registered[1]
    checksum = source["checksums"].removeprefix("SHA256:")
    assert len(checksum) == 64
    assert source["uris"].startswith("https://github.com/Slicer/")
    assert source["uris"].endswith(f"/SHA256/{checksum}")


def test_a_click_on_the_phantom_adds_a_ct_to_the_scene(user: PanelUser, registered: list[dict[str, Any]]) -> None:
    (node,) = registered[0]["customDownloader"](None)
    assert node.GetScene() is slicer.mrmlScene
    hu = arrayFromVolume(node)
    assert hu.dtype == np.int16
    assert hu.min() < -900
    assert 200 < hu.max() <= 3071
    assert node.GetSpacing() == (2.0, 2.0, 3.0)
    user.ui.inputSelector.setCurrentNode(node)
    user.segment()
    assert len(user.segmentations()) == 1


def test_the_phantom_is_reproducible(user: PanelUser) -> None:
    options: dict[str, Any] = {"spacingMm": (6.0, 6.0, 6.0), "sizeMm": (240.0, 180.0, 180.0)}
    first, second = (addPhantom(slicer.mrmlScene, **options) for _ in range(2))
    assert first is not second
    assert (arrayFromVolume(first) == arrayFromVolume(second)).all()


def test_the_phantom_needs_no_torch() -> None:
    code = (
        "import sys; from DiffusionSegmentBackend.phantom.phantom import make_phantom;"
        "make_phantom(seed=1, spacing_mm=(8.0, 8.0, 8.0)); sys.exit(bool({'torch', 'monai'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=MODULE, check=True)
