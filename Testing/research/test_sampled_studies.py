"""The studies that change what a chain starts from, with the tiny model on phantoms."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume, model_grid
from DiffusionSegmentBackend.models.model import Model, load_model, save_network
from DiffusionSegmentBackend.pipeline.options import SegmentOptions, run_plan_of
from DiffusionSegmentBackend.pipeline.refinement import TileChains
from DiffusionSegmentBackend.pipeline.sampling import SamplingPlan
from DiffusionSegmentBackend.training.cross_fitting import stage_of
from DiffusionSegmentBackend.training.session import add_coordinates
from DiffusionSegmentResearch.cli.main import main
from DiffusionSegmentResearch.evidence.results import read_result
from DiffusionSegmentResearch.studies import diversity, recovery
from DiffusionSegmentResearch.studies.case_selection import crop_of, organ_window, outside_organ, parse_crop
from DiffusionSegmentResearch.studies.diversity import control_dice, diversity_rows, sample_measures
from DiffusionSegmentResearch.studies.leaks import case_measures, dropped_interventions, leak_rows
from DiffusionSegmentResearch.studies.measures_by_case import Measures, MeasuresByCase
from DiffusionSegmentResearch.studies.presegmentation_paths import PathChains, PathInputs, fitted, flat, without_organ
from DiffusionSegmentResearch.studies.recovery import SimulatedError, error_measures, recovery_rows, simulated_errors
from DiffusionSegmentResearch.studies.registry import STUDIES
from DiffusionSegmentResearch.studies.study import StudyOptions, StudyRequest
from fixtures.evaluation_data import write_labelled_phantoms
from numpy.typing import NDArray
from torch import Tensor

SPACING = (6.0, 6.0, 6.0)
SHAPE = (32, 28, 56)
ORGANS = ("spleen", "right_kidney", "left_kidney", "gallbladder", "liver")


@pytest.fixture(scope="module")
def small_model(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with small tiles, and a refiner whose correction is not zero."""
    folder = tmp_path_factory.mktemp("small") / "tiny"
    shutil.copytree(model_folder, folder)
    raw = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    (folder / "model.json").write_text(json.dumps({**raw, "tile_voxels": [32, 32, 32]}), encoding="utf-8")
    refiner = load_model(str(folder), "cpu").refiner
    assert refiner is not None
    torch.manual_seed(3)
    torch.nn.init.normal_(refiner.head.weight, std=0.5)
    save_network(folder, "refiner", refiner, architecture=refiner.architecture)
    return folder


@pytest.fixture(scope="module")
def tiny(small_model: Path) -> Model:
    return load_model(str(small_model), "cpu", precision="float32")


@pytest.fixture(scope="module")
def case(tiny: Model) -> Case:
    random = np.random.default_rng(0)
    image = random.uniform(-0.5, 0.5, SHAPE).astype(np.float32)
    grid = model_grid(Volume(image, np.diag([6.0, 6.0, 6.0, 1.0])), spacing=SPACING)
    case = Case("block", image, organ_blocks(), grid)
    add_coordinates([case], tiny.bodypart)
    return case


def organ_blocks() -> NDArray[np.uint8]:
    labels = np.zeros(SHAPE, np.uint8)
    labels[22:30, 8:16, 42:52] = 1
    labels[1:6, 10:20, 6:14] = 2
    labels[1:6, 10:20, 40:48] = 3
    labels[14:28, 6:22, 4:34] = 5
    return labels


def request(crop: str | None = None) -> StudyRequest:
    return StudyRequest(STUDIES["recovery"], (Path("m"),), (Path("d"),), Path("r.json"), StudyOptions(crop=crop))


def test_equal_paths_give_the_sample_of_a_run(tiny: Model, case: Case) -> None:
    assert tiny.refiner is not None
    with torch.inference_mode():
        stage = stage_of(case, tiny)
        assert len(stage.tiling.tiles) > 1
        plan = SamplingPlan.of(run_plan_of(SegmentOptions(), tiny))
        expected = TileChains(stage, tiny.refiner, tiny.device, tiny.dtype).sample(plan, sample=1)
        result = PathChains(stage, tiny).sample(PathInputs.same(stage.pre), plan, sample=1)
    torch.testing.assert_close(result, expected, atol=1e-3, rtol=0)


def test_each_path_has_an_effect_of_its_own(tiny: Model, case: Case) -> None:
    with torch.inference_mode():
        stage = stage_of(case, tiny)
        plan = SamplingPlan.of(run_plan_of(SegmentOptions(), tiny))
        own, chains = PathInputs.same(stage.pre), PathChains(stage, tiny)
        changes = [
            own,
            replace(own, state=flat(stage.pre)),
            replace(own, channel=flat(stage.pre)),
            replace(own, addition=flat(stage.pre)),
            replace(own, rule="renewed"),
            replace(own, rule="zeros"),
            replace(own, features=False),
        ]
        results = [chains.sample(inputs, plan, sample=0) for inputs in changes]
    for n, first in enumerate(results):
        assert all((first - second).abs().max() > 1e-3 for second in results[n + 1 :])


def test_tiles_with_unchanged_inputs_are_not_computed_again(
    tiny: Model, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.inference_mode():
        stage = stage_of(case, tiny)
        plan = SamplingPlan.of(run_plan_of(SegmentOptions(), tiny))
        pre = fitted(
            torch.from_numpy(np.moveaxis(np.eye(14, dtype=np.float32)[case.labels], -1, 0)), stage.tiling.shape
        )
        chains = PathChains(stage, tiny)
        whole = chains.sample(PathInputs.same(pre), plan, sample=0)
        lacking = PathInputs.same(without_organ(pre, 1))
        again = [not lacking.equal_in(PathInputs.same(pre), tile) for tile in stage.tiling.tiles]
        assert 0 < sum(again) < len(again)
        computed: list[int] = []
        tile_of = chains._tile

        def counted(index: int, *rest: Any) -> Tensor:
            computed.append(index)
            return tile_of(index, *rest)

        monkeypatch.setattr(chains, "_tile", counted)
        result = chains.sample(lacking, plan, sample=0)
        assert computed == np.flatnonzero(again).tolist()
        alone = PathChains(stage, tiny).sample(lacking, plan, sample=0)
    torch.testing.assert_close(result, alone, atol=1e-3, rtol=0)
    assert (result - whole).abs().max() > 0.1


def test_leaks_compare_every_change_with_the_unchanged_chain_of_its_start(tiny: Model, case: Case) -> None:
    donor = torch.zeros(14, 8, 8, 8)
    with torch.inference_mode():
        measures = case_measures(tiny, case, donor, dropped=1)
    assert measures["from T', unchanged"]["unchanged"] == 1
    assert measures["from noise, unchanged"]["unchanged"] == 1
    assert measures["from noise, channel and addition flat"]["unchanged"] < 1
    rows = leak_rows({"block": measures}, [f"organ_{n}" for n in range(1, 14)], dropped=1)
    assert len(rows) == len(measures) == 11 + 7 + 3
    assert rows[0].numbers["Dice to the unchanged chain"] == 1
    alone = next(row for row in rows if row.name == "from noise, organ out of channel, addition")
    assert alone.dice is None
    assert list(alone.numbers) == ["Dice of the organ 1"]


def test_an_organ_is_taken_out_of_every_combination_of_paths() -> None:
    pre = torch.rand(3, 4, 4, 4)
    changes = list(dropped_interventions(pre, 2))
    assert len({(start, change.name) for start, change in changes}) == 10
    for _, change in changes:
        for path in ("state", "channel", "addition"):
            lacks = not getattr(change.inputs, path)[2].any()
            assert lacks is (path in change.name)


def test_the_window_holds_the_organs_and_small_ones_count_as_large_ones() -> None:
    labels = np.zeros((50, 20, 20), np.uint8)
    labels[2:5, :3, :3] = 1
    labels[6:9, :3, :3] = 2
    labels[20:45] = 3
    window = organ_window(labels, (10, 30, 5))
    assert window[0].start <= 2
    assert window[0].stop >= 9
    assert window[1] == slice(0, 20)
    assert parse_crop("64,64,112") == (64, 64, 112)
    for text in ("64,64", "a,b,c", "0,1,1"):
        with pytest.raises(DiffusionSegmentError, match="is no crop") as error:
            parse_crop(text)
        assert error.value.code is ErrorCode.OPTION


def test_a_part_outside_of_an_organ_has_the_other_organs_and_its_own_offset(case: Case) -> None:
    part = outside_organ(case, 2, request(crop="24,28,56"))
    assert part is not None
    assert not np.isin([2, 3], part.labels).any()
    assert np.isin([1, 5], part.labels).all()
    corner = np.array(part.offset)
    end = corner + part.labels.shape
    assert np.array_equal(part.labels, case.labels[tuple(slice(a, b) for a, b in zip(corner, end, strict=True))])
    assert part.coordinates is not None
    assert part.coordinates.shape[1:] == part.image.shape == part.labels.shape
    assert outside_organ(case, 4, request()) is None
    assert crop_of(case, request()) is case


def test_measures_are_kept_by_case_and_measured_again_under_another_key(tmp_path: Path) -> None:
    calls: list[int] = []

    def measure() -> Measures:
        calls.append(1)
        return {"dice": [0.5, None]}

    for key, expected in (("a", 1), ("a", 1), ("b", 2)):
        assert MeasuresByCase(tmp_path, key).get("case", measure) == {"dice": [0.5, None]}
        assert len(calls) == expected
    (tmp_path / "case.json").write_text("[", encoding="utf-8")
    with pytest.raises(DiffusionSegmentError, match="holds no measures"):
        MeasuresByCase(tmp_path, "b").get("case", measure)


def test_simulated_errors_are_those_that_the_map_permits() -> None:
    labels = organ_blocks()
    errors = list(simulated_errors(labels, ORGANS))
    kinds = [error.kind for error in errors]
    assert kinds.count("organ deleted") == 2
    assert kinds.count("a third cut off") == 2
    assert {"kidneys swapped", "liver leaked to the heart"} <= set(kinds)
    inserted = next(error for error in errors if error.kind == "ball inserted")
    assert inserted.values == (4,)
    for error in errors:
        after = error.apply(labels, SPACING, np.random.default_rng(0))
        assert set(np.unique(np.stack([labels, after])[:, labels != after])) & set(error.values), error.kind


def test_a_repaired_map_is_recovered_and_an_unrepaired_one_is_not() -> None:
    before = organ_blocks()
    rng = np.random.default_rng(0)
    for error in simulated_errors(before, ORGANS):
        after = error.apply(before, SPACING, rng)
        entry = error_measures(error, before=before, after=after, results=[before, after], truth=before)
        assert entry["recovered"] == [True, False], error.kind
        assert entry["restored"] == [1, 0]


def test_recovery_rows_average_over_cases_samples_and_organs() -> None:
    before = organ_blocks()
    error = SimulatedError("organ deleted", (1,), partial(np.copy))
    after = np.where(before == 1, 0, before).astype(np.uint8)
    entry = error_measures(error, before=before, after=after, results=[before, after], truth=before)
    entry["uncorrupted"] = [1.0, 1.0]
    sources = ("expert, hard", "expert, soft", "pre-segmentation, hard", "pre-segmentation, soft")
    nothing: Measures = {"errors": []}
    absent = {"volumes": {"expert, hard": [0.0, 2.0]}}
    measured = {"a": {**dict.fromkeys(sources, nothing), sources[0]: {"errors": [entry]}, "organ truly absent": absent}}
    rows = recovery_rows(measured, ORGANS)
    assert [row.name for row in rows] == ["expert, hard: organ deleted", "expert, hard: organ truly absent"]
    assert rows[0].dice == {"a": {"spleen": 0.5}}
    assert rows[0].numbers == {"Dice of the start": 0, "of uncorrupted": 0.5, "restored": 0.5, "recovered": 0.5}
    assert rows[1].numbers == {"false recovery": 0.5, "invented mL": 1.0}


def shifted(amount: int) -> NDArray[np.uint8]:
    labels = np.zeros((30, 16, 16), np.uint8)
    labels[8 + amount : 18 + amount, 4:12, 4:12] = 1
    return labels


def test_diversity_rows_of_samples_like_the_truth_and_of_equal_ones() -> None:
    names = ("spleen", "liver")
    diverse = sample_measures([shifted(n) for n in (0, 1, 2)], shifted(1), shifted(1), SPACING, 3, seed=0)
    equal = sample_measures([shifted(1)] * 3, shifted(1), shifted(0), SPACING, 3, seed=0)
    first, second = diversity_rows({"diverse": {"a": diverse}, "equal": {"a": equal}}, names)
    assert first.numbers["spread-skill ratio"] == pytest.approx(0.4 / 3 / (0.2 / 3), abs=1e-3)
    assert first.numbers["best of K"] == 1
    assert first.numbers["covered"] == 1
    assert second.numbers["spread-skill ratio"] == 0
    assert second.numbers["best of K less control"] == 0
    assert second.dice == {"a": {"spleen": 0.9, "liver": None}}


def test_the_control_counts_the_truth_outside_of_its_window() -> None:
    mean = np.zeros((60, 16, 16), np.uint8)
    mean[:10, 4:12, 4:12] = 1
    truth = mean.copy()
    truth[50:, 4:12, 4:12] = 1
    control = control_dice(mean, truth, np.zeros(2), SPACING, count=2, seed=0)
    np.testing.assert_allclose(control, [2 / 3, np.nan])
    assert control_dice(np.zeros_like(mean), truth, np.zeros(1), SPACING, count=2, seed=0) == [0]


@pytest.mark.parametrize("name", ["leaks", "recovery", "diversity"])
def test_a_study_writes_a_result_file_and_resumes(
    name: str, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "SAMPLES", 1)
    monkeypatch.setattr(diversity, "SAMPLES", 2)
    data = write_labelled_phantoms(tmp_path / "data", {"phantom_1": 1, "phantom_2": 2})
    (data / "splits.json").write_text(json.dumps({"train": ["phantom_1", "phantom_2"]}), encoding="utf-8")
    output, kept = tmp_path / f"{name}.json", tmp_path / "measures"
    words = [
        "study",
        name,
        "--models",
        str(small_model),
        "--data",
        str(data),
        "--part",
        "train",
        "--case",
        "phantom_1",
    ]
    words += ["--crop", "24,32,32", "--measures", str(kept), "-o", str(output)]
    assert main(words) == 0
    result = read_result(output)
    assert "which the networks have seen in training" in result.protocol
    assert "--part train --case phantom_1 --crop 24,32,32" in result.command
    written = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    assert main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in kept.iterdir()} == written
    assert read_result(output).rows == result.rows


def test_an_unknown_case_is_refused(model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_labelled_phantoms(tmp_path / "data", {"phantom_1": 1})
    words = ["study", "leaks", "--models", str(model_folder), "--data", str(data), "--case", "lost"]
    assert main([*words, "-o", str(tmp_path / "r.json")]) != 0
    assert "There is no validation case lost" in capsys.readouterr().err
