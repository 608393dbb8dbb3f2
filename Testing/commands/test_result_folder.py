"""Writing into a folder: an earlier result is replaced completely, and other files are never changed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.commands.result_folder import recorded_passes
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging import output_folder
from DiffusionSegmentBackend.imaging.output_folder import check_replaceable, staged_folder
from DiffusionSegmentBackend.pipeline.segment import Segmentation
from DiffusionSegmentBackend.schema.output_kinds import FEATURES, PHANTOM, RESULT, SIMILARITY, OutputKind
from DiffusionSegmentBackend.schema.report import Report
from fixtures.command_line import Workspace, make_workspace
from fixtures.written_result import write_result

MAPS = {"segmentation.nii.gz", "uncertainty.nii.gz", "mutual_information.nii.gz", "regions.nii.gz"}
FILES = MAPS | {"report.json"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("workspace"))


def result(name: str, *, bodypart: bool = False) -> Segmentation:
    labels, values = np.ones((2, 3, 4), np.uint8), np.ones((2, 3, 4), np.float32)
    report = Report.from_partial_json({"provenance": {"input": name, "samples": 4, "steps": 2}})
    return Segmentation(
        labels=labels,
        regions=labels,
        bodypart=np.ones((2, 3, 4, 3), np.float32) if bodypart else None,
        report=report,
        uncertainty=values,
        mutual_information=values,
    )


def write(folder: Path, name: str, *, bodypart: bool = False) -> None:
    write_result(result(name, bodypart=bodypart), np.eye(4), folder)


def input_of(folder: Path) -> str:
    return str(json.loads((folder / "report.json").read_text(encoding="utf-8"))["provenance"]["input"])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def add_notes(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    (folder / "figures").mkdir()
    (folder / "figures" / "liver.png").write_bytes(b"png")


class TestAnEarlierResult:
    def test_none_of_its_files_is_left_after_a_new_result(self, tmp_path: Path) -> None:
        write(tmp_path / "out", "first", bodypart=True)
        (tmp_path / "out" / "corrections.nii.gz").write_bytes(b"marks")
        write(tmp_path / "out", "second")
        assert names(tmp_path / "out") == FILES
        assert input_of(tmp_path / "out") == "second"
        assert names(tmp_path) == {"out"}

    def test_its_folder_is_replaced_at_once_and_permissions_are_kept(self, tmp_path: Path) -> None:
        write(tmp_path / "out", "first")
        (tmp_path / "out").chmod(0o750)
        before = (tmp_path / "out").stat()
        write(tmp_path / "out", "second")
        after = (tmp_path / "out").stat()
        assert after.st_ino != before.st_ino
        assert after.st_mode == before.st_mode

    def test_it_is_replaced_and_other_files_in_its_folder_are_kept(self, tmp_path: Path) -> None:
        write(tmp_path / "out", "first", bodypart=True)
        add_notes(tmp_path / "out")
        write(tmp_path / "out", "second")
        assert names(tmp_path / "out") == FILES | {"notes.txt", "figures"}
        assert (tmp_path / "out" / "notes.txt").read_text(encoding="utf-8") == "mine"
        assert (tmp_path / "out" / "figures" / "liver.png").read_bytes() == b"png"
        assert input_of(tmp_path / "out") == "second"

    def test_in_the_working_directory_it_is_replaced_in_the_same_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The working directory of a shell must still be the folder with the result."""
        write(tmp_path / "out", "first", bodypart=True)
        monkeypatch.chdir(tmp_path / "out")
        write(Path(), "second")
        assert names(Path.cwd()) == FILES
        write(tmp_path / "out", "third", bodypart=True)
        assert "bodypart.nii.gz" in names(Path())
        write(tmp_path / "out", "fourth")
        assert names(tmp_path / "out") == FILES

    def test_behind_a_symbolic_link_it_is_replaced_in_the_target_of_the_link(self, tmp_path: Path) -> None:
        write(tmp_path / "disk" / "out", "first", bodypart=True)
        (tmp_path / "link").symlink_to(tmp_path / "disk" / "out")
        write(tmp_path / "link", "second")
        assert (tmp_path / "link").is_symlink()
        assert names(tmp_path / "disk" / "out") == FILES


class TestAFailure:
    def failing_move(self, monkeypatch: pytest.MonkeyPatch, fails: Callable[[Path, Path], bool]) -> None:
        move = os.replace

        def replace(source: Path, target: Path) -> None:
            if fails(Path(source), Path(target)):
                raise PermissionError(13, "Permission denied")
            move(source, target)

        monkeypatch.setattr(output_folder.os, "replace", replace)

    @pytest.mark.parametrize("name", ["report.json", "regions.nii.gz", "uncertainty.nii.gz"])
    def test_while_files_are_moved_restores_the_earlier_result(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        write(tmp_path / "out", "first", bodypart=True)
        add_notes(tmp_path / "out")
        before, done = content(tmp_path / "out"), []

        def fails(_: Path, target: Path) -> bool:
            """Once, when the new file is moved to its path."""
            is_new = target == tmp_path / "out" / name and not done
            done.extend([target] * is_new)
            return is_new

        self.failing_move(monkeypatch, fails)
        with pytest.raises(DiffusionSegmentError) as caught:
            write(tmp_path / "out", "second")
        assert caught.value.code is ErrorCode.OUTPUT_UNWRITABLE
        assert content(tmp_path / "out") == before
        assert not list(tmp_path.rglob(".*"))

    def test_while_the_folder_is_moved_keeps_the_earlier_result(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(tmp_path / "out", "first", bodypart=True)
        before = content(tmp_path / "out")
        self.failing_move(monkeypatch, lambda source, _: source == tmp_path / "out")
        with pytest.raises(DiffusionSegmentError):
            write(tmp_path / "out", "second")
        assert content(tmp_path / "out") == before

    def test_because_of_a_folder_with_the_name_of_a_file_keeps_the_folder(self, tmp_path: Path) -> None:
        (tmp_path / "out" / "report.json").mkdir(parents=True)
        (tmp_path / "out" / "report.json" / "kept.txt").write_text("kept", encoding="utf-8")
        with pytest.raises(DiffusionSegmentError):
            write(tmp_path / "out", "second")
        assert names(tmp_path / "out") == {"report.json"}
        assert (tmp_path / "out" / "report.json" / "kept.txt").read_text(encoding="utf-8") == "kept"

    def test_because_of_a_file_at_the_folders_path_keeps_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("kept", encoding="utf-8")
        with pytest.raises(DiffusionSegmentError), staged_folder(tmp_path / "out") as staging:
            (staging / "report.json").write_text("{}", encoding="utf-8")
        assert (tmp_path / "out").read_text(encoding="utf-8") == "kept"


class TestAFolderOfOtherFiles:
    def test_it_is_refused_with_a_hint_to_overwrite(self, tmp_path: Path) -> None:
        add_notes(tmp_path)
        with pytest.raises(DiffusionSegmentError) as caught:
            check_replaceable(tmp_path, RESULT)
        assert caught.value.code is ErrorCode.OUTPUT_UNWRITABLE
        assert "--overwrite" in str(caught.value)
        check_replaceable(tmp_path, RESULT, overwrite=True)

    @pytest.mark.parametrize(
        ("kind", "record"),
        [
            (RESULT, {"organs": [], "review": [], "provenance": {}}),
            (FEATURES, {"software": "1", "model": "m", "sha256": "0", "levels": []}),
            (SIMILARITY, {"software": "1", "model": "m", "sha256": "0", "point_lps_mm": [0, 0, 0]}),
        ],
        ids=["segment", "features", "similar"],
    )
    def test_only_a_valid_record_makes_it_an_earlier_output(
        self, tmp_path: Path, kind: OutputKind, record: dict[str, object]
    ) -> None:
        add_notes(tmp_path)
        assert kind.record is not None
        for text in ("no JSON", "[]", json.dumps(dict.fromkeys(list(record)[1:], 1))):
            (tmp_path / kind.record).write_text(text, encoding="utf-8")
            with pytest.raises(DiffusionSegmentError):
                check_replaceable(tmp_path, kind)
        (tmp_path / kind.record).write_text(json.dumps(record), encoding="utf-8")
        check_replaceable(tmp_path, kind)

    def test_a_phantom_never_replaces_a_scan(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "ct.nii.gz").write_bytes(b"the patient's")
        with pytest.raises(DiffusionSegmentError):
            check_replaceable(tmp_path, PHANTOM)
        assert main(["phantom", "-o", str(tmp_path)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
        assert (tmp_path / "ct.nii.gz").read_bytes() == b"the patient's"

    @pytest.mark.parametrize("left", [".DS_Store", "Thumbs.db", ".cache"])
    def test_files_of_the_operating_system_do_not_count(self, tmp_path: Path, left: str) -> None:
        (tmp_path / left).write_bytes(b"")
        check_replaceable(tmp_path, RESULT)
        write(tmp_path, "first")
        assert names(tmp_path) == FILES | {left}


class TestTheCommandLine:
    def test_segment_refuses_other_files_before_the_run_and_accepts_overwrite(
        self, workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        add_notes(tmp_path)
        call = workspace.segment(output=tmp_path)
        assert main(call) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("OUTPUT_UNWRITABLE: ")
        assert names(tmp_path) == {"notes.txt", "figures"}
        assert main([*call, "--overwrite"]) == 0
        assert names(tmp_path) == FILES | {"notes.txt", "figures"}
        assert main(call) == 0, "an earlier result needs no --overwrite"

    def test_a_run_without_body_coordinates_removes_those_of_the_run_before(
        self, workspace: Workspace, tmp_path: Path
    ) -> None:
        assert main(workspace.segment(output=tmp_path / "out", more=("--bodypart",))) == 0
        assert "bodypart.nii.gz" in names(tmp_path / "out")
        assert main(workspace.segment(output=tmp_path / "out")) == 0
        assert names(tmp_path / "out") == FILES

    @pytest.mark.parametrize(
        ("command", "files"),
        [
            (("features",), {"features.npz", "features.json"}),
            (("similar", "--point", "0,0,100"), {"similarity.nii.gz", "region.nii.gz", "similarity.json"}),
        ],
        ids=["features", "similar"],
    )
    def test_features_and_similar_follow_the_same_rules(
        self, workspace: Workspace, tmp_path: Path, command: tuple[str, ...], files: set[str]
    ) -> None:
        name, *more = command
        call = [
            name,
            str(workspace.scan),
            *more,
            "-o",
            str(tmp_path / "out"),
            "--model",
            str(workspace.model),
            "--quiet",
        ]
        assert main(call) == 0
        add_notes(tmp_path / "out")
        assert main(call) == 0
        assert names(tmp_path / "out") == files | {"notes.txt", "figures"}
        foreign = tmp_path / "foreign"
        foreign.mkdir()
        add_notes(foreign)
        assert main([*call, "-o", str(foreign)]) == 2
        assert names(foreign) == {"notes.txt", "figures"}
        assert main([*call, "-o", str(foreign), "--overwrite"]) == 0

    def test_correct_refuses_a_folder_of_other_files(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write(tmp_path / "result", "scan")
        (tmp_path / "out").mkdir()
        add_notes(tmp_path / "out")
        call = ["correct", str(tmp_path / "result"), "--corrections", "none.nii.gz", "-o", str(tmp_path / "out")]
        assert main(call) == 2
        assert "--overwrite" in capsys.readouterr().err
        assert main([*call, "--overwrite"]) == 2
        assert "--overwrite" not in capsys.readouterr().err


def test_the_number_of_forward_passes_is_read_from_the_report(tmp_path: Path) -> None:
    write(tmp_path / "out", "scan")
    assert recorded_passes(tmp_path / "out") == 8
    (tmp_path / "out" / "report.json").write_text('{"provenance": {"samples": "x"}}', encoding="utf-8")
    assert recorded_passes(tmp_path / "out") == 0
    assert recorded_passes(tmp_path / "none") == 0
