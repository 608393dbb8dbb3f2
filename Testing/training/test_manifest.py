"""`train --init`: a table of labels becomes a manifest for training; an invalid table is refused with the row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.models.manifest import label_without_terms, read_description, read_manifest
from DiffusionSegmentBackend.models.model import find_model
from DiffusionSegmentBackend.training.whole_model.label_table import LabelTable
from DiffusionSegmentBackend.training.whole_model.model_folder import ModelFolder
from DiffusionSegmentBackend.training.whole_model.networks import NetworkTraining


def table(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def init(folder: Path, text: str, *more: str, output: str = "new.json") -> int:
    labels = table(folder, text)
    return main(["train", "--init", "knee-mr", "--labels", str(labels), "-o", str(folder / output), *more])


def test_two_columns_are_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert init(tmp_path, "value,name\n1,Femoral cartilage\n2,liver\n") == 0
    assert f"--manifest {tmp_path / 'new.json'}" in capsys.readouterr().out
    manifest = read_manifest(tmp_path / "new.json")
    assert (manifest.name, manifest.modality, manifest.window_unit) == ("knee-mr", "CT", "HU")
    assert [(label.value, label.name, label.title) for label in manifest.labels] == [
        (1, "femoral_cartilage", "Femoral cartilage"),
        (2, "liver", "Liver"),
    ]
    assert manifest.networks == {}
    assert label_without_terms(manifest.raw) is None
    NetworkTraining(manifest, "cpu", 0, 0.2).check()


def test_columns_default_to_the_label_of_a_bundled_model(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "\ufeffname;value;code;meaning;side;colour\n"
        "Left kidney;2;;;;\n"
        "Patella;1;64234005;Patella;right;#3366CC\n"
        "lesion;3;;;;255 0 10\n",
    )
    patella, kidney, lesion = LabelTable(path).read()
    known = next(item for item in read_description(find_model("abdomen-ct")).raw["labels"] if item["value"] == 3)
    measured = ("body_mm", "usual_ml", "one_piece")
    assert kidney == {key: value for key, value in {**known, "value": 2}.items() if key not in measured}
    assert patella["code"] == {"scheme": "SCT", "value": "64234005", "meaning": "Patella"}
    assert patella["modifier"]["meaning"] == "Right"
    assert patella["colour"] == [0x33, 0x66, 0xCC]
    assert (lesion["code"]["meaning"], lesion["colour"]) == ("Tissue", [255, 0, 10])


def test_an_mr_manifest_has_a_window_in_percentiles_and_the_given_grid(tmp_path: Path) -> None:
    more = ["--modality", "MR", "--spacing", "0.5,0.5,6", "--licence", "CC BY 4.0", "--title", "Knee"]
    assert init(tmp_path, "value,name\n1,a\n", *more, output="folder") == 0
    manifest = ModelFolder(tmp_path / "other").manifest(str(tmp_path / "folder"))
    assert (manifest.window, manifest.window_unit) == ((0.5, 99.5), "percentile")
    assert manifest.trunk_spacing_mm == (1.0, 1.0, 6.0)
    assert manifest.tile.voxels == (32, 96, 96)
    assert (manifest.title, manifest.raw["licence"]) == ("Knee", "CC BY 4.0")


@pytest.mark.parametrize(
    ("text", "row", "words"),
    [
        ("value,name\n1,liver\nx,spleen\n", 3, "the value 'x' is not a whole number"),
        ("value,name\n0,background\n", 2, "from 1 to 254"),
        ("value,name\n1.0,liver\n", 2, "is not a whole number"),
        ("value,name\n1,liver\n\n1,spleen\n", 4, "the value 1 is that of row 2 as well"),
        ("value,name\n1,Liver\n2,liver\n", 3, "the name 'liver' is that of row 2 as well"),
        ("value,name\n1,liver\n3,spleen\n", 3, "the value 3 comes without 2"),
        ("value,name\n1,?!\n", 2, "cannot be a name"),
        ("value,name\n1,\n", 2, "cannot be a name"),
        ("value,name\n1,liver,spleen\n", 2, "there are 3 cells, the header has 2"),
        ("value,name,code\n1,liver,T-62000\n", 2, "no SNOMED CT number"),
        ("value,name,side\n1,lung,up\n", 2, "neither left nor right"),
        ("value,name,colour\n1,lung,red\n", 2, "neither #rrggbb nor"),
        ("value,name,colour\n1,lung,1 2 256\n", 2, "neither #rrggbb nor"),
        ("value,organ\n1,liver\n", 1, "there is no column 'organ'"),
        ("value\n1\n", 1, "the columns value, name are needed"),
        ("1,liver\n2,spleen\n", 1, "there is no column '1'"),
        ("value,name\n", 2, "there is no label"),
        ("", 1, "the columns value, name are needed"),
        ('value,name\n1,"liver\n', 2, "it is no CSV"),
    ],
)
def test_an_invalid_table_is_refused_with_the_row(tmp_path: Path, text: str, row: int, words: str) -> None:
    path = table(tmp_path, text)
    with pytest.raises(DiffusionSegmentError) as caught:
        LabelTable(path).read()
    assert caught.value.code is ErrorCode.TRAINING_DATA
    assert f"{path}, row {row}: " in caught.value.message
    assert words in caught.value.message


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(b"value,name\n1,\xff\xfe\n")
    with pytest.raises(DiffusionSegmentError, match="not text in UTF-8"):
        LabelTable(tmp_path / "labels.csv").read()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--spacing", "1,1"], "invalid list of numbers"),
        (["--spacing", "0,1,1"], "must be above 0 mm"),
        (["--spacing", "0.001,1,1"], "No model can have this: spacing_mm"),
        (["--trunk-spacing", "2,2,3.5"], "No model can have this: trunk_spacing_mm"),
        (["--tile", "64,64,20"], "does not fit a network of 5 levels"),
        (["--window", "5,1"], "window must rise"),
        (["--modality", "MR", "--window-unit", "HU"], "HU is for CT alone"),
        (["--modality", "MRI"], "'MRI' is not a DICOM modality"),
        (["--window-unit", "value"], "has no default"),
        (["--init", "Knee MR"], "cannot be the name"),
        (["--init", "abdomen-ct"], "of the extension itself"),
        (["--labels", "none.csv"], "no label table none.csv"),
    ],
)
def test_invalid_options_are_refused_and_nothing_is_written(
    tmp_path: Path, more: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init(tmp_path, "value,name\n1,a\n", *more) == 2
    said = capsys.readouterr().err
    assert words in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "new.json").exists()


def test_a_manifest_is_not_overwritten_and_labels_are_required(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init(tmp_path, "value,name\n1,a\n") == 0
    assert init(tmp_path, "value,name\n1,b\n") == 2
    assert "is there already" in capsys.readouterr().err
    assert read_manifest(tmp_path / "new.json").labels[0].name == "a"
    assert main(["train", "--init", "knee-mr", "-o", str(tmp_path / "x.json")]) == 2
    assert "--labels labels.csv" in capsys.readouterr().err
    assert main(["train", "-o", str(tmp_path / "x"), "--minutes", "1"]) == 2
    assert "nothing to train on" in capsys.readouterr().err


def test_a_manifest_whose_labels_slicer_could_not_show_is_refused_before_training(tmp_path: Path) -> None:
    assert init(tmp_path, "value,name\n1,a\n2,b\n") == 0
    raw = json.loads((tmp_path / "new.json").read_text(encoding="utf-8"))
    raw["labels"][1].pop("code")
    (tmp_path / "new.json").write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(DiffusionSegmentError, match="the label 'b' has no category, code or colour"):
        ModelFolder(tmp_path / "model").manifest(str(tmp_path / "new.json"))
