"""Several scans in one call: a folder for each, one model for all, and a failure affects only its own scan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.commands import segment as commands
from DiffusionSegmentBackend.commands.several_inputs import Outcome, outcome_table, result_names
from DiffusionSegmentBackend.imaging.volume_io import read_volume
from fixtures.command_line import Workspace, make_workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("workspace"))


@pytest.mark.parametrize(
    ("inputs", "names"),
    [
        (["a/ct.nii.gz", "b/mr.nrrd", "b/series", "IM0001"], ["ct", "mr", "series", "IM0001"]),
        (["a/ct.nii.gz", "b/ct.nii", "b/mr.mha"], ["a_ct", "b_ct", "mr"]),
        (["a/ct.nii.gz", "a/CT.NRRD", "x/a/ct.mha"], ["a_ct", "a_CT_2", "a_ct_3"]),
        (["scan.v2.nii.gz", "scan.v3.nii.gz"], ["scan.v2", "scan.v3"]),
        (["series/", "series/.", "x/.nii.gz"], ["series", "series_2", "scan"]),
    ],
    ids=["plain", "equal names", "equal in folder and case", "dots", "no names"],
)
def test_folders_have_unique_names_from_the_inputs(
    inputs: list[str], names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = [name.replace("series", f"{tmp_path.name}_series") if inputs[0] == "series/" else name for name in names]
    assert result_names(inputs) == expected


def test_the_working_directory_as_an_input_gives_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "patient7").mkdir()
    monkeypatch.chdir(tmp_path / "patient7")
    assert result_names([".", "../ct.nii"]) == ["patient7", "ct"]


def test_each_scan_has_the_same_result_as_in_a_call_of_its_own(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = []
    load = commands.load_model
    monkeypatch.setattr(commands, "load_model", lambda *names, **more: loaded.append(names) or load(*names, **more))
    assert main(workspace.segment(workspace.scan, workspace.other_scan, output=tmp_path / "both")) == 0
    assert len(loaded) == 1
    assert {path.name for path in (tmp_path / "both").iterdir()} == {"monday_ct", "tuesday_ct"}
    assert "2 of 2 inputs have a result." in capsys.readouterr().out
    assert main(workspace.segment(workspace.other_scan, output=tmp_path / "alone")) == 0
    one, other = (read_volume(tmp_path / name / "segmentation.nii.gz") for name in ("both/tuesday_ct", "alone"))
    np.testing.assert_array_equal(one.array, other.array)


def test_an_error_of_one_input_is_one_line_and_sets_the_exit_status(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = workspace.folder / "missing.nii"
    call = workspace.segment(workspace.damaged, workspace.scan, missing, output=tmp_path / "out", more=("-q",))
    assert main(call) == 2
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        [str(workspace.damaged), "INPUT_UNREADABLE"],
        [str(missing), "INPUT_MISSING"],
    ]
    table = [line.split() for line in printed.out.splitlines()[-5:]]
    assert [row[0] for row in table[:4]] == ["Input", "damaged", "ct", "missing"]
    assert [row[-1] for row in table[1:4]] == ["INPUT_UNREADABLE", "written", "INPUT_MISSING"]
    assert table[4] == ["1", "of", "3", "inputs", "have", "a", "result."]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"ct"}


def test_a_subfolder_of_other_files_is_kept_and_other_inputs_are_processed(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = tmp_path / "out" / "monday_ct"
    foreign.mkdir(parents=True)
    (foreign / "notes.txt").write_text("mine", encoding="utf-8")
    assert main(workspace.segment(workspace.scan, workspace.other_scan, output=tmp_path / "out", more=("-q",))) == 2
    assert f"{workspace.scan}: OUTPUT_UNWRITABLE: " in capsys.readouterr().err
    assert [path.name for path in foreign.iterdir()] == ["notes.txt"]
    assert (tmp_path / "out" / "tuesday_ct" / "report.json").is_file()


def test_an_interrupt_reports_the_written_results(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read = commands.read_scan

    def interrupted_at_the_second(path: str, **more: str | None) -> object:
        if path == str(workspace.other_scan):
            raise KeyboardInterrupt
        return read(path, **more)

    monkeypatch.setattr(commands, "read_scan", interrupted_at_the_second)
    assert main(workspace.segment(workspace.scan, workspace.other_scan, output=tmp_path / "out", more=("-q",))) == 130
    printed = capsys.readouterr()
    assert printed.err == "CANCELLED: Stopped by the user. 1 of 2 results are written.\n"
    assert "written" in printed.out.splitlines()[-2]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"monday_ct"}


def test_an_error_of_the_call_stops_it_before_any_scan(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ("--presegmentation", str(workspace.scan))
    for more, code in (
        (labels, "OPTION"),
        (("--organs", "heart"), "OPTION"),
        (("--model", "none"), "MODEL_UNKNOWN"),
        (("--steps", "0"), "OPTION"),
    ):
        assert (
            main(workspace.segment(workspace.scan, workspace.other_scan, output=tmp_path / "out", more=("-q", *more)))
            != 0
        )
        printed = capsys.readouterr()
        assert printed.err.startswith(f"{code}: ")
        assert printed.err.count("\n") == 1
        assert printed.out == ""


def test_table_columns_are_aligned_for_any_names() -> None:
    rows = outcome_table([Outcome("a" * 40, 1.25), Outcome("b\x1b[2J", 100.0, "GEOMETRY")]).splitlines()
    assert rows[1].index("1.2") - rows[2].index("100.0") == 2
    assert "\x1b" not in rows[2]
