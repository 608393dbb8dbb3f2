"""A correction says what it changed: in report.json, through a chain of corrections, and on the command line."""

from __future__ import annotations

import json
import shutil
from datetime import datetime, timedelta, timezone
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
    write_marks,
)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models, a scan, and its result by each model."""
    return segment_by_each_model(tmp_path_factory.mktemp("trace"))


@pytest.fixture(autouse=True)
def models(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUSION_SEGMENT_MODELS", str(done / "models"))


@pytest.mark.parametrize("model", GENERATIONS)
def test_the_report_lists_each_correction_of_a_chain(model: str, done: Path, tmp_path: Path) -> None:
    began = datetime.now(timezone.utc) - timedelta(seconds=1)
    first = write_marks(done / model, tmp_path / "first.nii.gz", of=SPLEEN, label=BACKGROUND, count=3)
    one = correct(done / model, first, tmp_path / "one")
    second = write_marks(one, tmp_path / "second.nii.gz", of=RIGHT_KIDNEY, label=SPLEEN)
    two = correct(one, second, tmp_path / "two")
    assert "corrections" not in report_of(done / model)
    assert report_of(one)["corrections"] == report_of(two)["corrections"][:1]
    voxel_ml = read_volume(done / "ct.nii.gz").voxel_ml
    chain = (done / model, one, two)
    for record, before, after in zip(report_of(two)["corrections"], chain[:-1], chain[1:], strict=True):
        was, now = labels_of(before), labels_of(after)
        assert began <= datetime.fromisoformat(record["time"]) <= datetime.now(timezone.utc)
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


def test_the_command_line_says_that_the_case_runs_again_and_what_changed(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marks = write_marks(done / REFINED, tmp_path / "marks.nii.gz", of=SPLEEN, label=RIGHT_KIDNEY)
    capsys.readouterr()
    after = correct(done / REFINED, marks, tmp_path / "after")
    lines = capsys.readouterr().out.splitlines()
    seconds = report_of(done / REFINED)["timings_s"]["total"]
    assert lines[:2] == [
        "Marked: 1 voxels as Right kidney.",
        f"The case runs again, about {seconds:.0f} s; `segment --keep-session` avoids this.",
    ]
    spleen = next(organ for organ in report_of(after)["corrections"][0]["organs"] if organ["name"] == "spleen")
    (row,) = (line for line in lines if line.startswith("Spleen") and "(+" in line)
    voxel_ml = read_volume(done / "ct.nii.gz").voxel_ml
    was, now = (np.count_nonzero(labels_of(folder) == SPLEEN) * voxel_ml for folder in (done / REFINED, after))
    gained, lost = spleen["gained_voxels"], spleen["lost_voxels"]
    cells = f"Spleen {was:.1f} mL {now:.1f} mL {gained + lost} (+{gained} -{lost})"
    assert row.split() == cells.split()


def test_a_mark_that_confirms_changes_no_label_and_says_so(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marks = write_marks(done / REFINED, tmp_path / "marks.nii.gz", of=SPLEEN, label=SPLEEN)
    after = correct(done / REFINED, marks, tmp_path / "after", "--lock", "spleen,right_kidney,left_kidney")
    assert "No label changed." in capsys.readouterr().out
    (record,) = report_of(after)["corrections"]
    assert (record["marked_voxels"], record["changed_voxels"], record["organs"]) == (1, 0, [])


@pytest.mark.parametrize("axes", [(2, 1, 0), (1, 2, 0)])
def test_a_label_map_that_was_saved_in_another_orientation_marks_the_same_voxels(
    axes: tuple[int, int, int], done: Path, tmp_path: Path
) -> None:
    """As tools do that reorder and flip the axes of what they save."""
    path = write_marks(done / REFINED, tmp_path / "marks.nii.gz", of=SPLEEN, label=BACKGROUND, count=2)
    marks = read_volume(path)
    array = marks.array.transpose(axes)[:, ::-1]
    matrix = marks.index_to_lps.copy()
    matrix[:3, :3] = marks.index_to_lps[:3, :3][:, [2 - axes[2 - n] for n in range(3)]]
    matrix[:3, 3] += matrix[:3, 1] * (array.shape[1] - 1)
    matrix[:3, 1] *= -1
    write_volume(Volume(np.ascontiguousarray(array), matrix), tmp_path / "turned.nii.gz")
    expected = correct(done / REFINED, path, tmp_path / "expected")
    turned = correct(done / REFINED, tmp_path / "turned.nii.gz", tmp_path / "after")
    np.testing.assert_array_equal(labels_of(turned), labels_of(expected))
    np.testing.assert_array_equal(read_volume(turned / "corrections.nii.gz").array, marks.array)


@pytest.mark.parametrize("damage", [{"time": "yesterday"}, {"organs": [{}]}, {"changed_voxels": -1}, {"kind": "magic"}])
def test_a_damaged_list_of_corrections_is_refused(
    damage: dict[str, object], done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marks = write_marks(done / REFINED, tmp_path / "marks.nii.gz", of=SPLEEN, label=BACKGROUND)
    damaged = Path(shutil.copytree(done / REFINED, tmp_path / "damaged"))
    record = {
        "time": "2026-03-01T09:30:00+00:00",
        "kind": "marks",
        "marked_voxels": 1,
        "changed_voxels": 1,
        "organs": [],
    }
    report = {**report_of(damaged), "corrections": [{**record, **damage}]}
    (damaged / "report.json").write_text(json.dumps(report), encoding="utf-8")
    assert main(["correct", str(damaged), "--corrections", str(marks), "-o", str(tmp_path / "none")]) == 2
    assert "is not a finished result" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("model", GENERATIONS)
def test_the_report_says_on_what_scale_the_maps_are(model: str, done: Path) -> None:
    scale = report_of(done / model)["scales"]["mutual_information"]
    assert scale == {"quantity": "mutual information / ln(classes)", "classes": 4, "nats_at_1": 1.3863}
