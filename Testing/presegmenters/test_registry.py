"""A model of another program is described by the files of its folder, before PyTorch or its package is imported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.presegmenters import registry
from DiffusionSegmentBackend.presegmenters.registry import model_named
from fixtures.presegmenter_models import write_bundle, write_json, write_nnunet_folder


@pytest.fixture(autouse=True)
def with_all_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda name: find_spec("json"))


def test_a_model_folder_of_nnunet_states_labels_modality_and_file_type(tmp_path: Path) -> None:
    folder = write_nnunet_folder(tmp_path / "model", channel_names={"0": "T1"}, file_ending=".nrrd")
    model = model_named(f"nnunet:{folder}")
    assert (model.kind, model.folder, model.title) == ("nnunet", folder, f"nnunet:{folder}")
    assert model.names == {1: "spleen", 2: "rib"}
    assert (model.modality, model.suffix) == ("MR", ".nrrd")
    assert model_named(f"nnunet:{write_nnunet_folder(tmp_path / 'other', channel_names={'0': 'x'})}").modality is None


def test_a_monai_bundle_states_labels_and_modality(tmp_path: Path) -> None:
    model = model_named(f"monai-bundle:{write_bundle(tmp_path / 'bundle', modality='MRI')}")
    assert (model.names, model.modality, model.suffix) == ({1: "spleen", 2: "rib"}, "MR", ".nii.gz")


def test_channels_of_a_bundle_without_background_are_labels_from_1(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle")
    formats = {"outputs": {"pred": {"channel_def": {"0": "liver", "1": "spleen"}}}}
    write_json(folder / "configs" / "metadata.json", {"network_data_format": formats})
    assert model_named(f"monai-bundle:{folder}").names == {1: "liver", 2: "spleen"}


def removed(*parts: str) -> Callable[[Path], None]:
    return lambda folder: (folder / Path(*parts)).unlink()


def replaced(content: str, *parts: str) -> Callable[[Path], None]:
    return lambda folder: (folder / Path(*parts)).write_text(content, encoding="utf-8") and None


CONFIGS = "configs"


@pytest.mark.parametrize(
    ("kind", "change", "code", "words"),
    [
        ("nnunet", removed("plans.json"), ErrorCode.INPUT_MISSING, "no model folder of nnU-Net v2: it has no plans"),
        ("nnunet", removed("dataset.json"), ErrorCode.INPUT_MISSING, "it has no dataset.json"),
        ("nnunet", removed("fold_0", "checkpoint_final.pth"), ErrorCode.WEIGHTS_MISSING, "no fold with weights"),
        ("nnunet", replaced("{", "dataset.json"), ErrorCode.INPUT_UNREADABLE, "dataset.json cannot be read"),
        ("nnunet", replaced("[]", "dataset.json"), ErrorCode.INPUT_UNREADABLE, "dataset.json cannot be read"),
        ("monai-bundle", removed(CONFIGS, "metadata.json"), ErrorCode.INPUT_MISSING, "no configs/metadata.json"),
        ("monai-bundle", removed(CONFIGS, "inference.json"), ErrorCode.INPUT_MISSING, "no configs/inference.json"),
        ("monai-bundle", removed("models", "model.pt"), ErrorCode.WEIGHTS_MISSING, "no weights"),
        ("monai-bundle", replaced("{}", CONFIGS, "metadata.json"), ErrorCode.INPUT_VALUES, "no whole numbers"),
    ],
)
def test_a_folder_that_is_no_model_is_refused(
    tmp_path: Path, kind: str, change: Callable[[Path], None], code: ErrorCode, words: str
) -> None:
    write = write_nnunet_folder if kind == "nnunet" else write_bundle
    folder = write(tmp_path / "model")
    change(folder)
    with pytest.raises(DiffusionSegmentError, match=words) as caught:
        model_named(f"{kind}:{folder}")
    assert caught.value.code is code


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"channel_names": {"0": "T1", "1": "FLAIR"}}, ErrorCode.INPUT_SHAPE, r"needs 2 images .*T1, FLAIR"),
        ({"labels": {"background": 0, "whole": [1, 2]}}, ErrorCode.INPUT_VALUES, "no whole numbers"),
        ({"labels": None}, ErrorCode.INPUT_VALUES, "no whole numbers"),
        ({"file_ending": ".png"}, ErrorCode.INPUT_SHAPE, ".png"),
    ],
)
def test_a_model_that_does_not_segment_one_scan_into_a_label_map_is_refused(
    tmp_path: Path, changes: dict[str, object], code: ErrorCode, words: str
) -> None:
    with pytest.raises(DiffusionSegmentError, match=words) as caught:
        model_named(f"nnunet:{write_nnunet_folder(tmp_path / 'model', **changes)}")
    assert caught.value.code is code


@pytest.mark.parametrize("text", ["nnunet", "nnunet:", "", "totalsegmentator:folder"])
def test_another_text_than_kind_and_folder_is_refused(text: str) -> None:
    with pytest.raises(DiffusionSegmentError, match="'") as caught:
        model_named(text)
    assert caught.value.code is ErrorCode.OPTION
    assert "monai-bundle" in caught.value.hint


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    with pytest.raises(DiffusionSegmentError, match="Python package nnunetv2") as caught:
        model_named(f"nnunet:{write_nnunet_folder(tmp_path / 'model')}")
    assert caught.value.code is ErrorCode.PACKAGE_MISSING
    assert 'pip install "diffusion-segment[nnunet]"' in caught.value.hint


def test_folders_are_described_without_pytorch() -> None:
    script = "import sys, DiffusionSegmentBackend.presegmenters.registry as r; print('torch' in sys.modules)"
    folder = Path(registry.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=folder)
    assert done.stdout.strip() == "False"
