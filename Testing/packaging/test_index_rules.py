"""Checks of the Extensions Index, automatic ones and those of its reviewers."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "DiffusionSegment"
MAX_BYTES = 100_000_000
NETWORK = {"urllib", "http", "requests", "socket", "ftplib", "smtplib", "aiohttp", "httpx", "webbrowser", "xmlrpc"}
PROGRAMS = {".exe", ".dll", ".so", ".dylib", ".bat", ".msi", ".jar", ".whl", ".pyd"}
# Calls that only create a value; anything else at module level would run when Slicer starts.
HARMLESS = re.compile(
    # Classes, functions of the standard library, translations, and names of classes of VTK.
    r"[A-Z]\w*|_|re\.compile|np\.array|np\.diag|product|dict\.fromkeys|slicer\.vtk\w+\.Get\w+Name"
    r"|field|fields|frozenset|tuple|sorted|set|dict|list|str|float|max|min|len|range"
)
HARMLESS_METHODS = {"resolve", "with_name", "joinpath", "items", "format"}


def python_files() -> list[Path]:
    return [path for path in sorted(MODULE.rglob("*.py")) if "Testing" not in path.relative_to(MODULE).parts]


def slicer_files() -> list[Path]:
    """Files that Slicer's process reads: the module and its Slicer side."""
    return [MODULE / "DiffusionSegment.py", *sorted((MODULE / "DiffusionSegmentLib").rglob("*.py"))]


@pytest.fixture(scope="module")
def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def run_at_import(tree: ast.Module) -> Iterator[str]:
    """Statements that run at import, beyond definitions and constants."""
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.If) and "sys.path" in ast.unparse(node.test):
            continue
        if not isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            yield f"{node.lineno}: {ast.unparse(node).splitlines()[0]}"
            continue
        for call in (part for part in ast.walk(node) if isinstance(part, ast.Call)):
            name = ast.unparse(call.func)
            if not HARMLESS.fullmatch(name) and getattr(call.func, "attr", "") not in HARMLESS_METHODS:
                yield f"{call.lineno}: {name}"


def imported(path: Path) -> set[str]:
    """The packages that a file imports, anywhere in it."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules.add(node.module)
    # urllib.parse uses no network.
    return {name.partition(".")[0] for name in modules - {"urllib.parse"}}


def section(text: str, title: str) -> str:
    """The text below a heading of a Markdown file, up to the next of its rank or above."""
    match = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,2}} |\Z)", text, re.DOTALL | re.MULTILINE)
    assert match is not None, f"no section {title}"
    return match[2]


# Automatic checks of the index.


@pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="no clone")
def test_the_repository_with_its_history_is_small_enough() -> None:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, encoding="utf-8", check=True).stdout

    # What a clone transfers; the folder .git may hold some objects twice, loose and packed.
    history = int(git("rev-list", "--objects", "--disk-usage", "HEAD"))
    newest = int(git("rev-list", "--objects", "--disk-usage", "--no-walk", "HEAD"))
    names = git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    files = sum((ROOT / name).stat().st_size for name in names if name and (ROOT / name).is_file())
    assert history < MAX_BYTES
    # A clone of one commit on the disk, its files included.
    assert newest + files < MAX_BYTES


def test_names_follow_the_rules_of_the_index() -> None:
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    name = re.findall(r"project\(\s*(\w+)", text)[0]
    assert not name.startswith("Slicer")
    assert re.search(rf'EXTENSION_HOMEPAGE "https://github\.com/\w+/Slicer{name}"\)', text)


@pytest.mark.parametrize("field", ["ICONURL", "SCREENSHOTURLS", "DESCRIPTION", "DEPENDS", "CATEGORY"])
def test_each_field_is_alone_on_its_line(field: str) -> None:
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    assert len(re.findall(rf'^set\(EXTENSION_{field} "[^"\n]+"\)$', text, re.MULTILINE)) == 1


def test_every_image_is_a_png_below_3_mb() -> None:
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    addresses = re.findall(r"https://raw\.githubusercontent\.com/\w+/\w+/main/([\w/.]+)", text)
    assert len(addresses) >= 2
    for address in addresses:
        assert (ROOT / address).read_bytes().startswith(b"\x89PNG"), address
        assert (ROOT / address).stat().st_size < 3_000_000, address


def test_images_of_the_tutorial_are_small_and_have_a_palette() -> None:
    folder = ROOT / "Resources" / "Screenshots"
    pictures = [folder / "panel.png", *sorted((folder / "tutorial").glob("*.png"))]
    assert len(pictures) == 7
    # Byte 25 of a PNG is its colour type; 3 is a palette.
    assert [path.name for path in pictures if path.read_bytes()[25] != 3 or path.stat().st_size > 150_000] == []


def test_every_image_of_the_tutorial_is_in_the_readme(readme: str) -> None:
    shown = set(re.findall(r"\(Resources/Screenshots/tutorial/([^)]+)\)", section(readme, "Tutorial")))
    assert shown == {path.name for path in (ROOT / "Resources" / "Screenshots" / "tutorial").iterdir()}


def test_the_licence_has_a_standard_name() -> None:
    assert (ROOT / "LICENSE.txt").is_file()


def test_the_extension_depends_on_pytorch_if_its_code_uses_it() -> None:
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    asks = any("PyTorchUtils" in imported(path) for path in slicer_files())
    assert asks == ('set(EXTENSION_DEPENDS "PyTorch")' in text)


# Questions of the reviewers.


def test_the_description_has_short_sentences_without_unknown_abbreviations(readme: str) -> None:
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    description = re.findall(r'EXTENSION_DESCRIPTION "([^"]+)"', text)[0]
    assert description.endswith(".")
    known = {"CT", "CPU", "GPU", "MR", "MRI"}
    assert set(re.findall(r"\b[A-Z]{2,}\b", description)) <= known
    assert max(len(sentence.split()) for sentence in re.split(r"[.;] ", description)) < 30


def test_the_readme_begins_with_a_summary_and_has_images(readme: str) -> None:
    assert re.match(r"# Diffusion Segment\n\nA 3D Slicer extension that \w+", readme)
    pictures = re.findall(r"!\[[^\]]{10,}\]\(([^)]+)\)", readme)
    assert len(pictures) >= 2
    assert all((ROOT / picture).is_file() for picture in pictures)


def test_the_readme_describes_each_module(readme: str) -> None:
    modules = [path.stem for path in MODULE.glob("*.py")]
    title = re.findall(r'parent\.title = _\("([^"]+)"\)', (MODULE / f"{modules[0]}.py").read_text(encoding="utf-8"))[0]
    assert len(modules) == 1
    assert re.search(rf"module, \*\*{re.escape(title)}\*\*: it \w+", readme)


def test_the_readme_names_papers_and_how_to_cite(readme: str) -> None:
    assert len(re.findall(r"arXiv \d{4}\.\d{5}", readme)) >= 3
    assert "Please cite" in readme


def test_the_readme_has_a_tutorial_on_public_sample_data(readme: str) -> None:
    tutorial = section(readme, "Tutorial")
    assert len(re.findall(r"^\d\. ", tutorial, re.MULTILINE)) >= 4
    assert "Sample Data" in tutorial
    assert "registerSampleData" in (MODULE / "DiffusionSegment.py").read_text(encoding="utf-8")


def test_the_readme_names_the_licence_and_the_limits_of_use(readme: str) -> None:
    assert "Apache-2.0" in section(readme, "Licence")
    assert "not for diagnosis" in readme


def test_only_servers_and_the_client_use_the_network() -> None:
    using = {path.parent.name for path in python_files() if imported(path) & NETWORK}
    assert using == {"dicom_node", "remote", "service"}


def test_only_sample_data_have_urls() -> None:
    files = [path.name for path in slicer_files() if re.search(r"https?://", path.read_text(encoding="utf-8"))]
    assert files == ["sample_data.py"]


def test_no_executables_are_included() -> None:
    assert [path for path in MODULE.rglob("*") if path.suffix.lower() in PROGRAMS] == []


def test_no_statements_run_at_import() -> None:
    statements = [
        f"{path.relative_to(MODULE)}:{text}"
        for path in slicer_files()
        for text in run_at_import(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert statements == []


def test_packages_are_installed_by_one_function_and_torch_by_its_extension() -> None:
    pattern = re.compile(r"pip_install|pip_ensure|-m.{0,4}pip\b|pip\.main|light.the.torch|ensurepip")
    files = [path.name for path in python_files() if pattern.search(path.read_text(encoding="utf-8"))]
    assert files == ["installation.py"]
    text = (MODULE / "DiffusionSegmentLib" / "installation.py").read_text(encoding="utf-8")
    assert "PyTorchUtils.PyTorchUtilsLogic().installTorch(" in text


def test_the_readme_describes_the_files_on_disk_and_how_to_remove_them(readme: str) -> None:
    (paragraph,) = re.findall(r"What is kept on disk, and how to remove it: (.*?)\n\n", readme, re.DOTALL)
    folders = (MODULE / "DiffusionSegmentBackend" / "models" / "folders.py").read_text(encoding="utf-8")
    for folder in (".local/share", "%APPDATA%", "Library/Application Support"):
        assert folder in paragraph
        assert folder in folders
    assert "/DiffusionSegment" in paragraph


@pytest.mark.parametrize(
    "line",
    [
        "print('hello')",
        "for n in range(3):\n    pass",
        "x = subprocess.run(['ls'])",
        "x = slicer.util.pip_install('torch')",
        "try:\n    import torch\nexcept ImportError:\n    install()",
        "with open('x') as f:\n    pass",
        "if True:\n    start()",
    ],
)
def test_the_rule_on_imports_detects_a_violation(line: str) -> None:
    assert list(run_at_import(ast.parse(line))) != []
