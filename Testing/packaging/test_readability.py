"""Limits of the length of files, functions and lines, and no paths of a particular machine."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = ("DiffusionSegment", "Testing")
FILE_LINES, FUNCTION_LINES, LINE_LENGTH = 400, 50, 120
TEXT = {".cmake", ".css", ".html", ".json", ".md", ".py", ".s4ext", ".svg", ".toml", ".txt", ".ui", ".yml", ""}
NOT_OURS = {".git", ".hypothesis", ".venv", "__pycache__", "build", "demo-output"}
MACHINE_PATH = re.compile(r"(?<![\w./:<{}$-])/(?:work|home|root|Users|mnt|scratch)/\w+")


def python_files() -> list[Path]:
    return [path for folder in CODE for path in sorted((ROOT / folder).rglob("*.py"))]


def too_long(path: Path) -> Iterator[str]:
    """What exceeds the limits in a Python file."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    if len(lines) > FILE_LINES:
        yield f"{path}: {len(lines)} lines"
    for number, line in enumerate(lines, start=1):
        if len(line) > LINE_LENGTH:
            yield f"{path}:{number}: {len(line)} characters"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                yield f"{path}:{node.lineno}: {node.name} has {length} lines"


def own_texts() -> Iterator[Path]:
    for folder, names, files in os.walk(ROOT):
        names[:] = sorted(name for name in names if name not in NOT_OURS and not name.endswith(("_cache", ".egg-info")))
        yield from (Path(folder, name) for name in sorted(files) if Path(name).suffix in TEXT)


def test_files_functions_and_lines_are_short() -> None:
    assert [text for path in python_files() for text in too_long(path)] == []


def test_module_file_is_short() -> None:
    assert len((ROOT / "DiffusionSegment" / "DiffusionSegment.py").read_text(encoding="utf-8").splitlines()) <= 165


def test_no_path_of_a_particular_machine() -> None:
    matches = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in own_texts()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
        for match in MACHINE_PATH.finditer(line)
    ]
    assert matches == []


def test_names_are_specific() -> None:
    vague = {"utils", "util", "helpers", "helper", "misc", "common"}
    assert [path for path in python_files() if path.stem in vague or vague.intersection(path.parent.parts)] == []


def test_the_limits_detect_a_violation(tmp_path: Path) -> None:
    file = tmp_path / "long.py"
    file.write_text("def f():\n" + "    x = 1\n" * 400 + "y = '" + "z" * 120 + "'\n")
    assert len(list(too_long(file))) == 3
    name = "home"
    assert MACHINE_PATH.search(f"open('/{name}/user/scan.nii')")
    assert not MACHINE_PATH.search(f"https://example.org/{name}/page")
