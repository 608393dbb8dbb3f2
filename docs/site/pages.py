"""MkDocs hook: the pages of the site that are not in docs/, its navigation, and links that also work on GitHub.

The README, the project's other top-level pages and the model cards become pages. Every package of `DiffusionSegment/`
and every package inside it gets a page with the API of its modules. Both are found on disk: no list has to be kept.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "DiffusionSegment"
REPOSITORY = "https://github.com/DiffusionSegment/SlicerDiffusionSegment/blob/main/"
PROJECT_PAGES = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_FENCE = re.compile(r"^\s*```")
_ITEM = re.compile(r"^\s*([-*]|\d+\.)\s")


def api_pages(source: Path = SOURCE) -> dict[str, str]:
    """The API pages by their path in the site, as Markdown with a directive of mkdocstrings for each module.

    Args:
        source: Folder that contains the top-level packages.

    Returns:
        One page for each package, nested ones included, in the order of their paths.
    """
    pages = {}
    for init in sorted(source.rglob("__init__.py"), key=lambda path: path.parent.parts):
        package = init.parent
        name = ".".join(package.relative_to(source).parts)
        modules = [path.stem for path in sorted(package.glob("*.py")) if path.stem not in ("__init__", "__main__")]
        parts = [f"# {name}\n\n{_directive(name, members='false')}"]
        parts += [f"## {module}\n\n{_directive(f'{name}.{module}', heading_level='3')}" for module in modules]
        pages[f"api/{name}.md"] = "\n".join(parts)
    return pages


def _directive(name: str, **options: str) -> str:
    """The block with which mkdocstrings shows a package or module."""
    lines = (f"      {option}: {value}\n" for option, value in {"show_root_heading": "false", **options}.items())
    return f"::: {name}\n    options:\n" + "".join(lines)


def site_paths() -> dict[str, str]:
    """Where files of the repository that are not in docs/ lie in the site, by their path in the repository."""
    cards = sorted((SOURCE / "Resources" / "Models").glob("*/MODEL_CARD.md"))
    pictures = sorted(path for path in (ROOT / "Resources" / "Screenshots").rglob("*") if path.is_file())
    paths = {"README.md": "index.md", "docs/site/style.css": "css/site.css"} | {
        name: name for name in PROJECT_PAGES if (ROOT / name).is_file()
    }
    paths |= {path.relative_to(ROOT).as_posix(): f"models/{path.parent.name}.md" for path in cards}
    return paths | {path.relative_to(ROOT).as_posix(): path.relative_to(ROOT).as_posix() for path in pictures}


def repository_path(site_path: str) -> str:
    """The file of the repository that a path of the site shows; an API page has none and gets its own path back."""
    known = {target: source for source, target in site_paths().items()}
    return known.get(site_path, f"docs/{site_path}")


def site_link(link: str, page: str) -> str:
    """The link of a page, written for GitHub, as it has to be in the site.

    Args:
        link: Target as the page has it, relative to the page's place in the repository.
        page: Path of the page in the site.

    Returns:
        A link relative to the page's place in the site, or to the repository for files that are not in the site.
    """
    target, mark, anchor = link.partition("#")
    if not target or re.match(r"[a-z]+:", target):
        return link
    path = posixpath.normpath(posixpath.join(posixpath.dirname(repository_path(page)), target))
    inside = path.removeprefix("docs/") if path.startswith("docs/") and (ROOT / path).is_file() else None
    place = site_paths().get(path, inside)
    if place is None:
        # A file that does not exist keeps its link, which MkDocs then reports.
        return f"{REPOSITORY}{path}{mark}{anchor}" if (ROOT / path).exists() else link
    return posixpath.relpath(place, posixpath.dirname(page) or ".") + mark + anchor


def python_markdown(text: str) -> str:
    """Markdown of GitHub as Python-Markdown needs it.

    A list starts after an empty line, and what belongs to an item of a numbered list is indented by four spaces.
    """
    lines: list[str] = []
    fenced = False
    for line in text.splitlines():
        fenced ^= bool(_FENCE.match(line))
        if not fenced:
            before = lines[-1] if lines else ""
            starts = _ITEM.match(line) and before.strip() and not _ITEM.match(before) and not before.startswith(" ")
            if starts:
                lines.append("")
            line = re.sub(r"^ {3}(?=\S)", "    ", line)
        lines.append(line)
    return "\n".join(lines) + "\n"


def navigation() -> list[dict[str, Any]]:
    """The navigation: the README, the pages of docs/, models, API packages, project pages."""
    guides = sorted(path.name for path in (ROOT / "docs").glob("*.md"))
    others = [target for target in site_paths().values() if target.endswith(".md") and target != "index.md"]
    api: dict[str, list[dict[str, str]]] = {}
    for page in api_pages():
        name = page.removeprefix("api/").removesuffix(".md")
        top, _, rest = name.partition(".")
        api.setdefault(top, []).append({rest or "top level": page})
    return [
        {"Diffusion Segment": "index.md"},
        {"Guides": guides},
        {"Models": [page for page in others if page.startswith("models/")]},
        {"API": [{name: pages} for name, pages in api.items()]},
        {"Project": [page for page in others if not page.startswith("models/")]},
    ]


def on_config(config: Any) -> Any:
    """MkDocs event: set the navigation."""
    config["nav"] = navigation()
    return config


def on_files(files: Any, *, config: Any) -> Any:
    """MkDocs event: add the pages and pictures that are not in docs/."""
    from mkdocs.structure.files import File

    for page, text in api_pages().items():
        files.append(File.generated(config, page, content=text))
    for source, target in site_paths().items():
        files.append(File.generated(config, target, abs_src_path=os.fspath(ROOT / source)))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """MkDocs event: adapt links and lists of one page."""
    path = page.file.src_uri
    if path.startswith("api/"):
        return markdown
    return python_markdown(_LINK.sub(lambda found: found[1] + site_link(found[2], path) + found[3], markdown))
