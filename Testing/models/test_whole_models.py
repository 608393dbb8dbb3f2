"""A trained model travels whole: exported, imported on another computer, refused where it does not fit."""

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
    """The folder of the user's own models on this computer; nothing is there yet."""
    folder = tmp_path / "models"
    monkeypatch.setenv("DIFFUSION_SEGMENT_MODELS", str(folder))
    return folder


@pytest.fixture(params=[write_tiny_model, write_segmenter_model], ids=["backbone and probe", "segmenter"])
def trained(request: pytest.FixtureRequest, models: Path, tmp_path: Path) -> Path:
    """A folder as `train` leaves it, of either generation, with checkpoints and a card."""
    folder: Path = request.param(tmp_path / "trained", name=NAME)
    (folder / "training").mkdir()
    (folder / "training" / "checkpoint.pt").write_bytes(b"not for others")
    (folder / "MODEL_CARD.md").write_text("# Model card: trial", encoding="utf-8")
    return folder


def weights_in(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.safetensors"))


def test_a_trained_folder_is_exported_and_imported_whole(trained: Path, models: Path, tmp_path: Path) -> None:
    assert export_model(str(trained), tmp_path / "trial.zip") == NAME
    shutil.move(trained, tmp_path / "away")
    assert import_model(tmp_path / "trial.zip") == NAME
    assert NAME in list_models()
    assert weights_in(models / NAME) == weights_in(tmp_path / "away")
    assert (models / NAME / "MODEL_CARD.md").read_text(encoding="utf-8") == "# Model card: trial"
    assert not (models / NAME / "training").exists()
    before, after = (load_model(path, "cpu", precision="float32") for path in (str(tmp_path / "away"), NAME))
    scan = coarse_phantom()
    expected, found = (segment(scan, model, SegmentOptions(force=True)).labels for model in (before, after))
    assert np.array_equal(found, expected)


def test_a_trained_folder_is_imported_as_it_is(trained: Path, models: Path) -> None:
    assert import_model(trained) == NAME
    assert weights_in(models / NAME) in (FIRST, SECOND)
    assert not (models / NAME / "training").exists()


def test_an_installed_model_is_exported_by_its_name_and_gets_another(trained: Path, tmp_path: Path) -> None:
    import_model(trained, name="other")
    assert export_model("other", tmp_path / "other.zip") == "other"
    with pytest.raises(DiffusionSegmentError, match="A model named 'other' already"):
        import_model(tmp_path / "other.zip")
    assert import_model(tmp_path / "other.zip", name="third") == "third"
    assert load_model("third", "cpu").description.name == "third"
    assert export_model("third", tmp_path / "fourth.zip", name="fourth") == "fourth"
    assert import_model(tmp_path / "fourth.zip") == "fourth"


def test_a_model_with_the_name_of_a_bundled_one_takes_that_of_its_folder(models: Path, tmp_path: Path) -> None:
    folder = write_segmenter_model(tmp_path / "trained", name="abdomen-ct")
    shutil.move(folder, tmp_path / "my-abdomen")
    assert import_model(tmp_path / "my-abdomen") == "my-abdomen"
    assert load_model("my-abdomen", "cpu").description.name == "my-abdomen"


def test_shared_networks_come_along(models: Path, tmp_path: Path) -> None:
    """A companion has no file of the networks that it shares; its archive does."""
    owner, companion = (write_tiny_model(tmp_path / "trained", name=name) for name in ("owner", NAME))
    for network in ("bodypart", "backbone"):
        (companion / f"{network}.safetensors").unlink()
        share_network(companion, network, owner)
    export_model(str(companion), tmp_path / "trial.zip")
    shutil.rmtree(tmp_path / "trained")
    assert import_model(tmp_path / "trial.zip") == NAME
    assert weights_in(models / NAME) == FIRST
    load_model(NAME, "cpu")


def test_a_model_is_fine_tuned_on_an_imported_one_and_travels_after_it(
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
def test_a_folder_copied_by_hand_works_under_its_folders_name(
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


def test_models_says_what_is_wrong_with_a_copy(trained: Path, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("half", "damaged", "plain", "whole"):
        shutil.copytree(trained, models / name)
    (models / "half" / "bodypart.safetensors").unlink()
    (models / "damaged" / "model.json").write_text("{", encoding="utf-8")
    raw = json.loads((models / "plain" / "model.json").read_text(encoding="utf-8"))
    raw["labels"][1].pop("colour")
    (models / "plain" / "model.json").write_text(json.dumps(raw), encoding="utf-8")
    assert main(["models"]) == 0
    lines = dict(line.split("\t", 1) for line in capsys.readouterr().out.splitlines())
    assert "no weights for its bodypart" in lines["half"]
    assert "is damaged" in lines["damaged"]
    assert f"its label '{raw['labels'][1]['name']}' has no category, code or colour" in lines["plain"]
    assert lines["whole"].endswith("3 organs")
    assert "abdomen-ct" in lines


def content_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def sealed(content: dict[str, bytes]) -> dict[str, bytes]:
    """The content with a manifest that names all of it with the right sums."""
    manifest = json.loads(content["manifest.json"])
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in content.items() if name != "manifest.json"}
    return {**content, "manifest.json": json.dumps({**manifest, "sha256": sums}).encode()}


def described(change: Callable[[dict], object]) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    def changed(content: dict[str, bytes]) -> dict[str, bytes]:
        raw = json.loads(content["model.json"])
        change(raw)
        return sealed({**content, "model.json": json.dumps(raw).encode()})

    return changed


def without(part: str) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda content: sealed({name: data for name, data in content.items() if name != part})


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
    "a file that no model has": (lambda c: sealed({**c, "setup.py": b"x"}), "'setup.py', which no model has"),
    "a file that the manifest does not name": (lambda c: {**c, "optimizer.pt": b"x"}, "optimizer"),
    "weights that were changed": (lambda c: {**c, "bodypart.safetensors": b"x"}, "was changed"),
    "weights that are none": (lambda c: sealed({**c, "bodypart.safetensors": b"x"}), "sha256 differs"),
    "a network too few": (without("bodypart.safetensors"), "no weights for its bodypart"),
    "a network that lies elsewhere": (described(shared), "not just the networks of a model"),
    "weights under another name": (described(misnamed), "not just the networks of a model"),
    "a network larger than any memory": (described(wide), "does not fit the bodypart"),
    "a stride that no scan has": (described(with_stride), "does not fit its bodypart"),
    "labels that do not fit": (described(lambda raw: raw.update(labels=raw["labels"][:1])), "does not fit its"),
    "channels that do not fit": (described(lambda raw: raw.update(channels=[4, 8, 8])), "does not fit its"),
    "a grid finer than any memory": (
        described(lambda raw: raw.update(spacing_mm=[0.01] * 3)),
        "trunk_spacing|too fine",
    ),
    "a tile larger than any memory": (described(lambda raw: raw.update(tile_voxels=[512] * 3)), "too fine"),
    "a colour that is none": (described(uncoloured), "the label spleen has no category, code or colour"),
    "another name": (described(lambda raw: raw.update(name="other")), "not that of the whole model"),
    "a base": (described(lambda raw: raw.update(base={"name": "a", "version": "1", "weights_sha256": ""})), "not that"),
    "no description": (without("model.json"), "manifest.json is damaged"),
    "a card larger than any": (lambda c: sealed({**c, "MODEL_CARD.md": b" " * 2_000_000}), "larger than 1 MB"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_zip_that_is_refused_leaves_nothing(trained: Path, models: Path, tmp_path: Path, change: str) -> None:
    alter, words = CHANGES[change]
    export_model(str(trained), tmp_path / "good.zip")
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as file:
        for name, data in alter(content_of(tmp_path / "good.zip")).items():
            file.writestr(name, data)
    with pytest.raises(DiffusionSegmentError, match=words) as caught:
        import_model(tmp_path / "bad.zip")
    assert len(str(caught.value).splitlines()) == 1
    assert str(models) not in caught.value.message, "the user never sees the folder in which it was checked"
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


def test_the_commands_take_a_folder(
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


@pytest.mark.parametrize("installed", [False, True], ids=["by its path", "copied by hand"])
def test_what_such_a_model_made_is_corrected_and_exported(
    models: Path, tmp_path: Path, installed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_segmenter_model(tmp_path / "trained", name=NAME)
    if installed:
        shutil.copytree(folder, models / "my-copy")
    scan, scribbles, first, second = (tmp_path / name for name in ("ct.nii.gz", "scribbles.nii.gz", "first", "second"))
    volume = coarse_phantom()
    write_volume(volume, scan)
    drawn = np.zeros(volume.array.shape, np.uint8)
    drawn[tuple(n // 2 for n in drawn.shape)] = 2
    write_volume(Volume(drawn, volume.index_to_lps), scribbles)
    name = "my-copy" if installed else str(folder)
    assert main(["segment", str(scan), "-o", str(first), "--model", name, "--force", "--device", "cpu"]) == 0
    done = main(["correct", str(first), "--corrections", str(scribbles), "-o", str(second), "--device", "cpu"])
    assert done == 0, capsys.readouterr().err
    report = json.loads((second / "report.json").read_text(encoding="utf-8"))
    assert report["provenance"]["model"] == ("my-copy" if installed else NAME)
    model = installed_model(str(report["provenance"].get("model_folder") or report["provenance"]["model"]))
    assert model is not None
    assert model.raw["labels"][0]["colour"]
    x, y, z = (volume.index_to_lps @ [*(n // 2 for n in reversed(drawn.shape)), 1])[:3]
    for command in (["features", str(scan)], ["similar", str(scan), f"--point={x},{y},{z}"]):
        done = main([*command, "-o", str(tmp_path / command[0]), "--model", name, "--device", "cpu"])
        assert done == 0, capsys.readouterr().err
