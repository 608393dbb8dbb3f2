"""The lists of DiffusionSegment/CMakeLists.txt, from the files on disk: `python Testing/packaging/cmake_lists.py`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

MODULE = Path(__file__).resolve().parents[2] / "DiffusionSegment"
# Tests are installed by their own CMakeLists.txt; research code is not installed.
NOT_INSTALLED = {"Testing", "DiffusionSegmentResearch", "__pycache__"}


def installed_scripts(module: Path = MODULE) -> list[str]:
    """Python files that the module needs at run time, relative to its folder, its main file first."""
    return sorted(_relative(module, module.rglob("*.py")), key=lambda path: ("/" in path, path))


def installed_resources(module: Path = MODULE) -> list[str]:
    """All other files that it needs: resources, templates, and py.typed."""
    paths = (*(module / "Resources").rglob("*"), *module.rglob("*.jinja"), *module.rglob("py.typed"))
    return sorted(_relative(module, paths))


def _relative(module: Path, paths: Iterable[Path]) -> list[str]:
    relative = [path.relative_to(module) for path in paths if path.is_file()]
    return [path.as_posix() for path in relative if NOT_INSTALLED.isdisjoint(path.parts)]


def with_lists(text: str, module: Path = MODULE) -> str:
    """The text of CMakeLists.txt with both lists updated."""
    lists = {"SCRIPTS": installed_scripts(module), "RESOURCES": installed_resources(module)}
    for kind, paths in lists.items():
        entries = "\n".join(f"  {'${MODULE_NAME}.py' if path == f'{module.name}.py' else path}" for path in paths)
        text = re.sub(rf"(set\(MODULE_PYTHON_{kind}\n)[^)]*\)", rf"\g<1>{entries}\n  )", text)
    return text


def main() -> None:
    """Write the lists."""
    file = MODULE / "CMakeLists.txt"
    file.write_text(with_lists(file.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
