"""`evaluate` on the command line: labelled scans give strict JSON, CSV and tables; other data a one-line error."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.datasets.labelled_cases import find_cases
from DiffusionSegmentBackend.evaluation.result_files import CSV_COLUMNS
from DiffusionSegmentBackend.evaluation.statistics import bootstrap_interval
from DiffusionSegmentBackend.evaluation.summary import estimate, summarise_variant
from DiffusionSegmentBackend.evaluation.tables import evaluation_text
from DiffusionSegmentBackend.evaluation.variants import variants_of
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import read_volume, write_volume
from DiffusionSegmentBackend.models.model import load_model
from DiffusionSegmentResearch.evidence.results import read_result
from DiffusionSegmentResearch.studies.model_quality import model_rows
from DiffusionSegmentResearch.studies.result_file import StudyDescription, write_study
from fixtures.evaluation_data import (
    ORGANS,
    made_up_evaluation,
    strict_json,
    write_labelled_phantoms,
)
from fixtures.segmenter_model import CLASSES, write_segmenter_model
from fixtures.tiny_model import write_tiny_model
from monai.metrics import DiceMetric, compute_surface_dice

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "EVALUATION.md"
# Warnings of libraries would be printed among the program's own lines.
pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning", "error::UserWarning")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a tiny model of each generation, and two labelled phantoms in data/; models are named."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_tiny_model(folder / "models")
    write_segmenter_model(folder / "models")
    write_labelled_phantoms(folder / "data", {"first": 1, "second": 2})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFUSION_SEGMENT_MODELS", str(folder / "models"))
        yield folder


@pytest.fixture(scope="module")
def result(workspace: Path) -> Path:
    """The result file of `evaluate` for the model of the first generation, with both protocols."""
    output = workspace / "result" / "metrics.json"
    assert evaluated(workspace / "data", output, "--protocol", "vox2vec") == 0
    return output


def evaluated(data: Path, output: Path, *more: str, model: str = "tiny") -> int:
    return main(["evaluate", "--data", str(data), "-o", str(output), "--model", model, *more])


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_cases_organs_and_variants_are_named(result: Path) -> None:
    values = strict_json(result)
    assert values["format"] == "diffusion-segment evaluation"
    assert (values["variants"], values["answer"]) == (["probe", "refiner", "ensemble"], "ensemble")
    assert set(values["by_case"]) == {"first", "second"}
    for case in values["by_case"].values():
        assert set(case["true_ml"]) == set(ORGANS)
        assert list(case["variants"]) == values["variants"]
        assert all(set(organs) == set(ORGANS) for organs in case["variants"].values())
    assert set(values["organ_dice"]["ensemble"]) == set(values["summary"]["ensemble"]["organs"]) == set(ORGANS)


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
def test_the_output_variant_is_measured_as_segment_writes_it(workspace: Path, result: Path, tmp_path: Path) -> None:
    scan = workspace / "data" / "images" / "second.nii.gz"
    assert main(["segment", str(scan), "-o", str(tmp_path / "out"), "--model", "tiny", "--force"]) == 0
    truth = read_volume(workspace / "data" / "labels" / "second.nii.gz")
    predicted = read_volume(tmp_path / "out" / "segmentation.nii.gz")
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    maps = [
        torch.nn.functional.one_hot(torch.from_numpy(v.array.astype(np.int64)), CLASSES).movedim(-1, 0)[None]
        for v in (predicted, truth)
    ]
    dice = DiceMetric(include_background=False, reduction="none")(*maps)[0].numpy()
    spacing = [float(s) for s in truth.spacing[::-1]]
    surface = compute_surface_dice(
        maps[0], maps[1], class_thresholds=[2.0] * len(ORGANS), spacing=spacing, use_subvoxels=True
    )[0].numpy()
    case = strict_json(result)["by_case"]["second"]
    for index, organ in enumerate(ORGANS):
        measured = case["variants"]["ensemble"][organ]
        assert measured["dice"] == pytest.approx(dice[index], abs=1e-4)
        assert measured["surface_dice_2mm"] == pytest.approx(surface[index], abs=1e-4)
        assert measured["predicted_ml"] == pytest.approx(report["organs"][index]["volume_ml"], abs=0.1)
        assert case["intervals_ml"][organ] == pytest.approx(report["organs"][index]["volume_interval_ml"], abs=0.1)
        assert case["true_ml"][organ] == pytest.approx(
            np.count_nonzero(truth.array == index + 1) * truth.voxel_ml, abs=0.01
        )
    assert 0 < max(dice) < 1


def test_the_csv_has_a_row_per_case_organ_and_variant(result: Path) -> None:
    rows = rows_of(result.with_suffix(".csv"))
    assert tuple(rows[0]) == CSV_COLUMNS
    values = strict_json(result)
    assert len(rows) == 2 * len(ORGANS) * 3
    for row in rows:
        case = values["by_case"][row["case"]]
        measured = case["variants"][row["variant"]][row["organ"]]
        for column in ("dice", "surface_dice_2mm", "predicted_ml", "dice_1x1x2mm"):
            assert float(row[column]) == measured[column]
        assert float(row["true_ml"]) == case["true_ml"][row["organ"]]
        interval = [row["interval_low_ml"], row["interval_high_ml"]]
        if row["variant"] == "ensemble":
            assert [float(bound) for bound in interval] == case["intervals_ml"][row["organ"]]
        else:
            assert interval == ["", ""]


def test_means_and_intervals_are_those_of_case_means(result: Path) -> None:
    values = strict_json(result)
    for variant in values["variants"]:
        means = [
            np.mean([one["dice"] for one in case["variants"][variant].values()]) for case in values["by_case"].values()
        ]
        total = values["summary"][variant]["dice"]
        assert total["mean"] == values["mean_dice"][variant] == pytest.approx(np.mean(means), abs=1e-4)
        assert total["interval"] == pytest.approx(bootstrap_interval(means), abs=1e-4)
        spleen = values["summary"][variant]["organs"]["spleen"]
        scores = [case["variants"][variant]["spleen"]["dice"] for case in values["by_case"].values()]
        assert spleen["dice"]["interval"] == pytest.approx(bootstrap_interval(scores), abs=1e-4)
        assert spleen["dice"]["cases"] == 2


def test_a_table_is_printed(workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluated(workspace / "data", tmp_path / "m.json", "--variants", "probe,ensemble")
    printed = capsys.readouterr().out
    values = strict_json(tmp_path / "m.json")
    rows = {line.split()[0]: line for line in printed.splitlines() if line.strip()}
    low, high = values["summary"]["ensemble"]["dice"]["interval"]
    assert f"{values['mean_dice']['ensemble']:.3f} [{low:.3f}, {high:.3f}]" in rows["ensemble"]
    assert "refiner" not in printed
    for organ in ORGANS:
        assert f"{values['organ_dice']['ensemble'][organ]:.3f} [" in rows[organ]
    assert str(tmp_path / "m.csv") in printed


def test_a_segmenter_is_one_variant(workspace: Path, tmp_path: Path) -> None:
    assert evaluated(workspace / "data", tmp_path / "m.json", model="tiny-segmenter") == 0
    values = strict_json(tmp_path / "m.json")
    assert (values["variants"], values["answer"]) == (["segmenter"], "segmenter")
    assert (values["options"]["samples"], values["options"]["steps"]) == (0, 0)
    assert values["mean_dice"]["segmenter"] > 0
    assert 0 <= values["volume_interval_coverage"] <= 1
    assert "dice_1x1x2mm" not in values


def test_absent_organs_and_unannotated_organs_are_distinguished(workspace: Path, tmp_path: Path) -> None:
    """Case a has no spleen and no annotation of the left kidney; case b has no annotation."""
    data = write_labelled_phantoms(tmp_path / "data", {"a": 1, "b": 2})
    for name in ("a", "b"):
        volume = read_volume(data / "labels" / f"{name}.nii.gz")
        kept = np.where(volume.array == 1, 0, volume.array) if name == "a" else np.zeros_like(volume.array)
        write_volume(Volume(kept.astype(np.uint8), volume.index_to_lps), data / "labels" / f"{name}.nii.gz")
    (data / "annotated.json").write_text(json.dumps({"a": ["spleen", "right kidney"]}), encoding="utf-8")
    assert evaluated(data, tmp_path / "m.json") == 0
    values = strict_json(tmp_path / "m.json")
    one = values["by_case"]["a"]["variants"]["ensemble"]
    assert set(one) == {"spleen", "right_kidney"}
    assert one["spleen"]["dice"] is None
    assert one["spleen"]["predicted_ml"] > 0
    assert {organ["dice"] for organ in values["by_case"]["b"]["variants"]["ensemble"].values()} == {None}
    assert values["organ_dice"]["ensemble"]["left_kidney"] is None
    assert values["summary"]["ensemble"]["organs"]["right_kidney"]["dice"]["interval"] is None
    assert values["mean_dice"]["ensemble"] == one["right_kidney"]["dice"]
    empty = [row for row in rows_of(tmp_path / "m.csv") if row["case"] == "a" and row["organ"] == "spleen"]
    assert {row["dice"] for row in empty} == {""}


def test_scans_of_several_folders_have_distinct_names(workspace: Path, tmp_path: Path) -> None:
    """Two data folders of one name, and a pair of folders with other names."""
    for parent, seeds in (("x", {"a": 1, "b": 2}), ("y", {"a": 3})):
        write_labelled_phantoms(tmp_path / parent / "set", seeds)
    other = write_labelled_phantoms(tmp_path / "other", {"c": 4})
    (other / "images").rename(other / "imagesTs")
    (other / "labels").rename(other / "labelsTs")
    call = ["evaluate", "--data", str(tmp_path / "x" / "set"), "--data", str(tmp_path / "y" / "set")]
    call += ["--images", str(other / "imagesTs"), "--labels", str(other / "labelsTs")]
    assert main([*call, "-o", str(tmp_path / "m.json"), "--model", "tiny", "--variants", "ensemble"]) == 0
    values = strict_json(tmp_path / "m.json")
    assert list(values["by_case"]) == ["x/set/a", "b", "y/set/a", "c"]
    assert [folder["cases"] for folder in values["data"]] == [["x/set/a", "b"], ["y/set/a"], ["c"]]


def test_a_part_selects_its_cases(workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_labelled_phantoms(tmp_path / "data", {"a": 1, "b": 2})
    (tmp_path / "splits.json").write_text(json.dumps({"data": {"test": ["b", "lost"]}}), encoding="utf-8")
    assert evaluated(data, tmp_path / "m.json", "--part", "test", "--variants", "ensemble") == 0
    values = strict_json(tmp_path / "m.json")
    assert (list(values["by_case"]), values["data"][0]["missing"]) == (["b"], ["lost"])
    assert "lacks lost" in capsys.readouterr().out


def _without_label(data: Path) -> None:
    (data / "labels" / "b.nii.gz").unlink()


def _elsewhere(data: Path) -> None:
    volume = read_volume(data / "labels" / "b.nii.gz")
    write_volume(Volume(volume.array[2:], volume.index_to_lps), data / "labels" / "b.nii.gz")


def _other_organs(data: Path) -> None:
    volume = read_volume(data / "labels" / "b.nii.gz")
    write_volume(Volume(np.where(volume.array == 2, 77, volume.array), volume.index_to_lps), data / "labels/b.nii.gz")


def _empty_part(data: Path) -> None:
    (data / "splits.json").write_text(json.dumps({"test": [], "train": ["a"]}), encoding="utf-8")


def _no_splits(data: Path) -> None:
    (data / "annotated.json").write_text("{}", encoding="utf-8")


def _broken_splits(data: Path) -> None:
    (data / "splits.json").write_text("[", encoding="utf-8")


def _other_names(data: Path) -> None:
    (data / "annotated.json").write_text(json.dumps({"b": ["tail"]}), encoding="utf-8")


def _no_images(data: Path) -> None:
    for file in (data / "images").iterdir():
        file.unlink()


def _no_folder(data: Path) -> None:
    (data / "images").rename(data / "scans")


def _twice(data: Path) -> None:
    image = read_volume(data / "images" / "a.nii.gz")
    write_volume(image, data / "images" / "a.mha")


@pytest.mark.parametrize(
    ("change", "more", "message"),
    [
        (_without_label, (), "TRAINING_DATA: Case b has no label map."),
        (_elsewhere, (), "TRAINING_DATA: Case b: "),
        (_other_organs, (), "TRAINING_DATA: Case b: label values [77] are not in the model file."),
        (_other_names, (), "TRAINING_DATA: Case b: annotated.json names tail"),
        (_empty_part, ("--part", "test"), "holds no scan of part 'test'"),
        (_empty_part, ("--part", "tset"), "OPTION: There is no part 'tset'"),
        (_no_splits, ("--part", "test"), "OPTION: There is no part 'test': no splits.json"),
        (_broken_splits, ("--part", "test"), "splits.json is not a table"),
        (_no_images, (), "holds no scans"),
        (_no_folder, (), "images is not a folder"),
        (_twice, (), "several scans named a"),
        (None, ("--variants", "probe,student"), "OPTION: The model tiny has no variant 'student'. It has: probe"),
        (None, ("--images", "a"), "OPTION: There are 1 --images and 0 --labels."),
        (None, ("--protocol", "mine"), "OPTION: "),
        (None, ("--memory-limit", "0.000001"), "OUT_OF_MEMORY: "),
    ],
)
def test_invalid_data_or_options_give_a_one_line_error(
    workspace: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], None] | None,
    more: tuple[str, ...],
    message: str,
) -> None:
    data = write_labelled_phantoms(tmp_path / "data", {"a": 1, "b": 2})
    if change is not None:
        change(data)
    assert evaluated(data, tmp_path / "out" / "m.json", *more) > 0
    lines = [line for line in capsys.readouterr().err.splitlines() if ": " in line and "%|" not in line]
    assert len(lines) == 1
    assert message in lines[0]
    assert not list(tmp_path.glob("out/*"))


def test_a_folder_named_twice_and_a_csv_file_for_the_json_are_refused(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluated(workspace / "data", tmp_path / "m.json", "--data", str(workspace / "data")) == 2
    assert "named twice" in capsys.readouterr().err
    assert evaluated(workspace / "data", tmp_path / "m.csv") == 2
    assert "cannot be the result file" in capsys.readouterr().err
    assert main(["evaluate", "-o", str(tmp_path / "m.json")]) == 2
    assert "Name --data DIR" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_invalid_case_is_refused_before_the_first_run(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise an invalid last case would end hours of runs. The memory limit would stop any run."""
    data = write_labelled_phantoms(tmp_path / "data", {"a": 1, "b": 2})
    _other_organs(data)
    assert evaluated(data, tmp_path / "m.json", "--memory-limit", "0.000001") == 2
    assert "Case b: label values [77]" in capsys.readouterr().err


def test_an_estimate_over_one_case_has_no_interval_and_over_none_is_none() -> None:
    assert estimate([None, None]) is None
    alone = estimate([0.5, None])
    assert alone is not None
    assert (alone.mean, alone.median, alone.interval, alone.cases) == (0.5, 0.5, None, 1)


def test_the_volume_error_counts_organs_that_only_the_prediction_shows() -> None:
    evaluation = made_up_evaluation({"a": {"spleen": 0.8}, "b": {"spleen": None}})
    spleen = summarise_variant(evaluation, "ensemble").organs["spleen"]
    assert (spleen.predicted_ml, spleen.true_ml) == (90, 50)
    assert spleen.mean_absolute_error_ml == (10 + 90) / 2
    assert set(summarise_variant(evaluation, "ensemble").organs) == {"spleen"}
    text = evaluation_text(evaluation, [])
    assert "no organ in b" in text
    assert "The 90 % volume intervals hold 100 % of the true volumes." in text
    assert "The 1, 2 and 5 % most uncertain voxels of the body hold 20, 30 and 50 % of the wrong ones." in text


def test_the_document_describes_every_key_and_column(result: Path) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    values = strict_json(result)
    case = next(iter(values["by_case"].values()))
    summary = values["summary"]["ensemble"]
    keys = [*values, *case, *summary, *summary["dice"], *summary["organs"]["spleen"], *values["data"][0], *CSV_COLUMNS]
    assert [key for key in keys if f"`{key}`" not in text] == []


def test_a_model_without_refiner_or_segmenter_is_its_probe(workspace: Path) -> None:
    """As a fine-tuned model."""
    assert variants_of(load_model("tiny", "cpu", with_refiner=False)) == ("probe",)


@pytest.mark.parametrize(
    ("name", "variants"), [("tiny", ["probe", "refiner", "ensemble"]), ("tiny-segmenter", ["segmenter"])]
)
def test_the_study_of_models_has_a_row_per_variant(
    workspace: Path, tmp_path: Path, name: str, variants: list[str]
) -> None:
    """The page of evidence reads what the study writes of either generation."""
    rows = model_rows(load_model(name, "cpu"), find_cases(workspace / "data"))
    description = StudyDescription(order=1, title="-", question="-", protocol="-", budget="-")
    write_study(tmp_path / "models.json", rows, description, command="-")
    stored = read_result(tmp_path / "models.json")
    assert [row.name for row in stored.rows] == [
        *(f"{name}, {variant}" for variant in variants),
        f"{name}, {variants[-1]}, vox2vec's protocol",
    ]
    output, vox2vec = stored.rows[-2:]
    assert output.dice is not None
    assert set(output.dice) == {"first", "second"}
    assert set(output.dice["first"]) == set(ORGANS)
    assert 0 <= (output.numbers["coverage of 90 % intervals"] or 0) <= 1
    assert (output.surface_dice is None, vox2vec.surface_dice) == (False, None)


def cpu_seconds(action: Callable[[], Any]) -> float:
    """Processor time of the quicker of two runs: other processes make wall time of any length."""
    seconds = []
    for _ in range(2):
        began = time.process_time()
        action()
        seconds.append(time.process_time() - began)
    return min(seconds)


def test_evaluate_takes_less_than_30_percent_longer_than_segment(workspace: Path, result: Path, tmp_path: Path) -> None:
    """The networks are tiny, so that the time of the measures is compared with that of maps and files."""
    data = write_labelled_phantoms(tmp_path / "data", {"a": 1, "b": 2}, spacing_mm=(3.0, 3.0, 3.0))

    def segment_both() -> None:
        for name in ("a", "b"):
            scan = str(data / "images" / f"{name}.nii.gz")
            assert main(["segment", scan, "-o", str(tmp_path / name), "--model", "tiny", "--force"]) == 0

    segmenting = cpu_seconds(segment_both)
    evaluating = cpu_seconds(lambda: evaluated(data, tmp_path / "m.json"))
    assert evaluating < 1.3 * segmenting
