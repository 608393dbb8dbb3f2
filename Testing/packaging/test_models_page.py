"""docs/MODELS.md describes every field of model.json, and its examples work."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.models.folders import bundled_models_folder
from DiffusionSegmentBackend.schema.model_manifest import AnatomyLimits, BaseModel, Defaults
from DiffusionSegmentBackend.training.whole_model.label_table import COLUMNS, LabelTable

PAGE = Path(__file__).resolve().parents[2] / "docs" / "MODELS.md"
TEXT = PAGE.read_text(encoding="utf-8")
# Objects whose keys are names of organs or networks.
NAMED = {"organ_dice", "training_data_by_network"}


def example(language: str) -> str:
    """The only block of that language on the page."""
    (block,) = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    return str(block)


def keys_of(raw: Any) -> Iterator[str]:
    if isinstance(raw, dict):
        for key, value in raw.items():
            yield key
            if key not in NAMED:
                yield from keys_of(value)
    elif isinstance(raw, list):
        for value in raw:
            yield from keys_of(value)


@pytest.mark.parametrize(
    "path", sorted(bundled_models_folder().parent.glob("M*/**/*.json")), ids=lambda path: path.stem
)
def test_every_field_of_a_model_is_described(path: Path) -> None:
    missing = {key for key in keys_of(json.loads(path.read_text(encoding="utf-8"))) if f"`{key}`" not in TEXT}
    assert missing == set()


@pytest.mark.parametrize("kind", [AnatomyLimits, Defaults, BaseModel], ids=lambda kind: kind.__name__)
def test_every_optional_field_of_a_model_is_described(kind: Any) -> None:
    assert [field.name for field in fields(kind) if f"`{field.name}`" not in TEXT] == []
    assert [column for column in COLUMNS if f"`{column}`" not in TEXT] == []


def test_the_manifest_of_the_page_is_what_init_writes(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("value,name\n1,Liver\n", encoding="utf-8")
    output = tmp_path / "my-mr.json"
    command = ["train", "--init", "my-mr", "--labels", str(tmp_path / "labels.csv"), "--modality", "MR"]
    assert main([*command, "-o", str(output)]) == 0
    assert json.loads(output.read_text(encoding="utf-8")) == json.loads(example("json"))


def test_the_table_of_the_page_is_read(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(example("csv"), encoding="utf-8")
    labels = LabelTable(tmp_path / "labels.csv").read()
    assert [label["name"] for label in labels] == ["liver", "right_kidney", "left_kidney", "patella"]
    assert labels[1]["modifier"]["meaning"] == "Right"


def test_the_probe_is_calibrated_before_the_refiner_is_trained() -> None:
    commands = ("train bodypart", "train backbone", "train probe", "presegment", "calibrate probe", "train refiner")
    positions = [TEXT.index(f"| `{command}") for command in (*commands, "calibrate refiner")]
    assert positions == sorted(positions)
