"""Fine-tuning: a tiny base model learns an organ from one labelled phantom, and unusable labels are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.cli.fine_tune import parse_names
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.datasets.labelled_cases import CaseFiles, load_case
from DiffusionSegmentBackend.errors import Cancelled, DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import write_volume
from DiffusionSegmentBackend.models.manifest import list_models
from DiffusionSegmentBackend.models.model import Model, load_model
from DiffusionSegmentBackend.models.pre_segmenter import ProbedFeatures
from DiffusionSegmentBackend.models.user_models import export_model, import_model
from DiffusionSegmentBackend.pipeline.options import SegmentOptions
from DiffusionSegmentBackend.pipeline.segment import segment
from DiffusionSegmentBackend.training.fine_tuned_model import anatomy_limits_around, fine_tune_user_model, label_entries
from DiffusionSegmentBackend.training.fine_tuning import (
    LabelledFeatures,
    LabelledVolume,
    draw_crop,
    fine_tune_probe,
    jittered,
    labelled_features,
    probe_from,
)
from DiffusionSegmentBackend.training.loop import Budget
from DiffusionSegmentBackend.training.session import add_coordinates
from DiffusionSegmentResearch.studies.fine_tuning import (
    FINE_TUNED,
    FROM_SCRATCH,
    Target,
    fine_tuning_rows,
    parse_targets,
    scan_heights,
    target_rows,
)
from fixtures.fine_tuning_models import BASE, install_base, labelled_phantom

LIVER = 6
BUDGET = Budget(steps=1, minutes=5.0)


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIFFUSION_SEGMENT_MODELS", str(tmp_path / "models"))
    install_base(tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture
def base(models: Path) -> Model:
    return load_model(BASE, "cpu", with_refiner=False)


@pytest.fixture(scope="module")
def case() -> LabelledVolume:
    return labelled_phantom()


def fine_tune_briefly(case: LabelledVolume, base: Model, name: str = "my-model", organ: str = "my liver") -> None:
    fine_tune_user_model([case], {LIVER: organ}, base=base, name=name, minutes=0.01)


def upper_belly() -> LabelledVolume:
    """The slices of the phantom with liver and spleen."""
    whole = labelled_phantom()
    matrix = whole.volume.index_to_lps.copy()
    matrix[:3, 3] += 22 * matrix[:3, 2]
    return LabelledVolume(Volume(whole.volume.array[22:46].copy(), matrix), whole.labels[22:46].copy())


def test_a_bundled_model_learns_an_organ_from_one_scan(tmp_path: Path) -> None:
    case, base = upper_belly(), load_model("abdomen-ct", "cpu", with_refiner=False)
    before = {key: value.clone() for key, value in base.backbone.state_dict().items()}
    budget = Budget(steps=40, minutes=5.0, learning_rate=5e-3, ema_decay=0.9)
    probe = fine_tune_probe([case], {LIVER: "liver"}, base, budget=budget, folder=tmp_path)
    description = replace(base.description, labels=base.description.labels[:1])
    tuned = replace(base, pre_segmenter=ProbedFeatures(base.backbone, probe), description=description)
    result = segment(case.volume, tuned, SegmentOptions(force=True))
    inside, truth = result.labels > 0, case.labels == LIVER
    assert 2 * np.count_nonzero(inside & truth) / (np.count_nonzero(inside) + np.count_nonzero(truth)) > 0.8
    assert all(torch.equal(value, before[key]) for key, value in base.backbone.state_dict().items())


def test_a_fine_tuned_model_segments_with_its_probe_only(case: LabelledVolume, base: Model) -> None:
    fine_tune_briefly(case, base)
    model = load_model("my-model", "cpu")
    assert model.refiner is None
    result = segment(case.volume, model, SegmentOptions(force=True))
    assert not result.mutual_information.any()
    provenance = result.report.provenance
    assert (provenance.plan.model, provenance.plan.samples, provenance.plan.steps) == ("my-model", 0, 0)
    assert [organ.title for organ in result.report.organs] == ["My liver"]


def test_options_are_checked_also_for_models_without_a_refiner(case: LabelledVolume, base: Model) -> None:
    fine_tune_briefly(case, base)
    model = load_model("my-model", "cpu")
    with pytest.raises(DiffusionSegmentError, match="samples is 0"):
        segment(case.volume, model, SegmentOptions(samples=0, force=True))
    given = np.zeros(case.labels.shape, np.uint8)
    with pytest.raises(DiffusionSegmentError, match="no refiner"):
        segment(case.volume, model, SegmentOptions(presegmentation=given, force=True))


def test_unnamed_values_become_background_and_named_values_are_renumbered(base: Model, tmp_path: Path) -> None:
    case = labelled_phantom()
    probe = fine_tune_probe([case], {LIVER: "liver", 1: "spleen"}, base, budget=BUDGET, folder=tmp_path)
    assert probe.classes == 3


def test_an_interrupted_run_resumes(case: LabelledVolume, base: Model, tmp_path: Path) -> None:
    fine_tune_probe([case], {LIVER: "liver"}, base, budget=replace(BUDGET, steps=2), folder=tmp_path)
    fine_tune_probe([case], {LIVER: "liver"}, base, budget=replace(BUDGET, steps=3), folder=tmp_path, resume=True)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 3


def test_cancelling_stores_nothing(case: LabelledVolume, base: Model, models: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if stage == "fine_tune":
            raise Cancelled

    with pytest.raises(Cancelled):
        fine_tune_user_model([case], {LIVER: "liver"}, base=base, name="never", minutes=0.05, progress=stop)
    assert [path.name for path in models.iterdir()] == [BASE]


def test_an_existing_name_is_refused_before_any_work(case: LabelledVolume, base: Model) -> None:
    stages: list[str] = []
    with pytest.raises(DiffusionSegmentError, match="already"):
        fine_tune_user_model(
            [case], {LIVER: "liver"}, base=base, name=BASE, minutes=1, progress=lambda stage, *_: stages.append(stage)
        )
    assert stages == []


def test_progress_reports_features_and_fine_tuning(case: LabelledVolume, base: Model) -> None:
    seen: list[tuple[str, int, int]] = []
    fine_tune_user_model(
        [case], {LIVER: "liver"}, base=base, name="progress", minutes=0.01, progress=lambda *call: seen.append(call)
    )
    assert {stage for stage, _, _ in seen} == {"features", "fine_tune"}
    assert seen[-1] == ("fine_tune", 100, 100)
    assert all(0 <= done <= total for _, done, total in seen)


def features_with_an_organ_in_a_corner() -> LabelledFeatures:
    labels = torch.zeros((96, 80, 64), dtype=torch.uint8)
    labels[90:, 76:, 60:] = 1
    heights = [torch.arange(96 // n).reshape(1, -1, 1, 1).expand(1, 96 // n, 80 // n, 64 // n) for n in (1, 2, 4)]
    levels = [level.half() for level in heights]
    example = labelled_features(levels, labels, torch.tensor([True, True]))
    return replace(example, spreads=[torch.zeros(1)] * 3)


def first_index(level: torch.Tensor) -> int:
    """First index along z of a crop of indices, independent of the gain of the jitter."""
    values = level[0, 0, :, 0, 0]
    share = float(values[0] / values[-1])
    return round(share * (len(values) - 1) / (1 - share))


def test_jitter_changes_channels_by_a_gain_and_a_fraction_of_their_standard_deviation() -> None:
    features = torch.ones((1, 3, 2, 2, 2))
    changed = jittered(features, torch.tensor([0.0, 1.0, 100.0]), torch.Generator().manual_seed(0))
    by_channel = changed[0].flatten(1)
    assert torch.equal(by_channel.amin(dim=1), by_channel.amax(dim=1))
    assert 0 < abs(float(by_channel[0, 0]) - 1) < 0.6
    assert abs(float(by_channel[2, 0]) - 1) > 1


def test_crops_are_balanced_and_their_levels_are_aligned() -> None:
    example, generator = features_with_an_organ_in_a_corner(), torch.Generator().manual_seed(0)
    shown = []
    for _ in range(40):
        pyramid, labels, drawn = draw_crop([example], generator)
        assert labels.shape == (1, 1, 32, 32, 32)
        assert [level.shape[2] for level in pyramid] == [32, 16, 8]
        assert first_index(pyramid[0]) == 4 * first_index(pyramid[2])
        assert drawn.tolist() == [[True, True]]
        shown.append(bool(labels.any()))
    assert np.mean(shown) > 0.4


def test_a_new_probe_has_the_weights_of_the_base_except_its_head(base: Model) -> None:
    probe = probe_from(base.probe, 3)
    assert torch.equal(probe.levels[0].weight, base.probe.levels[0].weight)
    assert probe.head.out_channels == 3
    assert all(parameter.requires_grad for parameter in probe.head.parameters())


def test_known_names_keep_their_code_and_new_names_get_unused_colours(base: Model) -> None:
    known, fresh, other = label_entries({1: "Left Kidney", 4: "my tumour", 7: "Zyste"}, base.description)
    expected = next(item for item in base.description.raw["labels"] if item["name"] == "left_kidney")
    assert {**known, "value": expected["value"]} == expected
    assert (fresh["value"], fresh["name"], fresh["title"]) == (2, "my_tumour", "My tumour")
    assert fresh["code"]["meaning"] == "Tissue"
    colours = [tuple(item["colour"]) for item in (*base.description.raw["labels"], fresh, other)]
    assert len(set(colours)) == len(colours)


def test_limits_allow_small_organs(case: LabelledVolume, base: Model) -> None:
    limits = anatomy_limits_around([case], {LIVER: "liver"}, base)
    assert limits["min_organ_ml"] == 0
    assert limits["min_confidence"] == 0
    assert "body_z_mm" not in limits
    ranged = replace(base.description, anatomy=replace(base.description.anatomy, body_z_mm=(-50.0, 50.0)))
    low, high = anatomy_limits_around([case], {LIVER: "liver"}, replace(base, description=ranged))["body_z_mm"]
    assert high - low >= 300


def refusal(cases: list[LabelledVolume], names: dict[int, str], base: Model) -> DiffusionSegmentError:
    with pytest.raises(DiffusionSegmentError) as caught:
        fine_tune_user_model(cases, names, base=base, name="bad", minutes=0.01)
    assert len(str(caught.value).splitlines()) == 1
    assert list_models()[-1] == BASE
    return caught.value


def test_unusable_labels_are_refused(case: LabelledVolume, base: Model) -> None:
    assert "'cyst' (value 77) is empty" in str(refusal([case], {77: "cyst"}, base))
    assert refusal([case], {}, base).code is ErrorCode.TRAINING_DATA
    assert refusal([], {1: "spleen"}, base).code is ErrorCode.TRAINING_DATA
    assert refusal([case], {0: "nothing"}, base).code is ErrorCode.TRAINING_DATA
    cut = LabelledVolume(case.volume, case.labels[:-1])
    assert refusal([cut], {LIVER: "liver"}, base).code is ErrorCode.GEOMETRY
    air = np.zeros_like(case.labels)
    air[0, 0, 0] = 1
    assert "smaller than a voxel" in str(refusal([LabelledVolume(case.volume, air)], {1: "dot"}, base))


def test_unusable_names_are_refused(case: LabelledVolume, base: Model) -> None:
    assert "segment's name" in str(refusal([case], {LIVER: "?!"}, base))
    assert "Two segments" in str(refusal([case], {LIVER: "liver", 1: "Liver"}, base))
    assert parse_names("1=left kidney, 2 = my tumour") == {1: "left kidney", 2: "my tumour"}
    for text in ("", "liver", "x=liver", "1=", "1=a,1=b", "-1=a"):
        with pytest.raises(DiffusionSegmentError, match="N=NAME"):
            parse_names(text)


def test_the_command_fine_tunes_and_the_model_is_listed(
    case: LabelledVolume, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan, labels, moved = (tmp_path / f"{name}.nii.gz" for name in ("ct", "labels", "moved"))
    write_volume(case.volume, scan)
    write_volume(Volume(case.labels, case.volume.index_to_lps), labels)
    write_volume(Volume(case.labels, case.volume.index_to_lps + np.diag([0.5, 0.5, 0.5, 0])), moved)
    common = ["fine-tune", "--scan", str(scan), "--names", "6=my liver", "--minutes", "0.01"]
    done = main([*common, "--labels", str(labels), "--base", BASE, "--name", "mine"])
    assert done == 0, capsys.readouterr().err
    assert "--model mine" in capsys.readouterr().out
    assert "mine" in list_models()
    for arguments, status, code in (
        (["--labels", str(labels), "--base", BASE, "--name", "mine"], 2, "OPTION"),
        (["--labels", str(labels), "--base", BASE, "--name", "../up"], 2, "OPTION"),
        (["--labels", str(labels), "--base", "none", "--name", "x"], 3, "MODEL_UNKNOWN"),
        (["--labels", str(moved), "--base", BASE, "--name", "x"], 2, "GEOMETRY"),
        (["--labels", str(labels), "--base", BASE, "--name", "x", "--minutes", "0"], 2, "OPTION"),
    ):
        assert main([*common, *arguments]) == status
        assert capsys.readouterr().err.startswith(code)


def test_targets_are_organs_values_or_halves_of_organs(base: Model) -> None:
    left, half, other = parse_targets("left_kidney, liver:upper,9=my organ:lower", base.description)
    assert (left, half) == (Target("left_kidney", 3), Target("liver, upper half", LIVER, "upper"))
    assert (other.name, other.value, other.half) == ("my organ, lower half", 9, "lower")
    for text in ("kidney", "liver:left", "x=liver", ""):
        with pytest.raises(DiffusionSegmentError) as caught:
            parse_targets(text, base.description)
        assert caught.value.code is ErrorCode.OPTION


def test_halves_of_an_organ_have_about_equal_volumes(case: LabelledVolume) -> None:
    heights = scan_heights(case.volume)
    upper, lower = (Target("half", LIVER, half).mask(case.labels, heights) > 0 for half in ("upper", "lower"))
    assert np.array_equal(upper | lower, case.labels == LIVER)
    assert not (upper & lower).any()
    assert heights[upper].min() > heights[lower].max()
    assert np.count_nonzero(upper) == pytest.approx(np.count_nonzero(lower), rel=0.2)


def as_mr(case: LabelledVolume) -> LabelledVolume:
    """Gray values like those of an MR: none is negative, and air is dark."""
    values = np.clip(case.volume.array.astype(np.float32) + 200, 0, 1000).astype(np.int16)
    return replace(case, volume=Volume(values, case.volume.index_to_lps))


def test_a_base_of_another_modality_is_reported_before_training(case: LabelledVolume, base: Model) -> None:
    seen: list[str] = []
    for scan, words in ((as_mr(case), "not Hounsfield units"), (replace(case, modality="MR"), "This is MR")):
        with pytest.raises(DiffusionSegmentError, match=words) as caught:
            fine_tune_user_model(
                [scan],
                {LIVER: "liver"},
                base=base,
                name="other",
                minutes=1,
                progress=lambda stage, *_: seen.append(stage),
            )
        assert caught.value.code is ErrorCode.MODALITY
        assert caught.value.hint == "Choose a base for MR: abdomen-mr, hippocampus-mr."
    assert seen == []


def test_a_forced_model_is_for_the_modality_of_its_scans(case: LabelledVolume, base: Model, tmp_path: Path) -> None:
    fine_tune_user_model([as_mr(case)], {LIVER: "liver"}, base=base, name="mr-liver", minutes=0.01, force=True)
    model = load_model("mr-liver", "cpu")
    assert (model.description.modality, model.description.window_unit) == ("MR", "value")
    assert model.description.window == base.description.window
    result = segment(as_mr(case).volume, model, SegmentOptions())
    assert result.labels.shape == case.labels.shape
    with pytest.raises(DiffusionSegmentError, match="several modalities: CT, MR"):
        fine_tune_user_model([case, as_mr(case)], {LIVER: "liver"}, base=base, name="two", minutes=0.01, force=True)
    export_model("mr-liver", tmp_path / "mr-liver.zip")
    assert import_model(tmp_path / "mr-liver.zip", replace=True) == "mr-liver"


def test_the_command_takes_the_modality_of_the_scan(
    case: LabelledVolume, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan, labels = tmp_path / "mr.nii.gz", tmp_path / "labels.nii.gz"
    write_volume(as_mr(case).volume, scan)
    write_volume(Volume(case.labels, case.volume.index_to_lps), labels)
    command = ["fine-tune", "--scan", str(scan), "--labels", str(labels), "--names", "6=my liver", "--minutes", "0.01"]
    assert main([*command, "--base", BASE, "--name", "mine"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("MODALITY: ")
    hint = "Choose a base for MR: abdomen-mr, hippocampus-mr. To go on anyway, run again with --force."
    assert said.rstrip().endswith(hint)
    assert main([*command, "--base", BASE, "--name", "mine", "--force"]) == 0
    assert load_model("mine", "cpu").description.modality == "MR"


@pytest.mark.slow
def test_the_study_compares_fine_tuning_and_training_from_scratch_on_the_same_cases(
    case: LabelledVolume, base: Model, tmp_path: Path
) -> None:
    files = CaseFiles("phantom", tmp_path / "ct.nii.gz", tmp_path / "labels.nii.gz")
    write_volume(case.volume, files.image)
    write_volume(Volume(case.labels, case.volume.index_to_lps), files.label)
    tests = [load_case(files, base.description)]
    add_coordinates(tests, base.bodypart)
    rows = fine_tuning_rows(base, files, tests, [Target("liver", LIVER)], minutes=0.05)
    assert [row.name for row in rows] == [FINE_TUNED, FROM_SCRATCH]
    for row in rows:
        assert row.dice is not None
        score = row.dice["phantom"]["liver"]
        assert score is not None
        assert 0 <= score <= 1
    (half,) = target_rows(base, files, tests, [Target("upper half", LIVER, "upper")], minutes=0.05)
    assert half.dice is not None
    assert half.dice["phantom"].keys() == {"upper half"}
