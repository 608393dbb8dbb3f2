"""The bake-off: its rules, arms from one trunk, and a study that resumes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.datasets.labelled_cases import CaseFiles
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import write_volume
from DiffusionSegmentBackend.models.manifest import ModelDescription, read_description
from DiffusionSegmentBackend.models.model import find_model
from DiffusionSegmentBackend.training.segmenter import SegmenterRecipe
from DiffusionSegmentResearch.cli.main import main
from DiffusionSegmentResearch.evidence.results import read_result
from DiffusionSegmentResearch.studies import bakeoff, bakeoff_report, norms
from DiffusionSegmentResearch.studies.bakeoff import (
    CONTROL,
    FINE_LOSS,
    FINE_PATH,
    SUB_VOXELS,
    ArmResult,
    BakeoffData,
    BakeoffPlan,
    better,
    case_gains,
    keeps,
    mean_dice,
    run_arm,
    train_trunk,
    variants_of,
)
from DiffusionSegmentResearch.studies.bakeoff_report import bakeoff_description, run_bakeoff
from DiffusionSegmentResearch.studies.norms import norm_rows, norms_description
from DiffusionSegmentResearch.studies.result_file import StudyRow, write_study
from fixtures.segmenter_data import CHANNELS, CLASSES, small_volume

SMALL = (16, 32, 32)


def scores_of(*values: float | None) -> dict[str, dict[str, float | None]]:
    return {f"case_{n}": {"liver": value, "spleen": None} for n, value in enumerate(values)}


def result_of(*values: float | None, arm: bakeoff.Arm = FINE_LOSS) -> ArmResult:
    return ArmResult(arm, scores_of(*values), scores_of(*values))


def test_a_change_is_kept_for_a_mean_gain_in_the_majority_of_cases() -> None:
    control = result_of(*[0.5] * 7)
    assert keeps(result_of(*[0.51] * 7), control)
    assert not keeps(result_of(*[0.506] * 7), control)
    assert keeps(result_of(*[0.52] * 5, 0.49, 0.49), control)
    assert not keeps(result_of(*[0.6] * 4, 0.49, 0.49, 0.49), control)
    assert not keeps(replace(result_of(*[0.9] * 7), end=None), control)


def test_gains_are_paired_over_common_cases_and_organs() -> None:
    gains = case_gains(scores_of(0.6, 0.7, None), scores_of(0.5, None, 0.9))
    np.testing.assert_allclose(gains, [0.1], atol=1e-9)
    assert mean_dice(scores_of(0.6, 0.8, None)) == pytest.approx(0.7)


def test_of_two_equal_arms_the_cheaper_is_better() -> None:
    cheap, expensive = result_of(*[0.5] * 7), result_of(*[0.505] * 7, arm=FINE_PATH)
    assert better([cheap, expensive]).arm is FINE_LOSS
    assert better([cheap, result_of(*[0.52] * 7, arm=FINE_PATH)]).arm is FINE_PATH
    with pytest.raises(DiffusionSegmentError, match="No arm") as caught:
        better([replace(cheap, end=None)])
    assert caught.value.code is ErrorCode.TRAINING_DATA


def test_each_variant_has_one_change() -> None:
    cutmix, denoising, large = variants_of(FINE_PATH, read_description(find_model("abdomen-ct")))
    assert cutmix.augmentation.cutmix is not None
    assert cutmix.augmentation.hospital is not None
    assert cutmix.augmentation.organs["liver"] == 6
    assert cutmix.recipe == FINE_PATH.recipe
    assert denoising.recipe.denoising_share > 0
    assert denoising.augmentation == FINE_PATH.augmentation
    assert large.recipe.patch == (64, 128, 128)
    assert {arm.fine for arm in (cutmix, denoising, large)} == {"path"}


@pytest.fixture
def small_arms(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same arms with patches that fit the small volumes, and one variant only."""
    at_trunk = SegmenterRecipe(patch=SMALL, pool=bakeoff.TRUNK_STRIDE)
    for module in (bakeoff, bakeoff_report, norms):
        monkeypatch.setattr(module, "TRUNK_RECIPE", at_trunk)
    fine = SegmenterRecipe(patch=SMALL)
    monkeypatch.setattr(bakeoff_report, "CONTROL", replace(CONTROL, recipe=at_trunk))
    for name, arm in (("FINE_LOSS", FINE_LOSS), ("SUB_VOXELS", SUB_VOXELS), ("FINE_PATH", FINE_PATH)):
        monkeypatch.setattr(bakeoff_report, name, replace(arm, recipe=fine))
    monkeypatch.setattr(bakeoff_report, "variants_of", lambda arm, description: variants_of(arm, description)[:1])


@pytest.fixture
def data(tmp_path: Path) -> BakeoffData:
    described = read_description(find_model("abdomen-ct"))
    volume = small_volume("held_out", seed=5)
    path = tmp_path / "held_out.nii.gz"
    inside = volume.labels.numpy()[tuple(slice(0, n) for n in volume.grid.native_shape)]
    write_volume(Volume(inside, volume.grid.index_to_lps), path)
    return BakeoffData(
        _two_organs(described),
        training=[small_volume("a"), small_volume("b", seed=1)],
        partial=[small_volume("c", seed=2, drawn=frozenset({1}))],
        held_out=[(CaseFiles("held_out", path, path), volume)],
    )


def _two_organs(described: ModelDescription) -> ModelDescription:
    return replace(described, labels=described.labels[: CLASSES - 1])


def plan_in(folder: Path) -> BakeoffPlan:
    return BakeoffPlan(folder=folder, trunk_minutes=0.004, arm_minutes=0.006, channels=CHANNELS)


@pytest.mark.slow
@pytest.mark.usefixtures("small_arms")
def test_a_bakeoff_reports_and_resumes(tmp_path: Path, data: BakeoffData) -> None:
    plan, reports, output = plan_in(tmp_path / "trainings"), [], tmp_path / "bakeoff.json"
    description = bakeoff_description(data, plan, fold=1, folds=3)

    def report(rows: list[StudyRow]) -> None:
        reports.append(rows)
        write_study(output, rows, description, command="study bakeoff")

    run_bakeoff(data, plan, report)
    result = read_result(output)
    assert result.reference == "3 mm continued"
    assert bakeoff_report.STOP_RULES in result.protocol
    assert {"trunk", "3 mm continued", "3 mm continued, half time"} <= {row.name for row in result.rows}
    assert len(reports) == 5
    steps = torch.load(plan.folder / "control" / "checkpoint.pt", weights_only=True)["step"]
    again: list[list[StudyRow]] = []
    run_bakeoff(data, plan, again.append)
    assert [row.dice for row in again[-1]] == [row.dice for row in reports[-1]]
    assert torch.load(plan.folder / "control" / "checkpoint.pt", weights_only=True)["step"] == steps


@pytest.mark.usefixtures("small_arms")
def test_an_arm_far_below_the_control_stops_after_half_its_time(tmp_path: Path, data: BakeoffData) -> None:
    plan = plan_in(tmp_path / "trainings")
    trunk = train_trunk(data, plan)
    ahead = ArmResult(CONTROL, {"held_out": {"liver": 0.99}}, None)
    arm = replace(FINE_LOSS, recipe=SegmenterRecipe(patch=SMALL))
    ended = run_arm(arm, data, trunk, plan, control=ahead)
    assert ended.end is None
    assert set(ended.half) == {"held_out"}
    state = torch.load(plan.folder / arm.name / "checkpoint.pt", weights_only=True)
    assert state["seconds"] < 60 * plan.arm_minutes
    behind = ArmResult(CONTROL, {"held_out": {"liver": 0.0}}, None)
    assert run_arm(arm, data, trunk, plan, control=behind).end is not None


@pytest.mark.usefixtures("small_arms")
def test_trunks_of_each_norm_are_compared_and_that_of_the_bakeoff_is_reused(tmp_path: Path, data: BakeoffData) -> None:
    plan = plan_in(tmp_path / "trainings")
    train_trunk(data, plan)
    steps = torch.load(plan.folder / "trunk" / "checkpoint.pt", weights_only=True)["step"]
    output = tmp_path / "norms.json"
    description = norms_description(data, plan, fold=1, folds=3)
    write_study(output, norm_rows(data, plan), description, command="study norms")
    result = read_result(output)
    assert [row.name for row in result.rows] == ["group norm", "voxel norm"]
    assert result.rows[1].numbers["kept"] in (0, 1)
    assert torch.load(plan.folder / "trunk" / "checkpoint.pt", weights_only=True)["step"] == steps
    voxel = train_trunk(data, replace(plan, norm="voxel"))
    assert FINE_PATH.network(CLASSES, voxel).norm == "voxel"


@pytest.mark.parametrize("study", ["bakeoff", "norms"])
def test_the_command_needs_a_folder_for_its_trainings(
    study: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(find_model("abdomen-ct"))
    words = ["study", study, "--models", model, "--data", str(tmp_path), "-o", str(tmp_path / "r.json")]
    assert main(words) == 2
    assert "--trainings" in capsys.readouterr().err


def test_loss_patch_and_optimiser_cost_less_than_the_network() -> None:
    folder = Path(__file__).resolve().parents[2] / "docs" / "results"
    rows = [row for row in read_result(folder / "training-step.json").rows if row.name.startswith("second")]
    assert len(rows) == 4
    for row in rows:
        network = (row.numbers["network, forward"] or 0) + (row.numbers["network, backward"] or 0)
        others = sum(row.numbers[part] or 0 for part in ("loss, with gradient", "optimiser", "patch"))
        assert others < network, row.name
