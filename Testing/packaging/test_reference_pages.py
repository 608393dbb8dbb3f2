"""docs/PROTOCOL.md holds every message and field, docs/FILE_FORMATS.md every key and file that a run writes."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.protocol.messages import Message, VolumeReference

DOCS = Path(__file__).resolve().parents[2] / "docs"
PROTOCOL = (DOCS / "PROTOCOL.md").read_text(encoding="utf-8")
FILES = (DOCS / "FILE_FORMATS.md").read_text(encoding="utf-8")
WORDS = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "dict[str, Any]": "object",
    "VolumeReference": "volume",
    "tuple[str, ...]": "array of strings",
    "tuple[int, ...]": "array of integers",
    "tuple[float, ...]": "array of numbers",
    "None": "null",
}
# Objects whose keys are names of organs or of stages, or are described elsewhere.
NAMED = {"timings_s", "run_timings_s"}


def subclasses(kind: type[Message]) -> Iterator[type[Message]]:
    for child in kind.__subclasses__():
        yield child
        yield from subclasses(child)


MESSAGES = sorted(set(subclasses(Message)), key=lambda kind: kind.__name__)


def section(heading: str, text: str) -> str:
    """What stands below a heading of the third level; no heading, no text."""
    found = re.search(rf"^### {re.escape(heading)}\n(.*?)(?=^#{{1,3}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"docs/PROTOCOL.md has no section {heading}"
    return found[1]


def rows(kind: Any) -> list[str]:
    """The beginning of the table's row for each field that a class adds to those of its bases."""
    own = inspect.get_annotations(kind)
    return [row(field) for field in dataclasses.fields(kind) if field.name in own and field.name != "type"]


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
    wire_name = kind.__dict__.get("type", "")
    text = section(f"`{wire_name}`" if wire_name else f"{kind.__name__} (base)", PROTOCOL)
    assert [line for line in rows(kind) if line not in text] == []
    assert len(re.findall(r"^\| `", text, re.MULTILINE)) == len(rows(kind)), "a field that the message does not have"


def test_the_fields_of_a_volume_are_on_the_page() -> None:
    assert [line for line in rows(VolumeReference) if line not in PROTOCOL] == []


def test_the_page_has_no_message_that_is_gone() -> None:
    known = {kind.__dict__.get("type", "") for kind in MESSAGES}
    assert set(re.findall(r"^### `(\w+)`$", PROTOCOL, re.MULTILINE)) <= known


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The result of a run with everything that may be asked for, and that of a correction of it."""
    from DiffusionSegmentBackend.imaging.volume import Volume
    from DiffusionSegmentBackend.imaging.volume_io import read_volume, write_volume
    from fixtures.tiny_model import coarse_phantom, write_tiny_model

    folder = tmp_path_factory.mktemp("results")
    scan, marks = folder / "ct.nii.gz", folder / "marks.nii.gz"
    write_volume(coarse_phantom(), scan)
    extras = ["--bodypart", "--alternatives", "--probabilities", "--keep-session"]
    model = ["--model", str(write_tiny_model(folder)), "--samples", "2", "--steps", "1", "--force", "--device", "cpu"]
    assert main(["segment", str(scan), "-o", str(folder / "run"), *model, *extras]) == 0
    labels = read_volume(folder / "run" / "segmentation.nii.gz")
    marked = np.zeros_like(labels.array)
    marked[10:12, 10:13, 10:13] = 2
    write_volume(Volume(marked, labels.index_to_lps), marks)
    corrected = folder / "corrected"
    command = ["correct", str(folder / "run"), "--corrections", str(marks), "-o", str(corrected)]
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
def test_every_key_of_what_else_is_written_is_on_the_page(
    results: tuple[Path, Path], tmp_path: Path, command: str
) -> None:
    folder = results[0].parent
    more = ["--point", "0,0,200"] if command == "similar" else []
    model = ["--model", str(folder / "tiny"), "--device", "cpu"]
    assert main([command, str(folder / "ct.nii.gz"), "-o", str(tmp_path / "out"), *model, *more]) == 0
    (record,) = (tmp_path / "out").glob("*.json")
    assert undocumented(keys_of(json.loads(record.read_text(encoding="utf-8")))) == set()
    assert all(path.name in FILES for path in (tmp_path / "out").iterdir())
