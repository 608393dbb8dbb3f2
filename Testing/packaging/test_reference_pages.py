"""The documentation lists every message, key and file, and mentions no Python file that does not exist."""

from __future__ import annotations

import dataclasses
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.protocol.messages import PROTOCOL_VERSION, Message, VolumeReference

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PROTOCOL = (DOCS / "PROTOCOL.md").read_text(encoding="utf-8")
FILES = (DOCS / "FILE_FORMATS.md").read_text(encoding="utf-8")
WORDS = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "dict[str, Any]": "object",
    "Report": "object",
    "Examination": "object",
    "FineTuningReport": "object",
    "SelfTestFindings": "object",
    "ReviewState": "object",
    "ReviewedSegmentation": "object",
    "VolumeReference": "volume",
    "tuple[str, ...]": "array of strings",
    "tuple[int, ...]": "array of integers",
    "tuple[float, ...]": "array of numbers",
    "tuple[float, float, float]": "three numbers",
    "tuple[AlternativesOfRegion, ...]": "array of objects",
    "None": "null",
}
# Objects whose keys are names of organs or of stages, or are described elsewhere.
NAMED = {"timings_s", "run_timings_s"}
PAGES = sorted({ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.glob("*.md")})
# Folders in which a page may leave out the beginning of a path.
PACKAGES = ("DiffusionSegmentBackend", "DiffusionSegmentLib", "DiffusionSegmentResearch")
BELOW = ("", "Testing", "DiffusionSegment", *(f"DiffusionSegment/{package}" for package in PACKAGES))


def subclasses(kind: type[Message]) -> Iterator[type[Message]]:
    for child in kind.__subclasses__():
        yield child
        yield from subclasses(child)


MESSAGES = sorted(set(subclasses(Message)), key=lambda kind: kind.__name__)


def sections(text: str) -> dict[str, str]:
    """The text below each heading of the third level, by the anchor of the heading."""
    parts = re.findall(r"^### ([^\n]+)\n(.*?)(?=^#{1,3} |\Z)", text, re.MULTILINE | re.DOTALL)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-"): body for heading, body in parts}


def anchor_of(kind: type[Message]) -> str:
    return kind.__dict__.get("type", "") or f"{kind.__name__.lower()}-base"


def documented_rows(anchor: str, parts: dict[str, str]) -> set[str]:
    """Name, type and default in the table of a section, and in those of the messages that it links to."""
    body = parts[anchor]
    bases = {link for link in re.findall(r"\]\(#([\w-]+)\)", body.partition("\n|")[0]) if link in parts}
    own = {match[0] for match in re.finditer(r"^\| `\w+` \| [^|]+ \| [^|]+ \|", body, re.MULTILINE)}
    return own.union(*(documented_rows(base, parts) for base in bases))


def rows(kind: Any) -> list[str]:
    """The beginning of the table's row for each field of a class, inherited ones included."""
    return [row(field) for field in dataclasses.fields(kind)]


def row(field: dataclasses.Field[Any]) -> str:
    types = " or ".join(WORDS[name] for name in str(field.type).split(" | "))
    if field.default is not dataclasses.MISSING:
        default = f"`{json.dumps(field.default)}`"
    elif field.default_factory is not dataclasses.MISSING:
        default = f"`{json.dumps(field.default_factory())}`"
    else:
        default = "required"
    return f"| `{field.name}` | {types} | {default} |"


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_every_message_has_a_section_with_its_fields(kind: type[Message]) -> None:
    assert documented_rows(anchor_of(kind), sections(PROTOCOL)) == set(rows(kind))


def test_the_page_names_the_version_of_the_protocol() -> None:
    assert f"version {PROTOCOL_VERSION}." in PROTOCOL.split("\n\n")[1]
    assert f"now {PROTOCOL_VERSION} |" in PROTOCOL


def test_the_fields_of_a_volume_are_on_the_page() -> None:
    assert [line for line in rows(VolumeReference) if line not in PROTOCOL] == []


def test_the_page_has_no_message_that_does_not_exist() -> None:
    known = {kind.__dict__.get("type", "") for kind in MESSAGES}
    assert set(re.findall(r"^### `(\w+)`$", PROTOCOL, re.MULTILINE)) <= known


def test_every_package_is_in_the_table_of_the_architecture() -> None:
    page = (DOCS / "ARCHITECTURE.md").read_text(encoding="utf-8")
    inits = [path.parent for name in PACKAGES for path in (ROOT / "DiffusionSegment" / name).glob("*/__init__.py")]
    rows = {path.name if path.parent.name == PACKAGES[0] else f"{path.parent.name}.{path.name}" for path in inits}
    assert rows <= set(re.findall(r"^\| `([\w.]+)` \|", page, re.MULTILINE))


def missing_files(text: str) -> set[str]:
    """Paths of Python files that a page mentions and that do not exist; a name without folder may be anywhere."""
    mentioned = set(re.findall(r"[\w./-]*\w\.py\b", text))
    names = {path.name for folder in ("DiffusionSegment", "Testing", "docs") for path in (ROOT / folder).rglob("*.py")}
    return {
        path
        for path in mentioned
        if not (path in names if "/" not in path else any((ROOT / folder / path).is_file() for folder in BELOW))
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_mentions_exists(page: Path) -> None:
    assert missing_files(page.read_text(encoding="utf-8")) == set()


def test_a_missing_file_is_detected() -> None:
    text = "`pipeline/review.py`, `review.py`, `pipeline/reviews.py`, `Testing/packaging/test_imports.py`, `reviews.py`"
    assert missing_files(text) == {"pipeline/reviews.py", "reviews.py"}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The result of a run with all optional outputs, and that of a correction of it."""
    from DiffusionSegmentBackend.imaging.volume import Volume
    from DiffusionSegmentBackend.imaging.volume_io import read_volume, write_volume
    from fixtures.tiny_model import coarse_phantom, write_tiny_model

    folder = tmp_path_factory.mktemp("results")
    scan, scribbles = folder / "ct.nii.gz", folder / "scribbles.nii.gz"
    write_volume(coarse_phantom(), scan)
    extras = ["--bodypart", "--alternatives", "--probabilities", "--keep-session"]
    model = ["--model", str(write_tiny_model(folder)), "--samples", "2", "--steps", "1", "--force", "--device", "cpu"]
    assert main(["segment", str(scan), "-o", str(folder / "run"), *model, *extras]) == 0
    labels = read_volume(folder / "run" / "segmentation.nii.gz")
    array = np.zeros_like(labels.array)
    array[10:12, 10:13, 10:13] = 2
    write_volume(Volume(array, labels.index_to_lps), scribbles)
    corrected = folder / "corrected"
    command = ["correct", str(folder / "run"), "--corrections", str(scribbles), "-o", str(corrected)]
    assert main([*command, "--keep-session", "--alternatives"]) == 0
    return folder / "run", corrected


def keys_of(raw: Any) -> Iterator[str]:
    """Every key of an object and of what it holds."""
    if isinstance(raw, dict):
        for key, value in raw.items():
            yield key
            if key not in NAMED:
                yield from keys_of(value)
    elif isinstance(raw, list):
        for value in raw:
            yield from keys_of(value)


def undocumented(keys: Iterator[str]) -> set[str]:
    return {key for key in keys if f"`{key}`" not in FILES}


def test_every_key_of_a_report_is_on_the_page(results: tuple[Path, Path]) -> None:
    reports = [json.loads((folder / "report.json").read_text(encoding="utf-8")) for folder in results]
    assert all(report["organs"] and report["review"] for report in reports)
    assert reports[1]["corrections"][0]["organs"], "the correction changed nothing; no key of an organ was seen"
    assert {key for report in reports for key in undocumented(keys_of(report))} == set()


def test_every_stage_of_a_run_is_on_the_page(results: tuple[Path, Path]) -> None:
    report = json.loads((results[0] / "report.json").read_text(encoding="utf-8"))
    (timings,) = re.findall(r"^\| `timings_s` .*$", FILES, re.MULTILINE)
    assert {stage for stage in report["timings_s"] if f"`{stage}`" not in timings} == set()


def test_every_file_of_a_result_is_on_the_page(results: tuple[Path, Path]) -> None:
    names = {path.relative_to(folder) for folder in results for path in folder.rglob("*") if path.is_file()}
    patterns = {"alternatives": "alternatives/N.nii.gz", "probabilities": "probabilities/ORGAN.nii.gz"}
    assert undocumented(patterns.get(name.parent.name, name.name) for name in names) == set()


def test_the_session_file_is_on_the_page(results: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(results[0] / "session.zip") as file:
        header = json.loads(file.read("session.json"))
        entries = {re.sub(r"/\d+$", "", name) for name in file.namelist()}
    assert undocumented(iter(header)) == set()
    assert {
        entry for entry in entries if not re.search(rf"^\| `{re.escape(entry)}(/[CAN])?` \|", FILES, re.MULTILINE)
    } == set()


@pytest.mark.parametrize("command", ["features", "similar"])
def test_every_key_of_the_other_outputs_is_on_the_page(
    results: tuple[Path, Path], tmp_path: Path, command: str
) -> None:
    folder = results[0].parent
    more = ["--point", "0,0,200"] if command == "similar" else []
    model = ["--model", str(folder / "tiny"), "--device", "cpu"]
    assert main([command, str(folder / "ct.nii.gz"), "-o", str(tmp_path / "out"), *model, *more]) == 0
    (record,) = (tmp_path / "out").glob("*.json")
    assert undocumented(keys_of(json.loads(record.read_text(encoding="utf-8")))) == set()
    assert all(path.name in FILES for path in (tmp_path / "out").iterdir())
