"""The extension starts from its zip file, which holds what CMake installs, independent of the repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import DiffusionSegmentBackend
import pytest

ROOT = Path(__file__).resolve().parents[2]
STUB = Path(__file__).parent / "slicer_stub"
HEAVY = (
    "torch",
    "monai",
    "scipy",
    "SimpleITK",
    "nibabel",
    "safetensors",
    "tqdm",
    "psutil",
    "platformdirs",
    "jinja2",
    "matplotlib",
    "highdicom",
)

START = """
import json, sys
from pathlib import Path
from pythonqt.slicer_application import Application

application = Application()
import DiffusionSegment as module
from DiffusionSegmentBackend.protocol.messages import SelfTest
from DiffusionSegmentLib.worker.transport import processEvents

widget = application.openModule(module)
selector = widget.ui.modelSelector
state = {
    "files": sorted({m.__file__ for n, m in sys.modules.items() if n.startswith("DiffusionSegment") and m.__file__}),
    "models": [selector.itemData(n) for n in range(selector.count)],
    "heavy": sorted(set(%r) & sys.modules.keys()),
    "started": widget.logic.client.hello is not None,
}
client, answers, errors = widget.logic.client, [], []
client.finished.disconnect(widget.panel.run.onFinished)
client.finished.connect(answers.append)
client.failed.connect(lambda _, error: errors.append(str(error)))
client.ask(SelfTest, device="cpu")
while not answers and not errors:
    processEvents()
state |= {"errors": errors, "worker": list(client.hello.models), "torch": answers[0].report.torch}
widget.cleanup()
print(json.dumps(state))
"""


def start(modules: Path) -> subprocess.CompletedProcess[str]:
    """Start the module in `modules` in the stand-in for Slicer, isolated from the repository."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(modules), str(ROOT / "Testing")])}
    environment |= {
        "PYTHONUTF8": "1",
        "QT_QPA_PLATFORM": "offscreen",
        "DIFFUSION_SEGMENT_MODELS": str(modules / "none"),
    }
    return subprocess.run(
        [sys.executable, "-c", START % (HEAVY,)],
        cwd=modules,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zip file that `make package` writes."""
    folder = tmp_path_factory.mktemp("package")
    subprocess.run([sys.executable, ROOT / "Testing" / "packaging" / "extension_zip.py", "-o", folder], check=True)
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def modules(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a reader names as additional module path, from the zip file."""
    folder = tmp_path_factory.mktemp("Félix 测试")
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)
    return folder / "DiffusionSegment"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of scripted modules after CMake configured and installed the extension."""
    if shutil.which("cmake") is None:
        pytest.skip("CMake is not installed")
    build, prefix = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("Félix 测试")
    for command in (
        ["-S", str(ROOT), "-B", str(build), f"-DSlicer_DIR={STUB}"],
        ["--install", build, "--prefix", prefix],
    ):
        subprocess.run(["cmake", *map(str, command)], check=True, capture_output=True)
    return prefix / "lib" / "Slicer" / "qt-scripted-modules"


@pytest.fixture(scope="module")
def state(modules: Path) -> dict[str, Any]:
    outcome = start(modules)
    assert outcome.returncode == 0, outcome.stderr
    assert "Traceback" not in outcome.stderr, outcome.stderr
    return json.loads(outcome.stdout.splitlines()[-1])


def test_the_zip_file_is_named_after_the_version_and_always_the_same(archive: Path, tmp_path: Path) -> None:
    assert archive.name == f"DiffusionSegment-{DiffusionSegmentBackend.__version__}.zip"
    subprocess.run([sys.executable, ROOT / "Testing" / "packaging" / "extension_zip.py", "-o", tmp_path], check=True)
    assert (tmp_path / archive.name).read_bytes() == archive.read_bytes()


def test_it_holds_what_cmake_installs(modules: Path, installed: Path) -> None:
    def files(folder: Path) -> set[str]:
        kept = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {path.relative_to(folder).as_posix() for path in kept}

    assert files(modules) - files(installed) == {"LICENSE.txt", "CHANGELOG.md"}
    assert files(installed) - files(modules) == set()
    for name in files(installed):
        assert (modules / name).read_bytes() == (installed / name).read_bytes(), name


def test_it_starts_with_installed_files_only(modules: Path, state: dict[str, Any]) -> None:
    assert len(state["files"]) > 20
    assert [name for name in state["files"] if not name.startswith(str(modules))] == []


def test_every_bundled_model_is_available_to_panel_and_worker(state: dict[str, Any]) -> None:
    bundled = sorted(path.name for path in (ROOT / "DiffusionSegment" / "Resources" / "Models").iterdir())
    assert state["models"] == bundled
    assert state["worker"] == bundled


def test_opening_the_module_loads_no_large_package_and_starts_no_process(state: dict[str, Any]) -> None:
    assert state["heavy"] == []
    assert not state["started"]


def test_its_worker_replies(state: dict[str, Any]) -> None:
    assert state["errors"] == []
    assert state["torch"]


@pytest.mark.parametrize(
    "missing",
    [
        "DiffusionSegmentLib/scene/overlay.py",
        "Resources/UI/DiffusionSegment.ui",
        "DiffusionSegmentBackend/worker/engine.py",
    ],
)
def test_a_missing_file_is_detected(modules: Path, tmp_path: Path, missing: str) -> None:
    copy = tmp_path / "modules"
    shutil.copytree(modules, copy, ignore=shutil.ignore_patterns("*.safetensors"))
    (copy / missing).unlink()
    assert start(copy).returncode != 0
