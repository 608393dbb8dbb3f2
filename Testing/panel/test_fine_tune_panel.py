"""Learn from this case in the panel: visible segments go to the worker, the new model comes back and is listed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from DiffusionSegmentBackend.imaging.volume import Volume
from headless.slicer_picture import putVolume
from pythonqt.panel_stub import PanelStub
from pythonqt.slicer_application import Application

ENGINE = [sys.executable, "-u", str(Path(__file__).parent / "engine_process.py")]
MODEL = Path(__file__).resolve().parents[2] / "DiffusionSegment" / "Resources" / "Models" / "abdomen-ct"


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the user's own models."""
    monkeypatch.setenv("DIFFUSION_SEGMENT_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def addedModels() -> list[str]:
    return []


@pytest.fixture
def stub(application: Application, models: Path, addedModels: list[str]) -> Iterator[PanelStub]:
    created = PanelStub(application, ENGINE)
    from DiffusionSegmentLib.panel.fine_tune_panel import FineTunePanel

    created.part = FineTunePanel(created.ui, created.client, created, addedModels.append)
    yield created
    created.close()


@pytest.fixture
def drawn(stub: PanelStub) -> slicer.vtkMRMLSegmentationNode:
    """A scan whose liver and spleen are drawn, both chosen in the panel."""
    from DiffusionSegmentLib.scene.segmentation import putSegmentation
    from DiffusionSegmentLib.scene.terminology import readModelDescription

    labels = np.zeros((8, 10, 12), np.uint8)
    labels[2:5, 2:8, 1:5] = 6
    labels[2:5, 2:8, 7:10] = 1
    ct = putVolume(slicer.mrmlScene, Volume(labels.astype(np.int16), np.diag([-1.0, 1.5, 2.0, 1.0])), "CT")
    node = putSegmentation(slicer.mrmlScene, labels, readModelDescription(MODEL).labels, ct, "Drawn")
    stub.parameters.inputVolume, stub.parameters.segmentation = ct, node
    stub.update()
    return node


def name(stub: PanelStub, text: str) -> None:
    stub.ui.fineTuneNameEdit.text = text
    stub.application.process()


def test_the_disabled_button_shows_what_is_missing(stub: PanelStub) -> None:
    button = stub.ui.fineTuneButton
    assert (button.enabled, button.toolTip) == (False, "Choose an input volume first.")


def test_a_name_is_required(stub: PanelStub, drawn: Any) -> None:
    button = stub.ui.fineTuneButton
    assert (button.enabled, button.toolTip) == (False, "Give the new model a name, such as my-model.")
    name(stub, " my-model ")
    assert button.enabled


def test_the_new_model_is_listed_and_reported_to_the_panel(
    stub: PanelStub, drawn: Any, models: Path, addedModels: list[str]
) -> None:
    from DiffusionSegmentLib.scene.installed_models import installedModels

    name(stub, "my-model")
    stub.parameters.fineTuneMinutes = 3
    stub.click(stub.ui.fineTuneButton)
    assert stub.client.running
    assert stub.ui.fineTuneButton.toolTip == "A run is in progress."
    stub.rest()
    assert addedModels == ["my-model"]
    assert stub.messages[-1].startswith("Model saved: my-model, trained on Spleen, Liver in 1 s")
    assert [label.name for label in installedModels()["my-model"].labels] == ["Spleen", "Liver"]
    assert json.loads((models / "my-model" / "model.json").read_text(encoding="utf-8"))["minutes"] == 3


def test_an_organ_of_the_shown_scan_keeps_the_label_name_of_the_model(stub: PanelStub, drawn: Any) -> None:
    from DiffusionSegmentLib.scene.installed_models import installedModels
    from DiffusionSegmentLib.scene.segmented_scan import SegmentedScan
    from DiffusionSegmentLib.scene.terminology import readModelDescription

    stub.scan = SegmentedScan(stub.parameters.inputVolume, drawn, readModelDescription(MODEL).labels)
    name(stub, "my-model")
    stub.click(stub.ui.fineTuneButton)
    stub.rest()
    assert [label.name for label in installedModels()["my-model"].labels] == ["spleen", "liver"]


@pytest.mark.parametrize("taken", ["abdomen-ct", "mine"])
def test_a_name_that_is_taken_is_refused_before_the_run(stub: PanelStub, drawn: Any, models: Path, taken: str) -> None:
    (models / "mine").mkdir(parents=True)
    (models / "mine" / "model.json").write_text((MODEL / "model.json").read_text(encoding="utf-8"), encoding="utf-8")
    name(stub, taken)
    stub.click(stub.ui.fineTuneButton)
    assert stub.messages == [f"OPTION: A model named '{taken}' already exists. Choose another name for the new model."]
    assert not stub.client.running


def test_cancel_leaves_no_model(stub: PanelStub, drawn: Any, models: Path, addedModels: list[str]) -> None:
    name(stub, "slow")
    stub.click(stub.ui.fineTuneButton)
    stub.until(lambda: stub.client.state.value == "Busy")
    stub.client.cancel()
    stub.rest()
    assert stub.messages == ["cancelled"]
    assert addedModels == []
    assert not models.exists()
    assert stub.ui.fineTuneButton.enabled


def test_overlapping_segments_are_refused_with_a_message(stub: PanelStub, drawn: Any) -> None:
    from DiffusionSegmentLib.scene.layers import BINARY
    from DiffusionSegmentLib.scene.segmentation import orientedImage

    segment = slicer.vtkSegment()
    segment.SetName("Cyst")
    image = orientedImage(np.ones((2, 2, 2), np.uint8), stub.parameters.inputVolume, start=(2, 2, 1))
    segment.SetLabelValue(1)
    segment.AddRepresentation(BINARY, image)
    drawn.GetSegmentation().AddSegment(segment, "Cyst")
    name(stub, "my-model")
    stub.click(stub.ui.fineTuneButton)
    assert stub.messages[0].startswith("INPUT_VALUES: 'Liver' and 'Cyst' share 8 voxels.")
    assert not stub.client.running
