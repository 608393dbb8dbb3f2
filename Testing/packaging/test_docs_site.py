"""The site of `make docs`: every module has an API page, and links that were written for GitHub are adapted."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "DiffusionSegment"


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_pages", ROOT / "docs" / "site" / "pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_module_of_every_package_is_on_an_api_page(pages: ModuleType) -> None:
    text = "\n".join(pages.api_pages().values())
    documented = set(re.findall(r"^::: (\S+)$", text, re.MULTILINE))
    packages = {path.parent for path in SOURCE.rglob("__init__.py")}
    modules = {path for package in packages for path in package.glob("*.py") if path.stem != "__main__"}
    names = {".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__") for path in modules}
    assert documented == names


def test_every_page_is_in_the_navigation(pages: ModuleType) -> None:
    text = str(pages.navigation())
    wanted = {path.name for path in (ROOT / "docs").glob("*.md")} | set(pages.api_pages())
    assert {page for page in wanted if f"'{page}'" not in text} == set()


@pytest.mark.parametrize(
    ("link", "page", "expected"),
    [
        ("docs/MODELS.md#manifestjson", "index.md", "MODELS.md#manifestjson"),
        ("../README.md", "MODELS.md", "index.md"),
        ("evidence/corrections.png", "EVIDENCE.md", "evidence/corrections.png"),
        ("../DiffusionSegment/Resources/Models/abdomen-ct/MODEL_CARD.md", "MODELS.md", "models/abdomen-ct.md"),
        ("../../../../docs/MODELS.md", "models/abdomen-ct.md", "../MODELS.md"),
        ("#limits", "index.md", "#limits"),
        ("https://www.slicer.org", "index.md", "https://www.slicer.org"),
    ],
)
def test_links_are_adapted_to_the_site(pages: ModuleType, link: str, page: str, expected: str) -> None:
    assert pages.site_link(link, page) == expected


def test_a_file_outside_the_site_is_linked_in_the_repository(pages: ModuleType) -> None:
    assert pages.site_link("LICENSE.txt", "index.md") == pages.REPOSITORY + "LICENSE.txt"


def test_a_broken_link_is_left_for_the_build_to_report(pages: ModuleType) -> None:
    assert pages.site_link("docs/GONE.md", "index.md") == "docs/GONE.md"


def test_lists_start_after_an_empty_line(pages: ModuleType) -> None:
    text = "Found:\n- one\n- two\n\n1. **Load.**\n\n   ![picture](a.png)\n\n```\na\n- b\n```\n"
    expected = "Found:\n\n- one\n- two\n\n1. **Load.**\n\n    ![picture](a.png)\n\n```\na\n- b\n```\n"
    assert pages.python_markdown(text) == expected
