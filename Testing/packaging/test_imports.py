"""Import rules: no torch in Slicer's process, no Slicer in the backend, and no imports between layers upwards."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

MODULE = Path(__file__).resolve().parents[2] / "DiffusionSegment"
LIB, BACKEND, RESEARCH = "DiffusionSegmentLib", "DiffusionSegmentBackend", "DiffusionSegmentResearch"
HEAVY = {"torch", "monai", "SimpleITK", "nibabel", "safetensors", "scipy", "tqdm", "psutil", "pydicom", "highdicom"}
SLICER = {"slicer", "vtk", "vtkmodules", "qt", "ctk", "PythonQt", "PySide6"}
# What Slicer's process may import of the backend.
SHARED = tuple(
    f"{BACKEND}.{name}" for name in ("errors", "schema", "protocol", "imaging.label_changes", "models.folders")
)
# Modules among them that need numpy as well.
WITH_NUMPY = {"protocol/buffers.py", "protocol/slabs.py"}
# Imported in functions, and only where it is installed: without it the codec does not exist.
OPTIONAL = {"protocol/slabs.py": {"zstandard"}}
# Imported in Slicer's process on demand; needs numpy and scipy only, which Slicer includes.
ON_DEMAND = {f"{LIB}/sample_data.py": f"{BACKEND}.phantom."}

# Packages of the backend from the bottom up: a package may import itself and those before it.
ORDER = (
    *(
        "errors",
        "schema",
        "protocol",
        "process",
        "imaging",
        "presegmenters",
        "phantom",
        "diffusion",
        "networks",
        "models",
    ),
    *(
        "pipeline",
        "metrics",
        "datasets",
        "training",
        "evaluation",
        "reporting",
        "worker",
        "dicom_node",
        "service",
        "remote",
        "commands",
        "cohort",
        "cli",
        "__main__",
    ),
)
# Packages of the Slicer side that a package must not import.
LIB_ABOVE = {"scene": ("panel", "worker"), "worker": ("panel", "scene")}
# Packages that must not import each other, although one comes before the other.
APART = {
    *(("evaluation", "training"), ("worker", "evaluation"), ("reporting", "training"), ("reporting", "evaluation")),
    ("remote", "service"),
}


def imports(path: Path, package: tuple[str, ...]) -> Iterator[str]:
    """Full names of all imports of a file, also inside functions; names from a package count as its modules."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join((*above, *([node.module] if node.module else [])))
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def all_imports(root: Path, package: str) -> dict[str, set[str]]:
    """For every file of a package, by its path: what it imports."""
    imported = {}
    for path in sorted((root / package).rglob("*.py")):
        imported[path.relative_to(root).as_posix()] = set(imports(path, path.relative_to(root).parent.parts))
    return imported


def package_of(path_or_name: str) -> str:
    """The subpackage of a file or module: its first part below the package."""
    parts = path_or_name.removesuffix(".py").replace("/", ".").split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def lib_violations(root: Path) -> list[str]:
    wrong = []
    for path, names in all_imports(root, LIB).items():
        qt_allowed = path.startswith(f"{LIB}/panel/") or path == f"{LIB}/worker/transport.py"
        for name in names:
            top = name.partition(".")[0]
            backend = top == BACKEND and not any(name == part or name.startswith(part + ".") for part in SHARED)
            backend = backend and not name.startswith(ON_DEMAND.get(path, "-"))
            if (
                top in HEAVY
                or top == RESEARCH
                or backend
                or (top in {"qt", "ctk"} and not qt_allowed)
                or (package_of(name) in LIB_ABOVE.get(package_of(path), ()) and top == LIB)
            ):
                wrong.append(f"{path}: {name}")
    return sorted(wrong)


def backend_violations(root: Path) -> list[str]:
    wrong = []
    for path, names in all_imports(root, BACKEND).items():
        own = package_of(path)
        if own != "__init__" and own not in ORDER:
            wrong.append(f"{path}: {own} is not in ORDER")
            continue
        for name in names:
            top, other = name.partition(".")[0], package_of(name)
            if top in SLICER | {LIB, RESEARCH}:
                wrong.append(f"{path}: {name}")
            elif top == BACKEND and other in ORDER and own in ORDER:
                upward = ORDER.index(other) > ORDER.index(own)
                if upward or (own, other) in APART or (other, own) in APART:
                    wrong.append(f"{path}: {name}")
    return sorted(wrong)


def research_violations(root: Path) -> list[str]:
    return sorted(
        f"{path}: {name}"
        for path, names in all_imports(root, RESEARCH).items()
        for name in names
        if name.partition(".")[0] in SLICER | {LIB}
    )


def cycles(root: Path) -> list[list[str]]:
    """Groups of modules, of all packages, each of which imports itself through the others."""
    files = {path: names for package in (LIB, BACKEND, RESEARCH) for path, names in all_imports(root, package).items()}
    modules = {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in files}
    edges = {
        module: {known for name in files[path] if (known := _module_named(name, modules)) is not None} - {module}
        for module, path in modules.items()
    }
    reached = {module: _reachable(module, edges) for module in modules}
    groups = {frozenset(n for n in reached[module] if module in reached[n]) for module in modules}
    return sorted(sorted(group) for group in groups if group)


def _module_named(name: str, modules: dict[str, str]) -> str | None:
    """The module of an imported name: itself, or the module that contains it."""
    return next((one for one in (name, name.rpartition(".")[0]) if one in modules), None)


def _reachable(start: str, edges: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = list(edges.get(start, ()))
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting.extend(edges.get(module, ()))
    return seen


def test_slicer_side_imports_only_what_slicer_includes() -> None:
    assert lib_violations(MODULE) == []


def test_backend_imports_no_slicer_and_follows_the_order() -> None:
    assert backend_violations(MODULE) == []


def test_research_imports_no_slicer() -> None:
    assert research_violations(MODULE) == []


def test_there_are_no_import_cycles() -> None:
    assert cycles(MODULE) == []


def test_no_other_modules_are_at_the_top_of_the_backend() -> None:
    assert {path.name for path in (MODULE / BACKEND).glob("*.py")} == {"__init__.py", "__main__.py", "errors.py"}


def test_module_file_imports_no_large_package() -> None:
    names = {name.partition(".")[0] for name in imports(MODULE / "DiffusionSegment.py", ())}
    assert names.isdisjoint(HEAVY | {BACKEND})


def modules_of(name: str) -> list[str]:
    """The files of a subpackage, relative to the backend; `errors` is a single module."""
    folder = MODULE / BACKEND / name
    paths = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    return [path.relative_to(MODULE / BACKEND).as_posix() for path in paths]


@pytest.mark.parametrize("path", [path for name in ("errors", "schema", "protocol") for path in modules_of(name)])
def test_shared_modules_need_only_the_standard_library(path: str) -> None:
    file = MODULE / BACKEND / path
    known = {*sys.stdlib_module_names, BACKEND, *({"numpy"} if path in WITH_NUMPY else ()), *OPTIONAL.get(path, ())}
    names = imports(file, file.relative_to(MODULE).parent.parts)
    assert {name for name in names if name.partition(".")[0] not in known} == set()


def test_importing_the_shared_modules_loads_no_torch() -> None:
    shared = [
        f"{BACKEND}.{path.removesuffix('.py').replace('/', '.')}"
        for name in ("errors", "schema", "protocol")
        for path in modules_of(name)
    ]
    names = ", ".join(name.removesuffix(".__init__") for name in shared)
    code = f"import sys, {names}; sys.exit(bool({HEAVY!r} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", code], cwd=MODULE, check=True)


@pytest.mark.parametrize(
    ("one", "other"), [("from .b import x", "from .a import y"), ("from . import b", "def f():\n    from . import a")]
)
def test_the_rule_on_import_cycles_detects_a_violation(tmp_path: Path, one: str, other: str) -> None:
    folder = tmp_path / BACKEND / "imaging"
    folder.mkdir(parents=True)
    (folder / "a.py").write_text(one)
    (folder / "b.py").write_text(other)
    (folder / "c.py").write_text("from . import a")
    assert cycles(tmp_path) == [[f"{BACKEND}.imaging.a", f"{BACKEND}.imaging.b"]]


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
        (f"{BACKEND}/pipeline/a.py", "from ..training import loop"),
        (f"{BACKEND}/networks/a.py", f"import {BACKEND}.pipeline.segment"),
        (f"{BACKEND}/diffusion/a.py", "from ..networks.unet import UNet"),
        (f"{BACKEND}/worker/a.py", "from ..evaluation import evaluate"),
        (f"{BACKEND}/training/a.py", "from ..evaluation.scores import Scores"),
        (f"{BACKEND}/evaluation/a.py", "from ..training import loop"),
        (f"{BACKEND}/imaging/a.py", "from ..phantom import make_phantom"),
        (f"{BACKEND}/cli/a.py", f"import {RESEARCH}.studies"),
        (f"{BACKEND}/novelty.py", "import os"),
        (f"{RESEARCH}/studies/a.py", f"from {LIB}.scene import nodes"),
    ],
)
def test_each_rule_detects_its_violation(tmp_path: Path, path: str, line: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(line)
    assert len(lib_violations(tmp_path) + backend_violations(tmp_path) + research_violations(tmp_path)) == 1
