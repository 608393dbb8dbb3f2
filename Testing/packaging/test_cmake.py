"""The packaged extension contains every file that it needs; CMake runs with a stand-in for Slicer's build."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .cmake_lists import installed_resources, installed_scripts, with_lists

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "DiffusionSegment"
STUB = Path(__file__).parent / "slicer_stub"
INSTALLED = Path("lib/Slicer/qt-scripted-modules")

with_cmake = pytest.mark.skipif(shutil.which("cmake") is None, reason="CMake is not installed")


def listed_files() -> list[str]:
    """The files that DiffusionSegment/CMakeLists.txt lists, in order."""
    text = (MODULE / "CMakeLists.txt").read_text(encoding="utf-8")
    lists = re.findall(r"set\(MODULE_PYTHON_(?:SCRIPTS|RESOURCES)\s([^)]*)\)", text)
    return " ".join(lists).replace("${MODULE_NAME}", MODULE.name).split()


def configure(source: Path, build: Path) -> subprocess.CompletedProcess[str]:
    command = ["cmake", "-S", str(source), "-B", str(build), f"-DSlicer_DIR={STUB}"]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    outcome = configure(ROOT, folder)
    assert outcome.returncode == 0, outcome.stderr
    return folder


@pytest.fixture(scope="module")
def installed(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run(["cmake", "--install", str(build), "--prefix", str(folder)], check=True, capture_output=True)
    return folder


def test_the_lists_match_the_files_on_disk() -> None:
    text = (MODULE / "CMakeLists.txt").read_text(encoding="utf-8")
    assert with_lists(text) == text, "run `python Testing/packaging/cmake_lists.py`"
    listed = listed_files()
    assert set(listed) == {*installed_scripts(), *installed_resources()}
    assert len(listed) == len(set(listed)), "listed twice"


def test_research_code_is_not_installed() -> None:
    assert [path for path in listed_files() if "Research" in path or "Testing" in path] == []


def test_a_new_file_is_added_to_the_lists(tmp_path: Path) -> None:
    module = tmp_path / "DiffusionSegment"
    for name in (
        "DiffusionSegment.py",
        "Lib/new.py",
        "DiffusionSegmentResearch/study.py",
        "Resources/Models/a/model.json",
    ):
        (module / name).parent.mkdir(parents=True, exist_ok=True)
        (module / name).touch()
    text = with_lists("set(MODULE_PYTHON_SCRIPTS\n  old.py\n  )\nset(MODULE_PYTHON_RESOURCES\n  )\n", module)
    scripts = "set(MODULE_PYTHON_SCRIPTS\n  ${MODULE_NAME}.py\n  Lib/new.py\n  )\n"
    assert text == scripts + "set(MODULE_PYTHON_RESOURCES\n  Resources/Models/a/model.json\n  )\n"


@with_cmake
def test_every_file_of_the_module_is_installed_and_nothing_else(installed: Path) -> None:
    files = {
        path.relative_to(installed / INSTALLED).as_posix()
        for path in installed.rglob("*")
        if path.is_file() and path.is_relative_to(installed / INSTALLED)
    }
    assert files == set(listed_files())


@with_cmake
def test_licence_and_readme_are_packaged(installed: Path) -> None:
    assert {path.name for path in (installed / "share").iterdir()} == {"LICENSE.txt", "README.md"}


@with_cmake
def test_the_tests_that_run_inside_slicer_are_registered(build: Path) -> None:
    listing = subprocess.run(["ctest", "-N"], cwd=build, capture_output=True, encoding="utf-8", check=True).stdout
    assert "py_DiffusionSegment\n" in listing
    assert "py_DiffusionSegmentSelfTest\n" in listing


@with_cmake
def test_the_installed_command_line_starts(installed: Path) -> None:
    """Run from the install tree alone, as in the packaged extension."""
    command = [sys.executable, "-I", str(installed / INSTALLED / "DiffusionSegmentBackend" / "__main__.py"), "--help"]
    outcome = subprocess.run(command, cwd=installed, capture_output=True, encoding="utf-8", check=False)
    assert outcome.returncode == 0, outcome.stderr
    assert "segment" in outcome.stdout


@with_cmake
@pytest.mark.parametrize("listed", ["DiffusionSegmentLib/gone.py", "../outside.py"])
def test_a_wrong_entry_fails_to_configure(tmp_path: Path, listed: str) -> None:
    """As in Slicer, a file that does not exist or is outside the module stops the build."""
    source = tmp_path / "source"
    shutil.copytree(MODULE, source / "DiffusionSegment", ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
    shutil.copytree(ROOT / "Testing", source / "Testing", ignore=lambda folder, names: set(names) - {"CMakeLists.txt"})
    shutil.copy(ROOT / "CMakeLists.txt", source)
    lists = source / "DiffusionSegment" / "CMakeLists.txt"
    kept = [
        line for line in lists.read_text(encoding="utf-8").splitlines() if not line.strip().endswith(".safetensors")
    ]
    lists.write_text("\n".join(kept).replace("set(MODULE_PYTHON_RESOURCES", f"set(MODULE_PYTHON_RESOURCES\n  {listed}"))
    outcome = configure(source, tmp_path / "build")
    assert outcome.returncode != 0
    assert listed in outcome.stderr
