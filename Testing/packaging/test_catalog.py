"""The entries for the extension catalog are complete and consistent."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RAW = "https://raw.githubusercontent.com/DiffusionSegment/SlicerDiffusionSegment/main/"
REQUIRED = {"$schema", "category", "scm_url"}
OPTIONAL = {"build_dependencies", "build_subdirectory", "enabled", "scm_revision", "tier"}


@pytest.fixture(scope="module")
def cmake() -> dict[str, str]:
    """The EXTENSION_* fields, parsed like in the check of the catalog: one call, one quoted string."""
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    return {name.lower(): value for name, value in re.findall(r'set\(EXTENSION_(\w+) "([^"\n]*)"\)', text)}


@pytest.fixture(scope="module")
def s4ext() -> dict[str, str]:
    lines = (ROOT / "extension.s4ext").read_text(encoding="utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))


@pytest.fixture(scope="module")
def catalog() -> dict:
    return json.loads((ROOT / "docs" / "DiffusionSegment.json").read_text(encoding="utf-8"))


def png_size(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n", f"{path} is no PNG"
    return struct.unpack(">II", head[16:24])


def test_the_project_has_the_name_of_the_catalog_entry() -> None:
    names = re.findall(r"project\((\w+)\)", (ROOT / "CMakeLists.txt").read_text(encoding="utf-8"))
    assert names == ["DiffusionSegment"]
    assert (ROOT / "docs" / f"{names[0]}.json").is_file()


@pytest.mark.parametrize(
    "field", ["homepage", "category", "contributors", "description", "iconurl", "screenshoturls", "depends"]
)
def test_s4ext_and_cmake_agree(cmake: dict[str, str], s4ext: dict[str, str], field: str) -> None:
    assert s4ext[field] == cmake[field]


def test_catalog_entry_follows_the_schema(catalog: dict) -> None:
    assert set(catalog) >= REQUIRED
    assert set(catalog) <= REQUIRED | OPTIONAL
    assert catalog["$schema"].endswith("slicer-extension-catalog-entry-schema-v1.0.1.json#")
    assert catalog["tier"] in (1, 3, 5)
    assert re.fullmatch(r"https://\S+/Slicer\w+\.git", catalog["scm_url"])
    assert b"\r" not in (ROOT / "docs" / "DiffusionSegment.json").read_bytes()


def test_catalog_entry_agrees_with_cmake_and_s4ext(catalog: dict, cmake: dict, s4ext: dict) -> None:
    assert catalog["category"] == cmake["category"] == s4ext["category"] == "Segmentation"
    assert catalog["build_dependencies"] == cmake["depends"].split()
    assert catalog["scm_url"] == s4ext["scmurl"] == cmake["homepage"] + ".git"
    assert catalog["scm_revision"] == s4ext["scmrevision"]
    assert catalog["build_subdirectory"] == s4ext["build_subdirectory"]


def test_description_is_plain_and_not_about_diffusion_mri(cmake: dict[str, str]) -> None:
    assert "not diffusion MRI" in cmake["description"]
    assert "Research use only" in cmake["description"]
    assert len(cmake["description"]) < 300
    assert "&" not in cmake["description"]


def test_images_referenced_by_url_are_in_the_repository(cmake: dict[str, str]) -> None:
    addresses = [cmake["iconurl"], *cmake["screenshoturls"].split()]
    missing = [url for url in addresses if not (url.startswith(RAW) and (ROOT / url.removeprefix(RAW)).is_file())]
    assert missing == []


def test_icons_have_the_size_that_slicer_shows() -> None:
    assert png_size(ROOT / "Resources" / "DiffusionSegment.png") == (128, 128)
    assert png_size(ROOT / "DiffusionSegment" / "Resources" / "Icons" / "DiffusionSegment.png") == (128, 128)


def test_licence_is_the_full_apache_2() -> None:
    text = (ROOT / "LICENSE.txt").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
