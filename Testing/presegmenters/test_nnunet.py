"""A model folder that nnunetv2 itself writes and reads, trained for seconds; without the package only its errors."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.imaging.volume_io import read_volume
from fixtures.command_line import Workspace, make_workspace
from fixtures.correction_cases import labels_of, report_of
from fixtures.presegmenter_models import NNUNET_DATASET, write_json, write_nnunet_folder
from fixtures.tiny_model import SPACING_MM

BODY_HU = -300.0
HU = {"mean": 0.0, "std": 200.0, "median": 0.0, "min": -1000.0, "max": 1000.0}
NETWORK: dict[str, Any] = {
    "n_stages": 2,
    "features_per_stage": [8, 16],
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "kernel_sizes": [[3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [2, 2, 2]],
    "n_conv_per_stage": [1, 1],
    "n_conv_per_stage_decoder": [1],
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
RESAMPLING = "resample_data_or_seg_to_shape"
PLANS: dict[str, Any] = {
    "dataset_name": "Dataset900_Tiny",
    "plans_name": "nnUNetPlans",
    "original_median_spacing_after_transp": list(SPACING_MM),
    "original_median_shape_after_transp": [30, 22, 28],
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "experiment_planner_used": "ExperimentPlanner",
    "label_manager": "LabelManager",
    "foreground_intensity_properties_per_channel": {"0": {**HU, "percentile_00_5": -500.0, "percentile_99_5": 500.0}},
    "configurations": {
        "3d_fullres": {
            "data_identifier": "nnUNetPlans_3d_fullres",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 2,
            "patch_size": [16, 16, 16],
            "median_image_size_in_voxels": [30, 22, 28],
            "spacing": list(SPACING_MM),
            "normalization_schemes": ["CTNormalization"],
            "use_mask_for_norm": [False],
            "resampling_fn_data": RESAMPLING,
            "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
            "resampling_fn_seg": RESAMPLING,
            "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
            "resampling_fn_probabilities": RESAMPLING,
            "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
            "batch_dice": True,
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                "arch_kwargs": NETWORK,
                "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
            },
        }
    },
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("nnunet"))


def arguments(workspace: Workspace, folder: Path, output: Path) -> list[str]:
    options = ["--model", str(workspace.model), "--force", "--device", "cpu", "--quiet"]
    return ["review", str(workspace.scan), "--presegmenter", f"nnunet:{folder}", "-o", str(output), *options]


def write_trained_folder(folder: Path, scan: Path) -> Path:
    """A model folder whose network knows tissue ("spleen") from air, and never predicts "rib"."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    write_nnunet_folder(folder)
    write_json(folder / "plans.json", PLANS)
    image = read_volume(scan).array.astype(np.float32)
    scaled = torch.from_numpy(np.clip(image, -500, 500) / HU["std"])[None, None]
    truth = torch.from_numpy((image > BODY_HU).astype(np.int64))[None]
    torch.manual_seed(0)
    configuration = PLANS["configurations"]["3d_fullres"]["architecture"]
    network = get_network_from_plans(
        configuration["network_class_name"],
        configuration["arch_kwargs"],
        configuration["_kw_requires_import"],
        1,
        len(NNUNET_DATASET["labels"]),
        deep_supervision=False,
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    corner = scaled[..., :28, :20, :28], truth[:, :28, :20, :28]
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(corner[0]), corner[1]).backward()
        optimizer.step()
    checkpoint = {
        "network_weights": network.state_dict(),
        "init_args": {"configuration": "3d_fullres"},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": None,
    }
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    return folder


def test_the_segmentation_of_an_nnunet_model_is_reviewed(workspace: Workspace, tmp_path: Path) -> None:
    pytest.importorskip("nnunetv2", reason='nnunetv2 is missing: pip install -e ".[nnunet]"')
    folder = write_trained_folder(tmp_path / "model", workspace.scan)
    before = sorted(path.name for path in folder.rglob("*"))
    assert main(arguments(workspace, folder, tmp_path / "out")) == 0
    body, labels = read_volume(workspace.scan).array > BODY_HU, labels_of(tmp_path / "out")
    assert 2 * np.count_nonzero(body & (labels == 1)) / (body.sum() + (labels == 1).sum()) > 0.9
    report = report_of(tmp_path / "out")
    assert report["reviewed"]["source"] == f"nnunet:{folder}"
    assert [match["organ"] for match in report["reviewed"]["matches"]] == ["spleen"]
    assert [other["name"] for other in report["reviewed"]["unmatched"]] == ["rib"]
    assert sorted(path.name for path in folder.rglob("*")) == before


def test_a_folder_that_nnunet_cannot_run_is_one_line(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its checkpoint is empty; without the package that is what is missing."""
    installed = find_spec("nnunetv2") is not None
    folder = write_nnunet_folder(tmp_path / "model")
    assert main(arguments(workspace, folder, tmp_path / "out")) == (1 if installed else 3)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("PRESEGMENTER_FAILED" if installed else "PACKAGE_MISSING")
    assert not (tmp_path / "out").exists()


def test_an_nnunet_model_of_mr_is_refused_for_a_ct(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("DiffusionSegmentBackend.presegmenters.registry.find_spec", lambda name: find_spec("json"))
    folder = write_nnunet_folder(tmp_path / "model", channel_names={"0": "MRI"})
    command = arguments(workspace, folder, tmp_path / "out")
    command.remove("--force")
    assert main(command) == 2
    assert "trained on MR" in capsys.readouterr().err
    assert json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["channel_names"] == {"0": "MRI"}
    assert not (tmp_path / "out").exists()
