"""One command trains a model: on phantoms in a minute, resumed where it was stopped, refused in one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import DiffusionSegmentBackend
import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import read_volume, write_volume
from DiffusionSegmentBackend.models.manifest import read_description
from DiffusionSegmentBackend.models.model import find_model, load_model, load_network
from DiffusionSegmentBackend.networks.temperature import temperature
from DiffusionSegmentBackend.phantom.phantom import make_phantom
from DiffusionSegmentBackend.pipeline.options import SegmentOptions
from DiffusionSegmentBackend.pipeline.segment import segment
from DiffusionSegmentBackend.training.whole_model import (
    LongerTrainingOptions,
    ModelTrainingOptions,
    longer_training,
    train_longer,
    train_model,
)
from DiffusionSegmentBackend.training.whole_model.networks import NetworkTraining
from DiffusionSegmentBackend.training.whole_model.time_plan import (
    STAGES,
    Preparation,
    TimePlan,
    plan_time,
)

CASES = ("case_0", "case_1", "case_2", "case_3")
MINUTES = 1.2
# Start of Python and imports, before the budget begins.
START_SECONDS = 20.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three phantoms with all organs annotated and one with the liver only."""
    folder = tmp_path_factory.mktemp("phantoms")
    for part in ("images", "labels"):
        (folder / part).mkdir()
    for seed, name in enumerate(CASES):
        phantom = make_phantom(seed=seed, spacing_mm=(6.0, 6.0, 8.0))
        labels = phantom.labels if name != "case_3" else np.where(phantom.labels == 6, 6, 0).astype(np.uint8)
        write_volume(Volume(phantom.image, phantom.index_to_lps), folder / "images" / f"{name}.nii.gz")
        write_volume(Volume(labels, phantom.index_to_lps), folder / "labels" / f"{name}.nii.gz")
    (folder / "annotated.json").write_text(json.dumps({"case_3": ["liver"]}), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of abdomen-ct with a coarse grid, a coarser trunk, and a network of three narrow levels."""
    raw = json.loads((find_model("abdomen-ct") / "model.json").read_text(encoding="utf-8"))
    labels = [{key: value for key, value in label.items() if key != "body_mm"} for label in raw["labels"]]
    raw |= {
        "name": "trial-ct",
        "spacing_mm": [6.0, 6.0, 8.0],
        "trunk_spacing_mm": [12.0, 12.0, 8.0],
        "tile_voxels": [32, 32, 16],
        "channels": [8, 8, 16],
        "labels": labels,
        "anatomy": {"min_organ_ml": 0.0, "min_share_in_reach": 0.0, "min_confidence": 0.0},
    }
    path = tmp_path_factory.mktemp("manifest") / "trial-ct.json"
    path.write_text(json.dumps(raw), encoding="utf-8")
    return path


def options(*data: Path, output: Path, **changes: Any) -> ModelTrainingOptions:
    defaults = {"minutes": MINUTES, "folds": 2, "processor_time": True, "pseudo_labels": True}
    return ModelTrainingOptions(data=data, output=output, **{**defaults, **changes})


@pytest.fixture(scope="module")
def trained(data: Path, manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained as a user would: by the command line."""
    output = tmp_path_factory.mktemp("models") / "trial-ct"
    arguments = ["--data", data, "-o", output, "--manifest", manifest, "--minutes", MINUTES, "--folds", 2]
    command = [
        sys.executable,
        "-m",
        "DiffusionSegmentBackend",
        "train",
        *map(str, arguments),
        "--device",
        "cpu",
        "--processor-time",
        "--pseudo-labels",
        "--licence",
        "CC0",
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(DiffusionSegmentBackend.__file__).parents[1])}
    before = processor_seconds_of_children()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "7/7 card" in done.stderr
    (output / "processor seconds").write_text(str(processor_seconds_of_children() - before), encoding="utf-8")
    return output


def processor_seconds_of_children() -> float:
    times = os.times()
    return times.children_user + times.children_system


def plan_of(trained: Path) -> TimePlan:
    record = json.loads((trained / "training" / "stage-preparation.json").read_text(encoding="utf-8"))
    return plan_time(MINUTES, folds=2, pseudo_labels=True, preparation=Preparation(**record))


@pytest.mark.slow
class TestATrainedModel:
    def test_it_loads_and_segments(self, trained: Path, data: Path) -> None:
        model = load_model(str(trained), "cpu")
        assert model.tile.voxels == (16, 32, 32)
        assert model.tile.stride == (1, 2, 2)
        scan = read_volume(data / "images" / "case_0.nii.gz")
        result = segment(scan, model, SegmentOptions(force=True))
        assert result.labels.shape == scan.array.shape

    def test_every_network_was_trained(self, trained: Path) -> None:
        for folder in ("bodypart", "trunk", "segmenter", "folds/1/trunk", "folds/2/segmenter"):
            state = torch.load(trained / "training" / folder / "checkpoint.pt", weights_only=True)
            assert state["step"] >= 3
            assert any(not torch.equal(state["network"][key], state["average"][key]) for key in state["network"])

    def test_reading_and_scoring_are_part_of_the_budget(self, trained: Path) -> None:
        plan = plan_of(trained)
        assert all(minutes > 0 for minutes in vars(plan.preparation).values())
        assert sum(plan.stages.values()) == pytest.approx(MINUTES)
        for folder, minutes in (("trunk", plan.trunk), ("folds/2/segmenter", plan.fold_segmenter)):
            state = torch.load(trained / "training" / folder / "checkpoint.pt", weights_only=True)
            assert state["seconds"] / 60 == pytest.approx(minutes, abs=0.05)
        threads = NetworkTraining(read_description(trained), "cpu", 0, 0.2).recipe().threads
        taken = float((trained / "processor seconds").read_text(encoding="utf-8"))
        assert taken < 60 * MINUTES * threads + START_SECONDS

    def test_the_manifest_contains_no_values_of_another_model(self, trained: Path) -> None:
        raw = read_description(trained).raw
        base = read_description(find_model("abdomen-ct")).raw
        assert raw["training_data"].startswith("4 labelled scans of phantoms")
        assert raw["licence"] == "CC0"
        assert {"min_organ_ml", "min_confidence", "usual_confidence", "body_z_mm", "max_side_mm"} <= set(raw["anatomy"])
        for key, value in raw["anatomy"].items():
            assert value != base["anatomy"].get(key)
        assert not set(raw["quality"]["mean_dice"]) - {"segmenter"}
        card = (trained / "MODEL_CARD.md").read_text(encoding="utf-8")
        assert raw["training_data"] in card
        assert "Weights: CC0." in card

    def test_each_complete_case_was_held_out_once(self, trained: Path) -> None:
        record = json.loads((trained / "training" / "stage-folds.json").read_text(encoding="utf-8"))
        assert sorted(name for names in record["folds"].values() for name in names) == list(CASES[:3])

    def test_the_body_frame_comes_from_the_cases(self, trained: Path) -> None:
        positions = {label.name: label.body_mm for label in read_description(trained).labels}
        assert sum(position is not None for position in positions.values()) > 8
        left, right = positions["left_kidney"], positions["right_kidney"]
        assert left is not None
        assert right is not None
        assert left[0] > right[0] + 50

    def test_the_card_contains_the_out_of_fold_dice(self, trained: Path) -> None:
        quality = read_description(trained).raw["quality"]
        stored = [np.load(trained / "training" / "out_of_fold" / f"{name}.npz")["dice"] for name in CASES[:3]]
        assert quality["cases"] == 3
        mean = np.nanmean(np.nanmean(stored, axis=1))
        assert quality["mean_dice"]["segmenter"] == pytest.approx(mean, abs=1e-4)
        card = (trained / "MODEL_CARD.md").read_text(encoding="utf-8")
        assert f"| **Mean** | 3 | {mean:.3f} |" in card
        assert f"--minutes {MINUTES}" in card

    def test_the_temperature_is_that_of_the_held_out_cases(self, trained: Path) -> None:
        result = json.loads((trained / "training" / "stage-calibration.json").read_text(encoding="utf-8"))
        network = load_model(str(trained), "cpu").pre_segmenter.networks["segmenter"]
        assert temperature(network) == pytest.approx(result["temperature"], rel=1e-2)
        assert result["temperature"] != 1

    def test_pseudo_labels_are_kept_only_if_held_out_cases_improve(self, trained: Path) -> None:
        record = json.loads((trained / "training" / "stage-student.json").read_text(encoding="utf-8"))
        folds = json.loads((trained / "training" / "stage-folds.json").read_text(encoding="utf-8"))["folds"]
        assert sorted(record["dice"]) == sorted(folds["1"])
        gains = [row["with"] - row["without"] for row in record["dice"].values()]
        assert record["gain"] == pytest.approx(np.mean(gains), abs=1e-3)
        assert (trained / "training" / "student" / "model").exists() == record["kept"]

    def test_a_second_run_repeats_no_stage(self, trained: Path, data: Path, manifest: Path, tmp_path: Path) -> None:
        copy = shutil.copytree(trained, tmp_path / "trial-ct")
        before = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()}
        train_model(options(data, output=copy, resume=True))
        assert {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()} == before

    def test_an_interrupted_run_resumes_and_a_stage_can_be_repeated(
        self, trained: Path, data: Path, tmp_path: Path
    ) -> None:
        copy = shutil.copytree(trained, tmp_path / "trial-ct")
        before = read_description(copy).networks["segmenter"].sha256
        for stage in ("calibration", "card"):
            (copy / "training" / f"stage-{stage}.json").unlink()
        train_model(options(data, output=copy, resume=True, stage="calibration"))
        assert read_description(copy).networks["segmenter"].sha256 == before
        assert not (copy / "training" / "stage-card.json").exists()
        train_model(options(data, output=copy, resume=True))
        assert (copy / "training" / "stage-card.json").exists()

    def test_a_run_with_other_options_is_not_resumed(self, trained: Path, data: Path) -> None:
        with pytest.raises(DiffusionSegmentError, match="begun with another minutes"):
            train_model(options(data, output=trained, resume=True, minutes=2.0))
        with pytest.raises(DiffusionSegmentError, match="A training was begun"):
            train_model(options(data, output=trained))


def copied(data: Path, folder: Path) -> Path:
    return shutil.copytree(data, folder / "data")


def refusal(invalid: ModelTrainingOptions) -> DiffusionSegmentError:
    with pytest.raises(DiffusionSegmentError) as caught:
        train_model(invalid)
    assert not invalid.output.exists()
    return caught.value


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "copy")


class TestMoreMinutes:
    """`train --more-minutes` continues the network of a trained model."""

    def test_the_network_is_trained_further_and_stays_calibrated(self, copy: Path, data: Path) -> None:
        before = load_network(read_description(copy), "segmenter")
        arguments = ["train", "--data", str(data), "-o", str(copy), "--more-minutes", "0.05", "--processor-time"]
        assert main([*arguments, "--device", "cpu"]) == 0
        after = load_network(read_description(copy), "segmenter")
        assert temperature(after) == temperature(before)  # type: ignore[arg-type]
        assert not torch.equal(after.state_dict()["head.weight"], before.state_dict()["head.weight"])
        difference = after.state_dict()["head.weight"] - before.state_dict()["head.weight"]
        assert difference.abs().max() < before.state_dict()["head.weight"].abs().max(), "not started anew"
        assert "trained for 0.05 minutes more" in (copy / "MODEL_CARD.md").read_text(encoding="utf-8")
        assert not (copy / "training" / "longer").exists()
        scan = read_volume(data / "images" / "case_0.nii.gz")
        assert segment(scan, load_model(str(copy), "cpu"), SegmentOptions(force=True)).labels.any()

    def test_an_interrupted_training_goes_on_and_replaces_nothing_before_its_end(
        self, copy: Path, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        weights = (copy / "segmenter.safetensors").read_bytes()
        more = LongerTrainingOptions(data=(data,), output=copy, more_minutes=0.05, device="cpu", processor_time=True)
        with monkeypatch.context() as patch:
            patch.setattr(longer_training, "set_temperature", interrupt)
            with pytest.raises(KeyboardInterrupt):
                train_longer(more)
        assert (copy / "segmenter.safetensors").read_bytes() == weights
        assert (copy / "training" / "longer" / "checkpoint.pt").is_file()
        train_longer(more)
        assert (copy / "segmenter.safetensors").read_bytes() != weights

    @pytest.mark.parametrize(
        ("minutes", "model", "code"),
        [(0.0, "trial", ErrorCode.OPTION), (1.0, "abdomen-ct", ErrorCode.WEIGHTS_MISSING)],
    )
    def test_what_cannot_be_continued_is_refused(
        self, minutes: float, model: str, code: ErrorCode, copy: Path, data: Path
    ) -> None:
        folder = copy if model == "trial" else find_model(model)
        with pytest.raises(DiffusionSegmentError) as caught:
            train_longer(LongerTrainingOptions(data=(data,), output=folder, more_minutes=minutes, device="cpu"))
        assert caught.value.code is code


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_an_organ_without_annotation_is_reported(data: Path, manifest: Path, tmp_path: Path) -> None:
    folder = copied(data, tmp_path)
    annotated = {name: ["liver", "spleen"] for name in CASES}
    (folder / "annotated.json").write_text(json.dumps(annotated), encoding="utf-8")
    error = refusal(options(folder, output=tmp_path / "model", manifest=str(manifest)))
    assert error.code is ErrorCode.TRAINING_DATA
    assert "Right kidney" in error.message


def test_a_data_set_without_annotated_organs_is_named(data: Path, manifest: Path, tmp_path: Path) -> None:
    folder = copied(data, tmp_path)
    (folder / "annotated.json").write_text(json.dumps({name: [] for name in CASES}), encoding="utf-8")
    error = refusal(options(data, folder, output=tmp_path / "model", manifest=str(manifest)))
    assert str(folder) in error.message


def test_a_data_set_of_another_modality_is_named(data: Path, manifest: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mr"
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
        scan = read_volume(data / part / "case_0.nii.gz")
        values = np.abs(scan.array) if part == "images" else scan.array
        write_volume(Volume(values, scan.index_to_lps), folder / part / "mr_0.nii.gz")
    error = refusal(options(data, folder, output=tmp_path / "model", manifest=str(manifest)))
    assert error.code is ErrorCode.TRAINING_DATA
    assert f"{folder}: case mr_0: These values are not Hounsfield units" in error.message


def test_data_sets_with_a_common_case_name_are_refused(data: Path, manifest: Path, tmp_path: Path) -> None:
    invalid = options(data, copied(data, tmp_path), output=tmp_path / "model", manifest=str(manifest))
    assert "two cases named case_0" in refusal(invalid).message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"minutes": 0.01}, "too short for 7 networks"),
        ({"minutes": 0.0}, "too short"),
        ({"folds": 1}, "folds"),
        ({"denoising_share": 1.0}, "denoising share"),
        ({"manifest": "brain-mr"}, "There is no model file brain-mr"),
        ({"manifest": None}, "says what the labels mean"),
    ],
)
def test_invalid_options_are_refused(
    changes: dict[str, Any], words: str, data: Path, manifest: Path, tmp_path: Path
) -> None:
    invalid = options(data, output=tmp_path / "model", **{"manifest": str(manifest), **changes})
    error = refusal(invalid)
    assert words in error.message
    assert error.hint


def test_a_folder_with_a_model_is_not_overwritten(data: Path, manifest: Path, tmp_path: Path) -> None:
    output = tmp_path / "model"
    shutil.copytree(find_model("abdomen-ct"), output)
    before = (output / "model.json").read_bytes()
    with pytest.raises(DiffusionSegmentError, match="holds a model already"):
        train_model(options(data, output=output, manifest=str(manifest)))
    assert (output / "model.json").read_bytes() == before


def test_a_stage_without_its_predecessors_is_refused(data: Path, manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(DiffusionSegmentError, match="'trunk' is not finished"):
        train_model(options(data, output=tmp_path / "model", manifest=str(manifest), stage="segmenter"))


@pytest.mark.parametrize("minutes", [1.0, 60.0, 840.0])
@pytest.mark.parametrize("folds", [2, 5])
@pytest.mark.parametrize("pseudo_labels", [False, True])
def test_the_stages_sum_to_the_minutes(minutes: float, folds: int, pseudo_labels: bool) -> None:
    plan = plan_time(minutes, folds=folds, pseudo_labels=pseudo_labels)
    assert (plan.stages["student"] > 0) == pseudo_labels
    assert [*plan.stages] == [*STAGES]
    assert sum(plan.stages.values()) == pytest.approx(minutes)
    assert plan.bodypart <= 12
    assert plan.segmenter > plan.trunk > plan.fold_trunk


def test_reading_and_scoring_are_subtracted_from_the_minutes() -> None:
    preparation = Preparation(timing=0.5, trunk_reading=1.0, reading=2.0, scoring=3.0)
    plan, bare = (plan_time(60.0, folds=3, preparation=one) for one in (preparation, Preparation()))
    assert sum(plan.stages.values()) == pytest.approx(60.0)
    assert plan.reserved == {**dict.fromkeys(STAGES, 0.0), "bodypart": 1.5, "trunk": 2.0, "folds": 3.0}
    assert plan.segmenter == pytest.approx(bare.segmenter * (60 - 6.5 - plan.bodypart) / (60 - bare.bodypart))
    with pytest.raises(DiffusionSegmentError, match=r"takes about 6\.5 of them") as caught:
        plan_time(6.6, folds=3, preparation=preparation)
    needed = float(caught.value.hint.split()[1])
    assert plan_time(needed, folds=3, preparation=preparation).fold_trunk >= 0.01
    labelled = replace(preparation, labelling=4.0)
    assert plan_time(60.0, folds=3, pseudo_labels=True, preparation=labelled).reserved["student"] == 4 * 4 + 2


def test_a_budget_too_short_for_reading_is_refused_before_writing(data: Path, manifest: Path, tmp_path: Path) -> None:
    error = refusal(options(data, output=tmp_path / "model", manifest=str(manifest), minutes=0.39))
    assert "Reading and scoring the scans takes about" in error.message
