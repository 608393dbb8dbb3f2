"""The model files that models are trained from: they are whole, fit their networks, and begin a model's folder."""

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
    list_models,
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


def test_there_are_those_that_are_trained_next() -> None:
    assert [path.stem for path in MANIFESTS] == ["abdomen-ct", "abdomen-mr"]
    assert [read_manifest(path).name for path in MANIFESTS] == ["abdomen-ct", "abdomen-mr"]
    assert "abdomen-mr" not in list_models(), "no model without weights is offered"


def test_tile_and_channels_fit_a_segmenter(manifest: ModelDescription) -> None:
    with torch.device("meta"):
        network = Segmenter(manifest.classes, channels=manifest.channels, stride=manifest.tile.stride)
    shape = SegmenterRecipe(patch=manifest.tile.voxels).shape(network)
    assert (shape.voxels, shape.stride) == (manifest.tile.voxels, (1, 2, 2))
    check_geometry(manifest, WholeSegmenter(network))
    assert manifest.networks == {}
    assert manifest.raw["quality"] == {}


def test_a_models_folder_begins_with_it(manifest: ModelDescription, tmp_path: Path) -> None:
    begun = start_model_folder(tmp_path / "model", base=str(FOLDER / f"{manifest.name}.json"))
    assert begun == read_description(tmp_path / "model")
    measured = {"name", "version", "licence", "training_data", "anatomy"}
    assert {k: v for k, v in begun.raw.items() if k not in measured} == {
        k: v for k, v in manifest.raw.items() if k not in measured
    }
    shown = readModelDescription(tmp_path / "model")
    assert (shown.title, shown.modality) == (manifest.title, manifest.modality)
    assert [label.name for label in shown.labels] == [label.name for label in manifest.labels]


def test_a_missing_manifest_is_told(tmp_path: Path) -> None:
    with pytest.raises(DiffusionSegmentError) as told:
        start_model_folder(tmp_path / "model", base=str(tmp_path / "none.json"))
    assert told.value.code is ErrorCode.MODEL_UNKNOWN
    assert not (tmp_path / "model").exists()


def test_the_second_generation_for_ct_names_what_the_first_names() -> None:
    shipped, fine = read_description(find_model("abdomen-ct")), read_manifest(FOLDER / "abdomen-ct.json")
    assert fine.raw["labels"] == shipped.raw["labels"]
    assert (fine.anatomy, fine.defaults) == (shipped.anatomy, shipped.defaults)
    assert (fine.window, fine.window_unit, fine.modality) == (shipped.window, "HU", "CT")
    assert (fine.spacing_mm, fine.trunk_spacing_mm) == ((1.5, 1.5, 3.0), (3.0, 3.0, 3.0))
    assert fine.tile.voxels == (48, 96, 96)


def test_organs_on_mr_have_names_codes_and_colours_of_those_on_ct() -> None:
    shipped, mr = read_description(find_model("abdomen-ct")), read_manifest(FOLDER / "abdomen-mr.json")
    assert [(label.value, label.name) for label in mr.labels] == [
        (1, "liver"),
        (2, "right_kidney"),
        (3, "left_kidney"),
        (4, "spleen"),
    ]
    known = {item["name"]: item for item in shipped.raw["labels"]}
    for item in mr.raw["labels"]:
        for key in ("title", "category", "code", "colour", "modifier"):
            assert item.get(key) == known[item["name"]].get(key)
    assert (mr.modality, mr.window_unit, mr.window) == ("MR", "percentile", (0.5, 99.5))


@pytest.mark.skipif(DATA is None, reason="no real data on this machine; the phantom stands in for it in other tests")
def test_a_labelled_mr_is_read_for_training() -> None:
    assert DATA is not None
    mr = read_manifest(FOLDER / "abdomen-mr.json")
    case = load_case(find_cases(DATA / "abdomen_mr", part="validation")[0], mr)
    assert set(np.unique(case.labels)) == {0, 1, 2, 3, 4}
    left = {label.name: case.lps(np.argwhere(case.labels == label.value)).mean(axis=0)[0] for label in mr.labels}
    assert left["liver"] < left["spleen"]
    assert left["right_kidney"] < left["left_kidney"]
    assert (case.image.min(), case.image.max()) == pytest.approx((-1, 1))
    assert float(np.mean(np.abs(case.image) < 0.95)) > 0.5
