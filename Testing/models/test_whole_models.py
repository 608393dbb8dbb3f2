"""A trained model is exported with all its networks, imported on another computer, and refused if it does not fit."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import write_volume
from DiffusionSegmentBackend.models.manifest import list_models
from DiffusionSegmentBackend.models.model import load_model, share_network
from DiffusionSegmentBackend.models.user_models import export_model, import_model
from DiffusionSegmentBackend.pipeline.options import SegmentOptions
from DiffusionSegmentBackend.pipeline.segment import segment
from DiffusionSegmentBackend.reporting.case import installed_model
from DiffusionSegmentBackend.training.fine_tuned_model import fine_tune_user_model
from DiffusionSegmentBackend.training.fine_tuning import LabelledVolume
from fixtures.segmenter_model import write_segmenter_model
from fixtures.tiny_model import coarse_phantom, write_tiny_model

NAME = "trial"
FIRST = ["backbone", "bodypart", "probe", "refiner"]
SECOND = ["bodypart", "segmenter"]


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the user's own models on this computer, which does not exist yet."""
    folder = tmp_path / "models"
    monkeypatch.setenv("DIFFUSION_SEGMENT_MODELS", str(folder))
    return folder


@pytest.fixture(params=[write_tiny_model, write_segmenter_model], ids=["backbone and probe", "segmenter"])
def trained(request: pytest.FixtureRequest, models: Path, tmp_path: Path) -> Path:
    """A folder like those that `train` writes, of either generation, with checkpoints and a model card."""
    folder: Path = request.param(tmp_path / "trained", name=NAME)
    (folder / "training").mkdir()
    (folder / "training" / "checkpoint.pt").write_bytes(b"not for others")
    (folder / "MODEL_CARD.md").write_text("# Model card: trial", encoding="utf-8")
    return folder


def weights_in(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.safetensors"))


def test_a_trained_folder_is_exported_and_imported_with_all_networks(
    trained: Path, models: Path, tmp_path: Path
) -> None:
    assert export_model(str(trained), tmp_path / "trial.zip") == NAME
    shutil.move(trained, tmp_path / "away")
    assert import_model(tmp_path / "trial.zip") == NAME
    assert NAME in list_models()
    assert weights_in(models / NAME) == weights_in(tmp_path / "away")
    assert (models / NAME / "MODEL_CARD.md").read_text(encoding="utf-8") == "# Model card: trial"
    assert not (models / NAME / "training").exists()
    before, after = (load_model(path, "cpu", precision="float32") for path in (str(tmp_path / "away"), NAME))
    scan = coarse_phantom()
    expected, imported = (segment(scan, model, SegmentOptions(force=True)).labels for model in (before, after))
    assert np.array_equal(imported, expected)


def test_a_trained_folder_is_imported_without_an_export(trained: Path, models: Path) -> None:
    assert import_model(trained) == NAME
    assert weights_in(models / NAME) in (FIRST, SECOND)
    assert not (models / NAME / "training").exists()


def test_an_installed_model_is_exported_by_its_name_and_can_be_renamed(trained: Path, tmp_path: Path) -> None:
    import_model(trained, name="other")
    assert export_model("other", tmp_path / "other.zip") == "other"
    with pytest.raises(DiffusionSegmentError, match="A model named 'other' already"):
        import_model(tmp_path / "other.zip")
    assert import_model(tmp_path / "other.zip", name="third") == "third"
    assert load_model("third", "cpu").description.name == "third"
    assert export_model("third", tmp_path / "fourth.zip", name="fourth") == "fourth"
    assert import_model(tmp_path / "fourth.zip") == "fourth"


def test_a_model_with_the_name_of_a_bundled_one_is_named_after_its_folder(models: Path, tmp_path: Path) -> None:
    folder = write_segmenter_model(tmp_path / "trained", name="abdomen-ct")
    shutil.move(folder, tmp_path / "my-abdomen")
    assert import_model(tmp_path / "my-abdomen") == "my-abdomen"
    assert load_model("my-abdomen", "cpu").description.name == "my-abdomen"


def test_an_export_includes_shared_networks(models: Path, tmp_path: Path) -> None:
    """A joint model has no files of its shared networks; its archive contains them."""
    owner, joint = (write_tiny_model(tmp_path / "trained", name=name) for name in ("owner", NAME))
    for network in ("bodypart", "backbone"):
        (joint / f"{network}.safetensors").unlink()
        share_network(joint, network, owner)
    export_model(str(joint), tmp_path / "trial.zip")
    shutil.rmtree(tmp_path / "trained")
    assert import_model(tmp_path / "trial.zip") == NAME
    assert weights_in(models / NAME) == FIRST
    load_model(NAME, "cpu")


def test_a_fine_tuned_model_is_imported_only_after_its_imported_base(
    trained: Path, models: Path, tmp_path: Path
) -> None:
    scan = coarse_phantom()
    case = LabelledVolume(scan, np.asarray(scan.array > 60).astype(np.uint8))
    with pytest.raises(DiffusionSegmentError, match="not installed") as caught:
        fine_tune_user_model([case], {1: "bright"}, base=load_model(str(trained), "cpu"), name="mine", minutes=0.01)
    assert f"`import-model {trained}`" in caught.value.hint
    import_model(trained)
    fine_tune_user_model([case], {1: "bright"}, base=load_model(NAME, "cpu"), name="mine", minutes=0.01)
    export_model("mine", tmp_path / "mine.zip")
    export_model(NAME, tmp_path / "trial.zip")
    shutil.rmtree(models)
    with pytest.raises(DiffusionSegmentError, match="not installed") as caught:
        import_model(tmp_path / "mine.zip")
    assert caught.value.hint == "Import trial first."
    assert import_model(tmp_path / "trial.zip") == NAME
    assert import_model(tmp_path / "mine.zip") == "mine"
    load_model("mine", "cpu")


@pytest.mark.parametrize("name", ["my-copy", "My Copy", "copy_2"])
def test_a_manually_copied_folder_can_be_used_by_its_folders_name(
    trained: Path, models: Path, name: str, tmp_path: Path
) -> None:
    shutil.copytree(trained, models / name)
    assert name in list_models()
    scan = coarse_phantom()
    assert segment(scan, load_model(name, "cpu"), SegmentOptions(force=True)).labels.shape == scan.array.shape
    case = LabelledVolume(scan, np.asarray(scan.array > 60).astype(np.uint8))
    fine_tune_user_model([case], {1: "bright"}, base=load_model(name, "cpu"), name="mine", minutes=0.01)
    load_model("mine", "cpu")
    export_model("mine", tmp_path / "mine.zip")
    assert import_model(tmp_path / "mine.zip", replace=True) == "mine"


def test_models_reports_the_error_of_a_copied_folder(
    trained: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("incomplete", "damaged", "plain", "whole"):
        shutil.copytree(trained, models / name)
    (models / "incomplete" / "bodypart.safetensors").unlink()
    (models / "damaged" / "model.json").write_text("{", encoding="utf-8")
    raw = json.loads((models / "plain" / "model.json").read_text(encoding="utf-8"))
    raw["labels"][1].pop("colour")
    (models / "plain" / "model.json").write_text(json.dumps(raw), encoding="utf-8")
    assert main(["models"]) == 0
    lines = dict(line.split("\t", 1) for line in capsys.readouterr().out.splitlines())
    assert "no weights for its bodypart" in lines["incomplete"]
    assert "is damaged" in lines["damaged"]
    assert f"its label '{raw['labels'][1]['name']}' has no category, code or colour" in lines["plain"]
    assert lines["whole"].endswith("3 organs")
    assert "abdomen-ct" in lines


def content_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def with_checksums(content: dict[str, bytes]) -> dict[str, bytes]:
    """The content with a manifest that lists all files with correct checksums."""
    manifest = json.loads(content["manifest.json"])
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in content.items() if name != "manifest.json"}
    return {**content, "manifest.json": json.dumps({**manifest, "sha256": sums}).encode()}


def with_manifest(change: Callable[[dict], object]) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    def changed(content: dict[str, bytes]) -> dict[str, bytes]:
        raw = json.loads(content["model.json"])
        change(raw)
        return with_checksums({**content, "model.json": json.dumps(raw).encode()})

    return changed


def without(part: str) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda content: with_checksums({name: data for name, data in content.items() if name != part})


def with_stride(raw: dict) -> None:
    raw["networks"]["bodypart"]["architecture"]["stride"] = 10**6


def shared(raw: dict) -> None:
    raw["networks"]["bodypart"]["model"] = "abdomen-ct"


def misnamed(raw: dict) -> None:
    raw["networks"]["bodypart"]["file"] = "MODEL_CARD.md"


def wide(raw: dict) -> None:
    raw["networks"]["bodypart"]["architecture"]["channels"] = [10**6, 10**6]


def uncoloured(raw: dict) -> None:
    raw["labels"][0]["colour"] = [0, 0, 256]


CHANGES: dict[str, tuple[Callable[[dict[str, bytes]], dict[str, bytes]], str]] = {
    "an unknown file": (lambda c: with_checksums({**c, "setup.py": b"x"}), "'setup.py', which no model has"),
    "a file that the manifest does not name": (lambda c: {**c, "optimizer.pt": b"x"}, "optimizer"),
    "changed weights": (lambda c: {**c, "bodypart.safetensors": b"x"}, "was changed"),
    "a file that contains no weights": (
        lambda c: with_checksums({**c, "bodypart.safetensors": b"x"}),
        "sha256 differs",
    ),
    "a missing network": (without("bodypart.safetensors"), "no weights for its bodypart"),
    "a network of another model": (with_manifest(shared), "not just the networks of a model"),
    "weights under another name": (with_manifest(misnamed), "not just the networks of a model"),
    "a network that is too large for any memory": (with_manifest(wide), "does not fit the bodypart"),
    "a stride larger than any scan": (with_manifest(with_stride), "does not fit its bodypart"),
    "labels that do not fit": (with_manifest(lambda raw: raw.update(labels=raw["labels"][:1])), "does not fit its"),
    "channels that do not fit": (with_manifest(lambda raw: raw.update(channels=[4, 8, 8])), "does not fit its"),
    "a grid that is too fine for any memory": (
        with_manifest(lambda raw: raw.update(spacing_mm=[0.01] * 3)),
        "trunk_spacing|too fine",
    ),
    "a tile that is too large for any memory": (
        with_manifest(lambda raw: raw.update(tile_voxels=[512] * 3)),
        "too fine",
    ),
    "an invalid colour": (with_manifest(uncoloured), "the label spleen has no category, code or colour"),
    "another name": (with_manifest(lambda raw: raw.update(name="other")), "not that of the whole model"),
    "a base": (
        with_manifest(lambda raw: raw.update(base={"name": "a", "version": "1", "weights_sha256": ""})),
        "not that",
    ),
    "no model.json": (without("model.json"), "manifest.json is damaged"),
    "a model card that is too large": (
        lambda c: with_checksums({**c, "MODEL_CARD.md": b" " * 2_000_000}),
        "larger than 1 MB",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_refused_zip_installs_nothing(trained: Path, models: Path, tmp_path: Path, change: str) -> None:
    alter, words = CHANGES[change]
    export_model(str(trained), tmp_path / "good.zip")
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as file:
        for name, data in alter(content_of(tmp_path / "good.zip")).items():
            file.writestr(name, data)
    with pytest.raises(DiffusionSegmentError, match=words) as caught:
        import_model(tmp_path / "bad.zip")
    assert len(str(caught.value).splitlines()) == 1
    assert str(models) not in caught.value.message, "the message must not name the folder in which it was checked"
    assert not models.exists() or list(models.iterdir()) == []


def test_an_unfinished_training_is_neither_exported_nor_imported(trained: Path, models: Path, tmp_path: Path) -> None:
    (trained / "bodypart.safetensors").unlink()
    for action in (lambda: export_model(str(trained), tmp_path / "out.zip"), lambda: import_model(trained)):
        with pytest.raises(DiffusionSegmentError, match="no weights for its bodypart") as caught:
            action()
        assert caught.value.code is ErrorCode.WEIGHTS_MISSING
        assert "--resume" in caught.value.hint
    assert not (tmp_path / "out.zip").exists()
    assert not models.exists()


def test_the_commands_accept_a_folder(
    trained: Path, tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export-model", str(trained), "-o", str(tmp_path / "trial.zip")]) == 0
    assert "installs it as trial" in capsys.readouterr().out
    assert main(["import-model", str(tmp_path / "trial.zip")]) == 0
    assert main(["import-model", str(trained)]) == 2
    assert "already" in capsys.readouterr().err
    assert main(["import-model", str(trained), "--name", "second"]) == 0
    assert "--model second" in capsys.readouterr().out
    assert main(["export-model", "none", "-o", str(tmp_path / "none.zip")]) == 3
    assert "the folder that `train` wrote" in capsys.readouterr().err


@pytest.mark.parametrize("installed", [False, True], ids=["by its path", "manually copied"])
def test_results_of_a_model_given_by_path_or_copied_are_corrected(
    models: Path, tmp_path: Path, installed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_segmenter_model(tmp_path / "trained", name=NAME)
    if installed:
        shutil.copytree(folder, models / "my-copy")
    scan, scribbles, first, second = (tmp_path / name for name in ("ct.nii.gz", "scribbles.nii.gz", "first", "second"))
    volume = coarse_phantom()
    write_volume(volume, scan)
    array = np.zeros(volume.array.shape, np.uint8)
    array[tuple(n // 2 for n in array.shape)] = 2
    write_volume(Volume(array, volume.index_to_lps), scribbles)
    name = "my-copy" if installed else str(folder)
    assert main(["segment", str(scan), "-o", str(first), "--model", name, "--force", "--device", "cpu"]) == 0
    done = main(["correct", str(first), "--corrections", str(scribbles), "-o", str(second), "--device", "cpu"])
    assert done == 0, capsys.readouterr().err
    report = json.loads((second / "report.json").read_text(encoding="utf-8"))
    assert report["provenance"]["model"] == ("my-copy" if installed else NAME)
    model = installed_model(str(report["provenance"].get("model_folder") or report["provenance"]["model"]))
    assert model is not None
    assert model.raw["labels"][0]["colour"]
    x, y, z = (volume.index_to_lps @ [*(n // 2 for n in reversed(array.shape)), 1])[:3]
    for command in (["features", str(scan)], ["similar", str(scan), f"--point={x},{y},{z}"]):
        done = main([*command, "-o", str(tmp_path / command[0]), "--model", name, "--device", "cpu"])
        assert done == 0, capsys.readouterr().err
