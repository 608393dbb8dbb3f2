"""A folder of the first generation has labels and grid of its base and records the training data of its networks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from DiffusionSegmentBackend.commands.train_network import TrainOptions, train
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import write_volume
from DiffusionSegmentBackend.models.manifest import read_description
from DiffusionSegmentBackend.models.model import find_model
from DiffusionSegmentBackend.phantom.phantom import make_phantom
from DiffusionSegmentBackend.training.new_model import data_text
from DiffusionSegmentBackend.training.session import record_training_data, start_model_folder


def test_only_labels_and_grid_of_the_base_are_copied(tmp_path: Path) -> None:
    base = read_description(find_model("headneck-ct"))
    begun = start_model_folder(tmp_path / "my-neck", base="headneck-ct", licence="CC BY 4.0")
    assert (begun.name, begun.version, begun.raw["licence"]) == ("my-neck", "1", "CC BY 4.0")
    assert (begun.networks, begun.raw["quality"], begun.raw["training_data"]) == ({}, {}, "")
    assert begun.anatomy.body_z_mm is None
    assert begun.anatomy.max_layout_mm is None
    assert (begun.labels, begun.spacing_mm, begun.window) == (base.labels, base.spacing_mm, base.window)
    assert start_model_folder(tmp_path / "my-neck", base="abdomen-ct").name == "my-neck", "a folder that is there stays"


def test_the_training_data_of_each_network_are_recorded(tmp_path: Path) -> None:
    start_model_folder(tmp_path / "model", base="abdomen-ct")
    abdomens = data_text({"abdomen": 18}, source="BTCV")
    for network, text in (("backbone", abdomens), ("probe", abdomens), ("bodypart", data_text({"a": 2}, unlabelled=3))):
        record_training_data(tmp_path / "model", network, text)
        if network == "probe":
            raw = json.loads((tmp_path / "model" / "model.json").read_text(encoding="utf-8"))
            assert raw["training_data"] == "BTCV: 18 labelled scans of abdomen"
    recorded = read_description(tmp_path / "model").raw["training_data"]
    assert recorded == (
        "backbone/probe: BTCV: 18 labelled scans of abdomen; bodypart: 2 labelled scans of a, 3 scans without labels"
    )


def test_scans_of_another_modality_than_the_base_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    phantom = make_phantom(seed=0, spacing_mm=(10.0, 10.0, 10.0))
    for part, array in (("images", np.clip(phantom.image + 200, 0, None)), ("labels", phantom.labels)):
        (tmp_path / "data" / part).mkdir(parents=True)
        write_volume(Volume(array, phantom.index_to_lps), tmp_path / "data" / part / "case_0.nii.gz")
    with pytest.raises(DiffusionSegmentError, match="case case_0: These values are not Hounsfield units") as caught:
        train(TrainOptions(network="bodypart", data=(tmp_path / "data",), output=tmp_path / "model"))
    assert caught.value.code is ErrorCode.TRAINING_DATA
    assert not (tmp_path / "model").exists()
