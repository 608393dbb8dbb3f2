"""An organ is selected by its name or title in any spelling; for an unknown name the nearest one is suggested."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.commands.summary import organ_table
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume_io import read_volume
from DiffusionSegmentBackend.models.manifest import find_model, list_models, read_description
from fixtures.command_line import Workspace, make_workspace

ABDOMEN = read_description(find_model("abdomen-ct"))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("workspace"))


@pytest.mark.parametrize("model", list_models())
def test_every_organ_of_every_model_is_selected_by_name_and_title(model: str) -> None:
    description = read_description(find_model(model))
    for label in description.labels:
        for name in (label.name, label.title, label.title.upper(), label.name.replace("_", " "), f" {label.title} "):
            assert description.label_named(name) is label


@pytest.mark.parametrize("name", ["Left kidney", "left_kidney", "LEFT-KIDNEY", "left  kidney", "Left_Kidney"])
def test_case_and_separators_of_words_do_not_matter(name: str) -> None:
    assert ABDOMEN.label_named(name).name == "left_kidney"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("left kidny", "Did you mean 'Left kidney'?"),
        ("kidney", "Did you mean 'Right kidney' or 'Left kidney'?"),
        ("adrenal", "Did you mean 'Right adrenal gland' or 'Left adrenal gland'?"),
        ("oesophagus", "Did you mean 'Esophagus'?"),
        ("heart", "Its organs: Spleen, Right kidney, "),
        ("", "Its organs: Spleen, Right kidney, "),
    ],
)
def test_an_unknown_name_gets_the_nearest_or_all_names_as_a_hint(name: str, hint: str) -> None:
    with pytest.raises(DiffusionSegmentError) as caught:
        ABDOMEN.label_named(name)
    assert caught.value.code is ErrorCode.OPTION
    assert caught.value.hint.startswith(hint)
    assert "\n" not in str(caught.value)


def test_segment_accepts_the_names_in_its_own_table(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(workspace.segment(output=tmp_path / "out", more=("-q", "--organs", "Left kidney, Right kidney"))) == 0
    table = capsys.readouterr().out.splitlines()
    assert [row[:25].strip() for row in table[:3]] == ["Organ", "Right kidney", "Left kidney"]
    labels = read_volume(tmp_path / "out" / "segmentation.nii.gz").array
    assert set(np.unique(labels)) <= {0, 2, 3}
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["provenance"]["organs"] == ["right_kidney", "left_kidney"]


def test_segment_refuses_an_unknown_organ_before_the_run(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(workspace.segment(output=tmp_path / "out", more=("--organs", "left kidny"))) == 2
    assert capsys.readouterr().err == "OPTION: The model tiny has no organ 'left kidny'. Did you mean 'Left kidney'?\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["", " , "])
def test_an_empty_list_of_names_is_refused(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", str(tmp_path), "-o", str(tmp_path / "out"), "--organs", text]) == 2
    assert "OPTION: No organ is named. Write names with commas between" in capsys.readouterr().err


def test_the_table_has_a_unit_in_every_column() -> None:
    present = {"title": "Liver", "volume_ml": 1257.64, "volume_interval_ml": [986.3, 1647.8], "confidence": 0.9132}
    missing = {"title": "Esophagus", "volume_ml": 0.0, "volume_interval_ml": [0.0, 0.4], "confidence": 0.0}
    head, first, second = organ_table([present, missing]).splitlines()
    assert head.split("  ")[0] == "Organ"
    assert [column for column in ("Volume (mL)", "90 % interval (mL)", "Confidence (%)") if column in head]
    assert first.split() == ["Liver", "1257.6", "986.3", "to", "1647.8", "91"]
    assert second.split() == ["Esophagus", "0.0", "0.0", "to", "0.4", "-"]
    assert len(head) == len(first) == len(second)
