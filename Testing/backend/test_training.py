"""Training of the four networks from the command line's own entry, on phantoms: it learns, resumes and refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.phantom import make_phantom
from DiffusionSegmentBackend.pipeline.model import load_model
from DiffusionSegmentBackend.training.body_frame import fit_body_frame
from DiffusionSegmentBackend.training.command import TrainOptions, train
from DiffusionSegmentBackend.training.corruption import corrupted, simulated_marks
from DiffusionSegmentBackend.training.loop import Budget, Training
from DiffusionSegmentBackend.volume import Volume
from DiffusionSegmentBackend.volume_io import write_volume

ORDER = ("bodypart", "backbone", "probe", "refiner")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for part in ("images", "labels"):
        (folder / part).mkdir()
    for seed in range(2):
        phantom = make_phantom(seed=seed, spacing_mm=(3.0, 3.0, 3.0))
        write_volume(Volume(phantom.image, phantom.index_to_lps), folder / "images" / f"case_{seed}.nii.gz")
        write_volume(Volume(phantom.labels, phantom.index_to_lps), folder / "labels" / f"case_{seed}.nii.gz")
    return folder


@pytest.mark.slow
def test_four_commands_train_a_model_that_loads(data: Path, tmp_path: Path) -> None:
    for network in ORDER:
        options = TrainOptions(network=network, data=(data,), output=tmp_path, steps=3, patch=48, finetune=True)
        train(options)
        record = json.loads((tmp_path / "training" / f"{network}.json").read_text(encoding="utf-8"))
        assert record["steps_done"] == 3
        assert record["cases"] == ["case_0", "case_1"]
    assert load_model(str(tmp_path), "cpu").description.networks.keys() == set(ORDER)


def tiny_training(folder: Path, *, steps: int, resume: bool) -> Training:
    torch.manual_seed(0)
    return Training(torch.nn.Linear(4, 1), Budget(steps=steps, learning_rate=0.05), folder, resume=resume)


def fit(training: Training) -> torch.nn.Module:
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    y = x @ torch.tensor([[1.0], [-2.0], [0.5], [3.0]])
    return training.run(lambda _: {"mse": torch.nn.functional.mse_loss(training.network(x), y)}, title="test")


def test_the_loop_learns_and_logs(tmp_path: Path) -> None:
    fit(tiny_training(tmp_path, steps=200, resume=False))
    losses = [json.loads(line)["mse"] for line in (tmp_path / "losses.jsonl").read_text(encoding="utf-8").splitlines()]
    assert losses[-1] < 0.1 * losses[0]


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    fit(tiny_training(tmp_path, steps=30, resume=False))
    resumed = tiny_training(tmp_path, steps=60, resume=True)
    assert resumed.step == 30
    assert resumed.progress == 0.5
    fit(resumed)
    assert tiny_training(tmp_path, steps=60, resume=True).progress == 1.0


def test_a_corrupt_checkpoint_is_named_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"rubbish")
    with pytest.raises(DiffusionSegmentError, match=r"checkpoint\.pt") as caught:
        tiny_training(tmp_path, steps=10, resume=True)
    assert caught.value.code is ErrorCode.CHECKPOINT
    assert (tmp_path / "checkpoint.pt").read_bytes() == b"rubbish"


def break_missing_label(folder: Path) -> str:
    (folder / "labels" / "case_1.nii.gz").unlink()
    return "no label map"


def break_unknown_value(folder: Path) -> str:
    phantom = make_phantom(seed=1, spacing_mm=(3.0, 3.0, 3.0))
    labels = phantom.labels.copy()
    labels[0, 0, 0] = 77
    write_volume(Volume(labels, phantom.index_to_lps), folder / "labels" / "case_1.nii.gz")
    return "77"


def break_geometry(folder: Path) -> str:
    phantom = make_phantom(seed=1, spacing_mm=(3.0, 3.0, 3.0))
    moved = phantom.index_to_lps.copy()
    moved[0, 3] += 9
    write_volume(Volume(phantom.labels, moved), folder / "labels" / "case_1.nii.gz")
    return "geometry"


def break_empty(folder: Path) -> str:
    phantom = make_phantom(seed=1, spacing_mm=(3.0, 3.0, 3.0))
    write_volume(Volume(phantom.labels * 0, phantom.index_to_lps), folder / "labels" / "case_1.nii.gz")
    return "empty"


@pytest.mark.parametrize("damage", [break_missing_label, break_unknown_value, break_geometry, break_empty])
def test_broken_training_data_names_the_case_and_the_reason(
    data: Path, tmp_path: Path, damage: Callable[[Path], str]
) -> None:
    shutil.copytree(data, tmp_path / "data")
    reason = damage(tmp_path / "data")
    with pytest.raises(DiffusionSegmentError, match=f"case_1.*{reason}") as caught:
        train(TrainOptions(network="bodypart", data=(tmp_path / "data",), output=tmp_path / "model", steps=1))
    assert caught.value.code is ErrorCode.TRAINING_DATA


def test_body_frame_undoes_size_and_position() -> None:
    rng = np.random.default_rng(0)
    template = rng.normal(scale=80, size=(13, 3))
    patients = [template * rng.uniform(0.9, 1.1, 3) + rng.normal(scale=200, size=3) for _ in range(6)]
    patients[2][4] = np.nan
    maps, _ = fit_body_frame(patients)
    moved = np.stack([m.coordinates(p) for m, p in zip(maps, patients, strict=True)])
    assert np.nanmax(np.nanstd(moved, axis=0)) < 1e-6


def test_corruption_keeps_probabilities_and_changes_the_map() -> None:
    generator = torch.Generator().manual_seed(0)
    p = torch.zeros(4, 16, 16, 16)
    p[0] = 1
    p[:, 4:10, 4:10, 4:10] = torch.tensor([0.0, 0, 1, 0])[:, None, None, None]
    changed = [corrupted(p, generator) for _ in range(20)]
    for q in changed:
        torch.testing.assert_close(q.sum(dim=0), torch.ones(16, 16, 16))
    assert sum(not torch.equal(q, p) for q in changed) >= 15


def test_simulated_marks_lie_where_the_prediction_is_wrong() -> None:
    labels = torch.zeros(12, 12, 12, dtype=torch.long)
    p = torch.zeros(3, 12, 12, 12)
    p[0] = 1
    assert not simulated_marks(p, labels, torch.Generator().manual_seed(0)).any()
    labels[6, 6, 6] = 2
    marks = simulated_marks(p, labels, torch.Generator().manual_seed(0))
    assert marks[6, 6, 6]
    assert marks.sum() < 400
