"""Training of the four networks of the first generation on phantoms: loss, resumption, and refused data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.commands.train_network import JointModel, TrainOptions, train
from DiffusionSegmentBackend.datasets.folds import Fold
from DiffusionSegmentBackend.datasets.labelled_cases import find_cases, load_case
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import read_volume, write_volume
from DiffusionSegmentBackend.models.manifest import read_description
from DiffusionSegmentBackend.models.model import find_model, load_model
from DiffusionSegmentBackend.phantom.phantom import make_phantom
from DiffusionSegmentBackend.training.body_frame import fit_body_frame, fit_to_frame, organ_centroids
from DiffusionSegmentBackend.training.bodypart import framed_scans, free_scans
from DiffusionSegmentBackend.training.corruption import corrupted
from DiffusionSegmentBackend.training.cross_fitting import calibrate, calibrate_refiner, presegment_fold
from DiffusionSegmentBackend.training.loop import Budget, Training
from DiffusionSegmentBackend.training.losses import SegmentationLoss, marginalised

ORDER = ("bodypart", "backbone", "probe", "refiner")
TINY_CHANNELS = [8, 8, 16]


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


def test_the_loop_reduces_and_logs_the_loss(tmp_path: Path) -> None:
    fit(tiny_training(tmp_path, steps=200, resume=False))
    losses = [json.loads(line)["mse"] for line in (tmp_path / "losses.jsonl").read_text(encoding="utf-8").splitlines()]
    assert losses[-1] < 0.1 * losses[0]


def test_an_interrupted_run_resumes(tmp_path: Path) -> None:
    fit(tiny_training(tmp_path, steps=30, resume=False))
    resumed = tiny_training(tmp_path, steps=60, resume=True)
    assert resumed.step == 30
    assert resumed.progress == 0.5
    fit(resumed)
    assert tiny_training(tmp_path, steps=60, resume=True).progress == 1.0


def test_a_corrupt_checkpoint_is_reported_and_kept(tmp_path: Path) -> None:
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


def break_number_of_cases(folder: Path) -> str:
    for part, name in (("images", "case_0"), ("labels", "case_0")):
        (folder / part / f"{name}.nii.gz").unlink()
    return "only one"


def break_geometry(folder: Path) -> str:
    phantom = make_phantom(seed=1, spacing_mm=(3.0, 3.0, 3.0))
    moved = phantom.index_to_lps.copy()
    moved[0, 3] += 9
    write_volume(Volume(phantom.labels, moved), folder / "labels" / "case_1.nii.gz")
    return "geometry"


def break_annotation(folder: Path) -> str:
    (folder / "annotated.json").write_text('{"case_1": ["Liver", "Tail"]}', encoding="utf-8")
    return "Tail"


def break_empty(folder: Path) -> str:
    phantom = make_phantom(seed=1, spacing_mm=(3.0, 3.0, 3.0))
    write_volume(Volume(phantom.labels * 0, phantom.index_to_lps), folder / "labels" / "case_1.nii.gz")
    return "empty"


@pytest.mark.parametrize(
    "damage",
    [break_missing_label, break_unknown_value, break_geometry, break_annotation, break_empty, break_number_of_cases],
)
def test_an_error_of_training_data_names_the_case_and_the_reason(
    data: Path, tmp_path: Path, damage: Callable[[Path], str]
) -> None:
    shutil.copytree(data, tmp_path / "data")
    reason = damage(tmp_path / "data")
    with pytest.raises(DiffusionSegmentError, match=f"case_1.*{reason}") as caught:
        train(TrainOptions(network="bodypart", data=(tmp_path / "data",), output=tmp_path / "model", steps=1))
    assert caught.value.code is ErrorCode.TRAINING_DATA


def test_body_coordinates_do_not_depend_on_size_and_position() -> None:
    rng = np.random.default_rng(0)
    template = rng.normal(scale=80, size=(13, 3))
    patients = [template * rng.uniform(0.9, 1.1, 3) + rng.normal(scale=200, size=3) for _ in range(6)]
    patients[2][4] = np.nan
    maps, _ = fit_body_frame(patients)
    moved = np.stack([m.coordinates(p) for m, p in zip(maps, patients, strict=True)])
    assert np.nanmax(np.nanstd(moved, axis=0)) < 2.0


def test_corruption_keeps_probabilities_and_changes_the_map() -> None:
    generator = torch.Generator().manual_seed(0)
    p = torch.zeros(4, 16, 16, 16)
    p[0] = 1
    p[:, 4:10, 4:10, 4:10] = torch.tensor([0.0, 0, 1, 0])[:, None, None, None]
    changed = [corrupted(p, generator) for _ in range(20)]
    for q in changed:
        torch.testing.assert_close(q.sum(dim=0), torch.ones(16, 16, 16))
    assert sum(not torch.equal(q, p) for q in changed) >= 15


def test_cases_are_fitted_to_the_frame_of_the_model_file() -> None:
    template = np.random.default_rng(0).normal(scale=80, size=(7, 3))
    own = template / 1.1 - 30
    own[3] = np.nan
    (frame,) = fit_to_frame([own], template)
    moved = frame.coordinates(own)
    assert np.nanmax(np.abs(moved - template)) < 4.0
    (nowhere,) = fit_to_frame([np.full((7, 3), np.nan)], template)
    assert np.isnan(nowhere.shift).all()


def test_a_scan_without_organs_is_used_only_for_differences(data: Path) -> None:
    description = read_description(find_model("abdomen-ct"))
    case = load_case(find_cases(data)[0], description)
    tied, free = framed_scans([case], description.labels)[0], free_scans([case])[0]
    assert tied.tied
    assert not free.tied
    ratio = (tied.coordinates[2, -1] - tied.coordinates[2, 0]) / (free.coordinates[2, -1] - free.coordinates[2, 0])
    assert 0.7 < float(ratio.mean()) < 1.4


def test_organs_without_annotation_count_as_background() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0]])[:, :, None, None, None].expand(1, 3, 2, 2, 2)
    annotated = torch.tensor([[True, True, False]])
    p = marginalised(logits, annotated).softmax(dim=1)[0, :, 0, 0, 0]
    full = torch.tensor([1.0, 2.0, 3.0]).softmax(dim=0)
    torch.testing.assert_close(p, torch.stack([full[0] + full[2], full[1], torch.tensor(0.0)]))
    labels = torch.zeros(1, 1, 2, 2, 2, dtype=torch.long)
    confident = torch.tensor([[0.0, -9.0, 9.0]])[:, :, None, None, None].expand(1, 3, 2, 2, 2)
    loss = SegmentationLoss()
    assert float(loss(confident, labels, annotated)) < 0.1 < float(loss(confident, labels))


def test_partial_labels_are_read_by_name(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "annotated.json").write_text('{"case_1": ["Liver", "LeftKidney"]}', encoding="utf-8")
    description = read_description(find_model("abdomen-ct"))
    cases = [load_case(files, description) for files in find_cases(tmp_path / "data")]
    assert cases[0].drawn == frozenset(range(1, 14))
    assert cases[1].drawn == frozenset({3, 6})


def test_a_case_is_cropped_to_the_body_and_keeps_its_position(data: Path) -> None:
    description = read_description(find_model("abdomen-ct"))
    files = find_cases(data)[0]
    case = load_case(files, description)
    assert case.image.size < np.prod(case.grid.shape)
    result = organ_centroids(case, 14)
    label = read_volume(files.label)
    k, j, i = np.argwhere(label.array == 6).mean(axis=0)
    np.testing.assert_allclose(result[5], (label.index_to_lps @ [i, j, k, 1])[:3], atol=2.0)


def test_every_case_is_held_out_in_one_fold() -> None:
    cases = [SimpleNamespace(name=str(n)) for n in range(7)]
    held = [Fold.parse(f"{n}/3").held_out(cases) for n in (1, 2, 3)]  # type: ignore[arg-type]
    assert sorted(case.name for fold in held for case in fold) == [str(n) for n in range(7)]
    for n, out in enumerate(held, start=1):
        kept = Fold(n, 3).training(cases)  # type: ignore[arg-type]
        assert len(kept) + len(out) == 7
        assert not {c.name for c in kept} & {c.name for c in out}


@pytest.mark.parametrize("text", ["", "3", "0/2", "3/2", "a/b", "1/2/3"])
def test_an_invalid_fold_is_refused(text: str) -> None:
    with pytest.raises(DiffusionSegmentError, match="fold"):
        Fold.parse(text)


def test_one_case_cannot_be_split_into_folds() -> None:
    with pytest.raises(DiffusionSegmentError, match="1 case cannot be split into 2 folds") as caught:
        Fold(1, 2).training([SimpleNamespace(name="only")])  # type: ignore[list-item]
    assert caught.value.code is ErrorCode.TRAINING_DATA


@pytest.mark.parametrize(
    ("joint_models", "share", "shares"),
    [(0, None, [1.0]), (1, None, [0.5, 0.5]), (1, 0.3, [0.7, 0.3]), (2, 0.2, [0.6, 0.2, 0.2])],
)
def test_joint_models_get_their_share_of_the_steps(
    tmp_path: Path, joint_models: int, share: float | None, shares: list[float]
) -> None:
    others = (JointModel(output=tmp_path, data=tmp_path),) * joint_models
    options = TrainOptions(network="probe", data=(), output=tmp_path, joint_with=others, joint_share=share)
    assert options.shares == pytest.approx(shares)


@pytest.mark.parametrize("share", [0.0, -0.1, 0.5, 1.0])
def test_joint_models_cannot_take_all_steps(tmp_path: Path, share: float) -> None:
    others = (JointModel(output=tmp_path, data=tmp_path),) * 2
    options = TrainOptions(
        network="probe", data=(tmp_path,), output=tmp_path / "new", joint_with=others, joint_share=share
    )
    with pytest.raises(DiffusionSegmentError, match="nothing to the model itself"):
        train(options)
    assert not (tmp_path / "new").exists()


def start_tiny_model(folder: Path) -> None:
    raw = json.loads((find_model("abdomen-ct") / "model.json").read_text(encoding="utf-8"))
    folder.mkdir()
    raw |= {"name": folder.name, "networks": {}, "quality": {}, "channels": TINY_CHANNELS}
    raw["spacing_mm"] = [6.0, 6.0, 6.0]  # a whole phantom is one tile
    (folder / "model.json").write_text(json.dumps(raw), encoding="utf-8")


@pytest.mark.slow
def test_two_models_share_backbone_and_are_cross_fitted(data: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        start_tiny_model(tmp_path / name)
    shared: dict[str, Any] = {
        "data": (data,),
        "output": tmp_path / "one",
        "joint_with": (JointModel(output=tmp_path / "two", data=data),),
        "steps": 2,
        "patch": 32,
    }
    for network in ("bodypart", "backbone", "probe"):
        train(TrainOptions(network=network, finetune=True, **shared))
    with pytest.raises(DiffusionSegmentError, match="only one"):
        train(TrainOptions(network="probe", init_from_weights=True, fold=Fold(1, 2), **shared))
    for folder in ("one", "two"):
        options = {"data": (data,), "output": tmp_path / folder, "steps": 2, "patch": 32}
        train(TrainOptions(network="refiner", scheme="self-conditioning", **options))  # type: ignore[arg-type]
    first, second = (load_model(str(tmp_path / name), "cpu") for name in ("one", "two"))
    for one, other in ((first.backbone, second.backbone), (first.bodypart, second.bodypart)):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert not (tmp_path / "two" / "backbone.safetensors").exists()
    low, high = first.description.anatomy.body_z_mm or (0, 0)
    assert low < high

    presegment_fold(str(tmp_path / "one"), [data], tmp_path / "pre", fold=Fold(1, 2))
    assert [p.name for p in (tmp_path / "pre").iterdir()] == ["case_0.npz"]
    with pytest.raises(DiffusionSegmentError, match="case_1"):
        calibrate(tmp_path / "one", [data], tmp_path / "pre")
    presegment_fold(str(tmp_path / "one"), [data], tmp_path / "pre", fold=Fold(2, 2))
    temperature = calibrate(tmp_path / "one", [data], tmp_path / "pre")
    probe = load_model(str(tmp_path / "one"), "cpu").probe
    assert float(probe.temperature) == pytest.approx(temperature, rel=1e-2)  # type: ignore[arg-type]

    fitted = calibrate_refiner(tmp_path / "one", [data], part="train", samples=1, device="cpu")
    refiner = load_model(str(tmp_path / "one"), "cpu").refiner
    assert refiner is not None
    assert float(refiner.temperature) == pytest.approx(fitted, rel=1e-2)  # type: ignore[arg-type]
    again = calibrate_refiner(tmp_path / "one", [data], part="train", samples=1, device="cpu")
    assert again == pytest.approx(fitted, rel=1e-2)
    train(
        TrainOptions(
            network="refiner", init_from_weights=True, data=(data,), output=tmp_path / "one", steps=2, patch=32
        )
    )
    refiner = load_model(str(tmp_path / "one"), "cpu").refiner
    assert refiner is not None
    assert float(refiner.temperature) == 1  # type: ignore[arg-type]
