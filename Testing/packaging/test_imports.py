"""Who may import whom. Slicer's process stays free of torch, the backend free of Slicer, and no layer looks upwards."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

MODULE = Path(__file__).resolve().parents[2] / "DiffusionSegment"
LIB, BACKEND = "DiffusionSegmentLib", "DiffusionSegmentBackend"
HEAVY = {"torch", "monai", "SimpleITK", "nibabel", "safetensors", "scipy", "tqdm", "psutil", "pydicom", "highdicom"}
SLICER = {"slicer", "vtk", "vtkmodules", "qt", "ctk", "PythonQt", "PySide6"}
SHARED = {
    f"{BACKEND}.{name}"
    for name in (
        *("protocol", "protocol_requests", "errors", "buffers", "correction_record", "examination", "model_folders"),
        "wire_types",
    )
}

# Drawn in Slicer's own process on demand, because numpy and scipy, which Slicer brings, are all that it takes.
ON_DEMAND = {f"{LIB}/sample_data.py": f"{BACKEND}.phantom."}

# Parts of the backend from the bottom up: a part may import parts of its own and of lower levels.
LEVELS = [
    {"__init__", "errors", "protocol", "buffers", "correction_record", "model_folders", "volume", "volume_io"}
    | {"examination", "imaging", "logs", "process_environment", "protocol_requests", "standard_streams", "wire_types"},
    {"phantom", "phantom_anatomy", "phantom_body", "phantom_canvas"},
    {"diffusion"},
    {"networks"},
    {"pipeline"},
    {"result_folder"},
    {"user_models", "foreign_model", "model_archive", "self_test"},
    {"training", "evaluation", "reporting"},
    {"studies", "reporting_requests", "engine"},
    {"benchmark"},
    {"worker"},
    {
        *("cli", "commands", "correction_files", "feature_files", "similarity_files", "teaching_files", "__main__"),
        *("benchmark_cli", "evaluation_cli", "manifest_cli", "reporting_cli", "segment_cli", "series_option"),
        *("command_parser", "progress_display", "run_estimate", "run_options", "several_inputs"),
        *("alternative_files", "extra_options", "probability_files", "result_extras", "session_files"),
        *("teaching_cli", "training_cli"),
    },
]
# Siblings on one level that must not know each other.
APART = [("worker", "training"), ("worker", "evaluation"), ("worker", "studies")]


def imports(path: Path, package: tuple[str, ...]) -> Iterator[str]:
    """Full names of all that a file imports, also inside functions; names from a package count as its modules."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join((*above, *([node.module] if node.module else [])))
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def all_imports(root: Path, package: str) -> dict[str, set[str]]:
    """For every file of a package, by its path: what it imports."""
    found = {}
    for path in sorted((root / package).rglob("*.py")):
        found[path.relative_to(root).as_posix()] = set(imports(path, path.relative_to(root).parent.parts))
    return found


def level_of(name: str) -> int | None:
    return next((index for index, parts in enumerate(LEVELS) if name in parts), None)


def lib_violations(root: Path) -> list[str]:
    wrong = []
    for path, names in all_imports(root, LIB).items():
        qt_allowed = path.startswith(f"{LIB}/panel/") or path == f"{LIB}/worker/transport.py"
        for name in names:
            top = name.partition(".")[0]
            backend = top == BACKEND and not any(name == part or name.startswith(part + ".") for part in SHARED)
            backend = backend and not name.startswith(ON_DEMAND.get(path, "-"))
            if top in HEAVY or backend or (top in {"qt", "ctk"} and not qt_allowed):
                wrong.append(f"{path}: {name}")
            for low, high in (("scene", ("panel", "worker")), ("worker", ("panel", "scene"))):
                if path.startswith(f"{LIB}/{low}/") and name.startswith(tuple(f"{LIB}.{part}" for part in high)):
                    wrong.append(f"{path}: {name}")
    return sorted(wrong)


def backend_violations(root: Path) -> list[str]:
    wrong = []
    for path, names in all_imports(root, BACKEND).items():
        part = path.split("/")[1].removesuffix(".py")
        own = level_of(part)
        if own is None:
            wrong.append(f"{path}: {part} has no place in LEVELS")
            continue
        for name in names:
            top, _, rest = name.partition(".")
            other = rest.partition(".")[0]
            level = level_of(other)
            apart = (part, other) in APART or (other, part) in APART
            upward = top == BACKEND and level is not None and level > own
            if top in SLICER | {LIB} or upward or (top == BACKEND and apart):
                wrong.append(f"{path}: {name}")
    return sorted(wrong)


def test_slicer_side_imports_only_what_slicer_has() -> None:
    assert lib_violations(MODULE) == []


def test_backend_knows_no_slicer_and_no_layer_looks_upwards() -> None:
    assert backend_violations(MODULE) == []


def test_module_file_imports_nothing_heavy() -> None:
    names = {name.partition(".")[0] for name in imports(MODULE / "DiffusionSegment.py", ())}
    assert names.isdisjoint(HEAVY | {BACKEND})


@pytest.mark.parametrize("name", ["errors", "protocol", "protocol_requests", "buffers", "examination", "model_folders"])
def test_shared_modules_need_the_standard_library_and_numpy_alone(name: str) -> None:
    own = {f"{BACKEND}.{part}" for part in ("errors", "protocol", "protocol_requests", "wire_types")}
    foreign = {
        imported
        for imported in imports(MODULE / BACKEND / f"{name}.py", (BACKEND,))
        if imported.partition(".")[0] not in {*sys.stdlib_module_names, "numpy"}
        and imported.rpartition(".")[0] not in own
    }
    assert foreign == set()
    if name != "buffers":
        assert not any(n.startswith("numpy") for n in imports(MODULE / BACKEND / f"{name}.py", (BACKEND,)))


def test_importing_what_slicer_shares_loads_no_torch() -> None:
    code = f"import sys, {', '.join(sorted(SHARED))}; sys.exit(bool({HEAVY!r} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", code], cwd=MODULE, check=True)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (f"{LIB}/scene/a.py", "import torch"),
        (f"{LIB}/scene/a.py", "def f():\n    from monai.inferers import x"),
        (f"{LIB}/scene/a.py", "import qt"),
        (f"{LIB}/scene/a.py", "from ..panel import segment_panel"),
        (f"{LIB}/worker/client.py", "import qt"),
        (f"{LIB}/panel/a.py", f"from {BACKEND}.pipeline import segment"),
        (f"{LIB}/panel/a.py", f"from {BACKEND} import phantom"),
        (f"{LIB}/panel/a.py", f"from {BACKEND}.phantom import make_phantom"),
        (f"{LIB}/sample_data.py", f"from {BACKEND}.pipeline import segment"),
        (f"{BACKEND}/pipeline/a.py", "import slicer"),
        (f"{BACKEND}/pipeline/a.py", "from ..training import data"),
        (f"{BACKEND}/networks/a.py", f"import {BACKEND}.pipeline.segment"),
        (f"{BACKEND}/diffusion/a.py", "from ..networks.unet import UNet"),
        (f"{BACKEND}/worker.py", "from .training import loop"),
        (f"{BACKEND}/volume.py", "from .phantom import make_phantom"),
        (f"{BACKEND}/novelty.py", "import os"),
    ],
)
def test_the_rules_see_a_breach(tmp_path: Path, path: str, line: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(line)
    assert len(lib_violations(tmp_path) + backend_violations(tmp_path)) == 1
