"""Tests that need rendering or Qt are skipped and listed if this machine lacks it. On CI nothing is skipped."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from headless.offscreen import OffscreenUnavailable

if TYPE_CHECKING:
    from DiffusionSegmentBackend.imaging.volume import Volume
    from DiffusionSegmentBackend.models.model import Model

ON_CI = bool(os.environ.get("CI"))
HERE = Path(__file__).parent
NO_VIEW = "rendering needs a display"
_withoutQt: list[str] = []
_withoutViews: list[str] = []


@functools.cache
def qtFault() -> str:
    """Why PySide6 cannot be imported, "" where it can; asked of a child process, which a broken library may end."""
    done = subprocess.run(
        [sys.executable, "-c", "import PySide6.QtUiTools, PySide6.QtWidgets"],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out files that cannot be imported because a library of Qt is missing."""
    if ON_CI or not (left := [path for path in _tests(collection_path) if _needsQt(path)]) or not qtFault():
        return None
    _withoutQt.extend(str(path.relative_to(HERE.parent)) for path in left)
    return True


def _tests(path: Path) -> list[Path]:
    """The test files that are left out with a path: the file itself, or a folder whose conftest needs Qt."""
    if path.is_dir():
        return sorted(path.glob("test_*.py")) if path == HERE / "panel" else []
    return [path] if path.suffix == ".py" and path.name.startswith("test_") else []


def _needsQt(path: Path) -> bool:
    return path.parent.name == "panel" or "pythonqt" in path.read_text(encoding="utf-8")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """List the tests that were left out; pytest itself shows tests with the same location of the skip in one line."""
    noQt = f"Qt cannot be loaded: {qtFault()}" if _withoutQt else ""
    for left, why in ((_withoutQt, noQt), (_withoutViews, NO_VIEW)):
        if left:
            terminalreporter.section(f"left out; on Debian and Ubuntu: make system-packages ({why})")
            for name in sorted(left):
                terminalreporter.line(f"SKIPPED {name}")


def _skipWithoutViews(item: pytest.Item) -> Generator[None, Any, Any]:
    try:
        return (yield)
    except OffscreenUnavailable as fault:
        if ON_CI:
            raise
        _withoutViews.append(item.nodeid)
        pytest.skip(str(fault))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    """Skip a test whose fixture needs rendering if there is none."""
    return (yield from _skipWithoutViews(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Skip a test that needs rendering if there is none."""
    return (yield from _skipWithoutViews(item))


@pytest.fixture(scope="session")
def model() -> Model:
    """The bundled model of the abdomen."""
    from DiffusionSegmentBackend.models.model import load_model

    return load_model("abdomen-ct", "cpu")


@pytest.fixture(scope="session")
def phantom_ct() -> Volume:
    """A phantom on a grid of 3 mm."""
    from DiffusionSegmentBackend.imaging.volume import Volume
    from DiffusionSegmentBackend.phantom.phantom import make_phantom

    phantom = make_phantom(seed=3, spacing_mm=(3.0, 3.0, 3.0))
    return Volume(phantom.image, phantom.index_to_lps)
