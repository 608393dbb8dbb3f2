"""The package, its changelog and its citation have the same version."""

from __future__ import annotations

import re
from pathlib import Path

import DiffusionSegmentBackend

ROOT = Path(__file__).resolve().parents[2]
VERSION = DiffusionSegmentBackend.__version__


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_version_follows_semantic_versioning() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)


def test_pyproject_takes_the_version_from_the_package() -> None:
    text = read("pyproject.toml")
    assert 'dynamic = ["version"]' in text
    assert 'version = { attr = "DiffusionSegmentBackend.__version__" }' in text
    assert re.findall(r'^version = "', text, re.MULTILINE) == []


def test_one_version_of_python_is_required_checked_and_documented() -> None:
    """The code uses syntax of this version, which an older one refuses when it imports a module."""
    text = read("pyproject.toml")
    (required,) = re.findall(r'^requires-python = ">=(\S+)"$', text, re.MULTILINE)
    assert re.findall(r'^python_version = "(\S+)"$', text, re.MULTILINE) == [required]
    assert re.findall(r'^target-version = "(\S+)"$', text, re.MULTILINE) == [f"py{required.replace('.', '')}"]
    pages = ("README.md", "CONTRIBUTING.md", "Makefile", "docs/SERVICE.md")
    named = {name: re.findall(r"Python (\d\.\d+) or newer", read(name)) for name in pages}
    assert named == {name: [required] for name in pages}


def test_the_newest_release_of_the_changelog_is_this_version() -> None:
    releases = re.findall(r"^## \[([^]]+)\] - (.+)$", read("CHANGELOG.md"), re.MULTILINE)
    assert releases[0][0] == VERSION
    assert all(re.fullmatch(r"\d{4}-\d{2}-\d{2}|unreleased", date) for _, date in releases)
    assert all(date != "unreleased" for _, date in releases[1:])


def test_the_citation_names_this_version() -> None:
    assert re.findall(r"^version: (\S+)$", read("CITATION.cff"), re.MULTILINE) == [VERSION]


def test_the_extension_names_no_other_version() -> None:
    """The index of Slicer requires no version; a field that is added must agree."""
    stated = re.findall(r"project\([^)]*VERSION\s+([\d.]+)", read("CMakeLists.txt"))
    stated += re.findall(r'set\(EXTENSION_VERSION\s+"([^"]*)"', read("CMakeLists.txt"))
    stated += re.findall(r"^version (\S+)$", read("extension.s4ext"), re.MULTILINE)
    assert set(stated) <= {VERSION}


def test_typed_packages_have_a_py_typed_file() -> None:
    packages = {path.parent for path in (ROOT / "DiffusionSegment").glob("*/py.typed")}
    assert ROOT / "DiffusionSegment" / "DiffusionSegmentBackend" in packages
    assert '"*" = ["py.typed"]' in read("pyproject.toml")
