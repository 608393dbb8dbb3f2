"""The bundled manifests are complete, fit their networks, and start a model folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import real_data
import torch
from DiffusionSegmentBackend.datasets.labelled_cases import find_cases, load_case
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.models.folders import bundled_models_folder
from DiffusionSegmentBackend.models.manifest import (
    ModelDescription,
    find_model,
    read_description,
    read_manifest,
)
from DiffusionSegmentBackend.models.model import check_geometry
from DiffusionSegmentBackend.models.pre_segmenter import WholeSegmenter
from DiffusionSegmentBackend.networks.segmenter import Segmenter
from DiffusionSegmentBackend.training.segmenter import SegmenterRecipe
from DiffusionSegmentBackend.training.session import start_model_folder
from DiffusionSegmentLib.scene.terminology import readModelDescription

FOLDER = bundled_models_folder().parent / "Manifests"
MANIFESTS = sorted(FOLDER.glob("*.json"))
DATA = real_data.folder()


@pytest.fixture(params=MANIFESTS, ids=[path.stem for path in MANIFESTS])
def manifest(request: pytest.FixtureRequest) -> ModelDescription:
    return read_manifest(request.param)


def test_the_manifests_are_those_of_the_second_generation() -> None:
    assert [path.stem for path in MANIFESTS] == ["abdomen-ct", "abdomen-mr"]
    assert [read_manifest(path).name for path in MANIFESTS] == ["abdomen-ct", "abdomen-mr"]


def test_tile_and_channels_fit_a_segmenter(manifest: ModelDescription) -> None:
    with torch.device("meta"):
        network = Segmenter(manifest.classes, channels=manifest.channels, stride=manifest.tile.stride)
    shape = SegmenterRecipe(patch=manifest.tile.voxels).shape(network)
    assert (shape.voxels, shape.stride) == (manifest.tile.voxels, (1, 2, 2))
    check_geometry(manifest, WholeSegmenter(network))
    assert manifest.networks == {}
    assert manifest.raw["quality"] == {}


def test_a_model_folder_is_started_from_a_manifest(manifest: ModelDescription, tmp_path: Path) -> None:
    started = start_model_folder(tmp_path / "model", base=str(FOLDER / f"{manifest.name}.json"))
    assert started == read_description(tmp_path / "model")
    measured = {"name", "version", "licence", "training_data", "anatomy"}
    assert {k: v for k, v in started.raw.items() if k not in measured} == {
        k: v for k, v in manifest.raw.items() if k not in measured
    }
    shown = readModelDescription(tmp_path / "model")
    assert (shown.title, shown.modality) == (manifest.title, manifest.modality)
    assert [label.name for label in shown.labels] == [label.name for label in manifest.labels]


def test_a_missing_manifest_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DiffusionSegmentError) as caught:
        start_model_folder(tmp_path / "model", base=str(tmp_path / "none.json"))
    assert caught.value.code is ErrorCode.MODEL_UNKNOWN
    assert not (tmp_path / "model").exists()


def test_both_generations_for_ct_have_the_same_labels_anatomy_and_defaults() -> None:
    bundled, fine = read_description(find_model("abdomen-ct")), read_manifest(FOLDER / "abdomen-ct.json")
    assert fine.raw["labels"] == bundled.raw["labels"]
    assert (fine.anatomy, fine.defaults) == (bundled.anatomy, bundled.defaults)
    assert (fine.window, fine.window_unit, fine.modality) == (bundled.window, "HU", "CT")
    assert (fine.spacing_mm, fine.trunk_spacing_mm) == ((1.5, 1.5, 3.0), (3.0, 3.0, 3.0))
    assert fine.tile.voxels == (48, 96, 96)


def test_organs_of_the_mr_manifest_have_the_names_codes_and_colours_of_the_ct_model() -> None:
    bundled, mr = read_description(find_model("abdomen-ct")), read_manifest(FOLDER / "abdomen-mr.json")
    assert [(label.value, label.name) for label in mr.labels] == [
        (1, "liver"),
        (2, "right_kidney"),
        (3, "left_kidney"),
        (4, "spleen"),
    ]
    known = {item["name"]: item for item in bundled.raw["labels"]}
    for item in mr.raw["labels"]:
        for key in ("title", "category", "code", "colour", "modifier"):
            assert item.get(key) == known[item["name"]].get(key)
    assert (mr.modality, mr.window_unit, mr.window) == ("MR", "percentile", (0.5, 99.5))


@pytest.mark.skipif(DATA is None, reason="no real data on this machine; the phantom stands in for it in other tests")
def test_a_labelled_mr_scan_is_read_for_training() -> None:
    assert DATA is not None
    mr = read_manifest(FOLDER / "abdomen-mr.json")
    case = load_case(find_cases(DATA / "abdomen_mr", part="validation")[0], mr)
    assert set(np.unique(case.labels)) == {0, 1, 2, 3, 4}
    left = {label.name: case.lps(np.argwhere(case.labels == label.value)).mean(axis=0)[0] for label in mr.labels}
    assert left["liver"] < left["spleen"]
    assert left["right_kidney"] < left["left_kidney"]
    assert (case.image.min(), case.image.max()) == pytest.approx((-1, 1))
    assert float(np.mean(np.abs(case.image) < 0.95)) > 0.5
