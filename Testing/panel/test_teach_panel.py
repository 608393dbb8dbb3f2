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
from pythonqt.slicer_application import Application
from pythonqt.small_desk import SmallDesk

ENGINE = [sys.executable, "-u", str(Path(__file__).parent / "engine_process.py")]
MODEL = Path(__file__).resolve().parents[2] / "DiffusionSegment" / "Resources" / "Models" / "abdomen-ct"


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user's own models go."""
    monkeypatch.setenv("DIFFUSION_SEGMENT_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def taught() -> list[str]:
    return []


@pytest.fixture
def desk(application: Application, models: Path, taught: list[str]) -> Iterator[SmallDesk]:
    created = SmallDesk(application, ENGINE)
    from DiffusionSegmentLib.panel.teach_panel import TeachPanel

    created.part = TeachPanel(created.ui, created.client, created, taught.append)
    yield created
    created.close()


@pytest.fixture
def drawn(desk: SmallDesk) -> slicer.vtkMRMLSegmentationNode:
    """A scan whose liver and spleen are drawn, both chosen in the panel."""
    from DiffusionSegmentLib.scene.segmentation import putSegmentation
    from DiffusionSegmentLib.scene.terminology import readModelDescription

    labels = np.zeros((8, 10, 12), np.uint8)
    labels[2:5, 2:8, 1:5] = 6
    labels[2:5, 2:8, 7:10] = 1
    ct = putVolume(slicer.mrmlScene, Volume(labels.astype(np.int16), np.diag([-1.0, 1.5, 2.0, 1.0])), "CT")
    node = putSegmentation(slicer.mrmlScene, labels, readModelDescription(MODEL).labels, ct, "Drawn")
    desk.parameters.inputVolume, desk.parameters.segmentation = ct, node
    desk.update()
    return node


def name(desk: SmallDesk, text: str) -> None:
    desk.ui.teachNameEdit.text = text
    desk.application.process()


def test_the_button_says_what_is_missing(desk: SmallDesk) -> None:
    button = desk.ui.teachButton
    assert (button.enabled, button.toolTip) == (False, "Choose an input volume first.")


def test_a_name_is_wanted(desk: SmallDesk, drawn: Any) -> None:
    button = desk.ui.teachButton
    assert (button.enabled, button.toolTip) == (False, "Give the new model a name, such as my-model.")
    name(desk, " my-model ")
    assert button.enabled


def test_the_new_model_is_listed_and_handed_on(desk: SmallDesk, drawn: Any, models: Path, taught: list[str]) -> None:
    from DiffusionSegmentLib.scene.installed_models import installedModels

    name(desk, "my-model")
    desk.parameters.teachMinutes = 3
    desk.click(desk.ui.teachButton)
    assert desk.client.running
    assert desk.ui.teachButton.toolTip == "A run is in progress."
    desk.rest()
    assert taught == ["my-model"]
    assert desk.said[-1].startswith("Model saved: my-model, trained on Spleen, Liver in 1 s")
    assert [label.name for label in installedModels()["my-model"].labels] == ["Spleen", "Liver"]
    assert json.loads((models / "my-model" / "model.json").read_text(encoding="utf-8"))["minutes"] == 3


def test_an_organ_on_the_desk_goes_by_the_models_name(desk: SmallDesk, drawn: Any) -> None:
    from DiffusionSegmentLib.scene.installed_models import installedModels
    from DiffusionSegmentLib.scene.labelled_scan import LabelledScan
    from DiffusionSegmentLib.scene.terminology import readModelDescription

    desk.scan = LabelledScan(desk.parameters.inputVolume, drawn, readModelDescription(MODEL).labels)
    name(desk, "my-model")
    desk.click(desk.ui.teachButton)
    desk.rest()
    assert [label.name for label in installedModels()["my-model"].labels] == ["spleen", "liver"]


@pytest.mark.parametrize("taken", ["abdomen-ct", "mine"])
def test_a_name_that_is_taken_is_refused_before_the_run(desk: SmallDesk, drawn: Any, models: Path, taken: str) -> None:
    (models / "mine").mkdir(parents=True)
    (models / "mine" / "model.json").write_text((MODEL / "model.json").read_text(encoding="utf-8"), encoding="utf-8")
    name(desk, taken)
    desk.click(desk.ui.teachButton)
    assert desk.said == [f"OPTION: A model named '{taken}' already exists. Choose another name for the new model."]
    assert not desk.client.running


def test_cancel_leaves_no_model(desk: SmallDesk, drawn: Any, models: Path, taught: list[str]) -> None:
    name(desk, "slow")
    desk.click(desk.ui.teachButton)
    desk.until(lambda: desk.client.state.value == "Busy")
    desk.client.cancel()
    desk.rest()
    assert desk.said == ["cancelled"]
    assert taught == []
    assert not models.exists()
    assert desk.ui.teachButton.enabled


def test_segments_that_overlap_are_refused_in_words(desk: SmallDesk, drawn: Any) -> None:
    from DiffusionSegmentLib.scene.layers import BINARY
    from DiffusionSegmentLib.scene.segmentation import orientedImage

    segment = slicer.vtkSegment()
    segment.SetName("Cyst")
    image = orientedImage(np.ones((2, 2, 2), np.uint8), desk.parameters.inputVolume, start=(2, 2, 1))
    segment.SetLabelValue(1)
    segment.AddRepresentation(BINARY, image)
    drawn.GetSegmentation().AddSegment(segment, "Cyst")
    name(desk, "my-model")
    desk.click(desk.ui.teachButton)
    assert desk.said[0].startswith("INPUT_VALUES: 'Liver' and 'Cyst' share 8 voxels.")
    assert not desk.client.running
