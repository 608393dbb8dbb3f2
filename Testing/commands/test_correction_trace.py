"""The changes of a correction are in report.json, for a chain of corrections, and on the command line."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import read_volume, write_volume
from fixtures.correction_cases import (
    BACKGROUND,
    GENERATIONS,
    REFINED,
    RIGHT_KIDNEY,
    SPLEEN,
    correct,
    labels_of,
    report_of,
    segment_by_each_model,
    write_scribbles,
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models, a scan, and its result by each model."""
    return segment_by_each_model(tmp_path_factory.mktemp("trace"))


@pytest.fixture(autouse=True)
def models(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUSION_SEGMENT_MODELS", str(results / "models"))


@pytest.mark.parametrize("model", GENERATIONS)
def test_the_report_lists_each_correction_of_a_chain(model: str, results: Path, tmp_path: Path) -> None:
    began = datetime.now(UTC) - timedelta(seconds=1)
    first = write_scribbles(results / model, tmp_path / "first.nii.gz", of=SPLEEN, label=BACKGROUND, count=3)
    one = correct(results / model, first, tmp_path / "one")
    second = write_scribbles(one, tmp_path / "second.nii.gz", of=RIGHT_KIDNEY, label=SPLEEN)
    two = correct(one, second, tmp_path / "two")
    assert "corrections" not in report_of(results / model)
    assert report_of(one)["corrections"] == report_of(two)["corrections"][:1]
    voxel_ml = read_volume(results / "ct.nii.gz").voxel_ml
    chain = (results / model, one, two)
    for record, before, after in zip(report_of(two)["corrections"], chain[:-1], chain[1:], strict=True):
        was, now = labels_of(before), labels_of(after)
        assert began <= datetime.fromisoformat(record["time"]) <= datetime.now(UTC)
        assert record["changed_voxels"] == np.count_nonzero(was != now) > 0
        for organ in report_of(after)["organs"]:
            changes = [change for change in record["organs"] if change["name"] == organ["name"]]
            gained = np.count_nonzero((now == organ["value"]) & (was != now))
            lost = np.count_nonzero((was == organ["value"]) & (was != now))
            assert bool(changes) == bool(gained or lost)
            for change in changes:
                assert (change["gained_voxels"], change["lost_voxels"]) == (gained, lost)
                assert change["gained_ml"] == pytest.approx(gained * voxel_ml, abs=0.01)
                assert change["lost_ml"] == pytest.approx(lost * voxel_ml, abs=0.01)
    assert [record["marked_voxels"] for record in report_of(two)["corrections"]] == [3, 1]


def test_the_command_line_reports_the_repeated_run_and_the_changed_organs(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scribbles = write_scribbles(results / REFINED, tmp_path / "scribbles.nii.gz", of=SPLEEN, label=RIGHT_KIDNEY)
    capsys.readouterr()
    after = correct(results / REFINED, scribbles, tmp_path / "after")
    lines = capsys.readouterr().out.splitlines()
    seconds = report_of(results / REFINED)["timings_s"]["total"]
    assert lines[:2] == [
        "Marked: 1 voxels as Right kidney.",
        f"The case runs again, about {seconds:.0f} s; `segment --keep-session` avoids this.",
    ]
    spleen = next(organ for organ in report_of(after)["corrections"][0]["organs"] if organ["name"] == "spleen")
    (row,) = (line for line in lines if line.startswith("Spleen") and "(+" in line)
    voxel_ml = read_volume(results / "ct.nii.gz").voxel_ml
    was, now = (np.count_nonzero(labels_of(folder) == SPLEEN) * voxel_ml for folder in (results / REFINED, after))
    gained, lost = spleen["gained_voxels"], spleen["lost_voxels"]
    cells = f"Spleen {was:.1f} mL {now:.1f} mL {gained + lost} (+{gained} -{lost})"
    assert row.split() == cells.split()


def test_a_scribble_with_the_present_label_changes_nothing_and_this_is_reported(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scribbles = write_scribbles(results / REFINED, tmp_path / "scribbles.nii.gz", of=SPLEEN, label=SPLEEN)
    after = correct(results / REFINED, scribbles, tmp_path / "after", "--lock", "spleen,right_kidney,left_kidney")
    assert "No label changed." in capsys.readouterr().out
    (record,) = report_of(after)["corrections"]
    assert (record["marked_voxels"], record["changed_voxels"], record["organs"]) == (1, 0, [])


@pytest.mark.parametrize("axes", [(2, 1, 0), (1, 2, 0)])
def test_scribbles_in_another_orientation_apply_to_the_same_voxels(
    axes: tuple[int, int, int], results: Path, tmp_path: Path
) -> None:
    """Some tools reorder and flip the axes of the files that they save."""
    path = write_scribbles(results / REFINED, tmp_path / "scribbles.nii.gz", of=SPLEEN, label=BACKGROUND, count=2)
    scribbles = read_volume(path)
    array = scribbles.array.transpose(axes)[:, ::-1]
    matrix = scribbles.index_to_lps.copy()
    matrix[:3, :3] = scribbles.index_to_lps[:3, :3][:, [2 - axes[2 - n] for n in range(3)]]
    matrix[:3, 3] += matrix[:3, 1] * (array.shape[1] - 1)
    matrix[:3, 1] *= -1
    write_volume(Volume(np.ascontiguousarray(array), matrix), tmp_path / "reoriented.nii.gz")
    expected = correct(results / REFINED, path, tmp_path / "expected")
    reoriented = correct(results / REFINED, tmp_path / "reoriented.nii.gz", tmp_path / "after")
    np.testing.assert_array_equal(labels_of(reoriented), labels_of(expected))
    np.testing.assert_array_equal(read_volume(reoriented / "corrections.nii.gz").array, scribbles.array)


@pytest.mark.parametrize("damage", [{"time": "yesterday"}, {"organs": [{}]}, {"changed_voxels": -1}, {"kind": "magic"}])
def test_a_damaged_list_of_corrections_is_refused(
    damage: dict[str, object], results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scribbles = write_scribbles(results / REFINED, tmp_path / "scribbles.nii.gz", of=SPLEEN, label=BACKGROUND)
    damaged = Path(shutil.copytree(results / REFINED, tmp_path / "damaged"))
    record = {
        "time": "2026-03-01T09:30:00+00:00",
        "kind": "marks",
        "marked_voxels": 1,
        "changed_voxels": 1,
        "organs": [],
    }
    report = {**report_of(damaged), "corrections": [{**record, **damage}]}
    (damaged / "report.json").write_text(json.dumps(report), encoding="utf-8")
    assert main(["correct", str(damaged), "--corrections", str(scribbles), "-o", str(tmp_path / "none")]) == 2
    assert "is not a finished result" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("model", GENERATIONS)
def test_the_report_contains_the_scale_of_the_maps(model: str, results: Path) -> None:
    scale = report_of(results / model)["scales"]["mutual_information"]
    assert scale == {"quantity": "mutual information / ln(classes)", "classes": 4, "nats_at_1": 1.3863}
