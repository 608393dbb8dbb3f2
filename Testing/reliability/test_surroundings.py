"""Unusual users, consoles, names and streams: the result is the same, and libraries print nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import nibabel
import numpy as np
import pytest
from DiffusionSegmentBackend.imaging.volume_io import write_volume
from fixtures.tiny_model import coarse_phantom, write_tiny_model

ENTRY = Path(__file__).resolve().parents[2] / "DiffusionSegment" / "DiffusionSegmentBackend" / "__main__.py"
linux = pytest.mark.skipif(sys.platform != "linux", reason="names of bytes and shells are those of Linux")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that every user may read and write, unlike that of pytest, with a scan and a model."""
    with tempfile.TemporaryDirectory(prefix="surroundings-") as name:
        path = Path(name)
        write_volume(coarse_phantom(), path / "scan.nii")
        write_tiny_model(path)
        path.chmod(0o777)
        yield path


def run(
    arguments: Sequence[str | bytes | Path],
    *,
    prefix: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    without: Sequence[str] = (),
    shell: str = "",
) -> subprocess.CompletedProcess[bytes]:
    """Run the command line; `shell` redirects its streams."""
    kept = {name: value for name, value in os.environ.items() if name not in without} | dict(environment or {})
    command = [*prefix, sys.executable, str(ENTRY), *arguments]
    if shell:
        command = ["sh", "-c", f'"$@" {shell}', "sh", *command]  # type: ignore[list-item]
    return subprocess.run(command, capture_output=True, env=kept, check=False, timeout=300)  # type: ignore[arg-type]


def segment(folder: Path, output: Path | bytes, scan: Path | bytes | None = None) -> list[str | bytes | Path]:
    return ["segment", scan or folder / "scan.nii", "-o", output, "--model", folder / "tiny", "--force", "--quiet"]


def labels_of(folder: Path) -> np.ndarray:
    return np.asarray(nibabel.load(folder / "segmentation.nii.gz").dataobj)


@linux
def test_a_user_without_passwd_entry_and_home_in_a_notebooks_environment(folder: Path) -> None:
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root may become another user")
    user = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]
    if subprocess.run([*user, "test", "-r", str(ENTRY)], check=False).returncode:
        pytest.skip("this checkout lies in a folder that another user cannot read")
    report = folder / "report.pdf"
    notebook = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    options = {"prefix": user, "environment": notebook, "without": ("HOME", "USER", "LOGNAME")}
    ended = run(segment(folder, folder / "other user"), **options)  # type: ignore[arg-type]
    assert (ended.returncode, ended.stderr) == (0, b"")
    call: list[str | bytes | Path] = ["report", folder / "other user", "--scan", folder / "scan.nii", "-o", report]
    ended = run(call, **options)  # type: ignore[arg-type]
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert report.read_bytes().startswith(b"%PDF")


@linux
@pytest.mark.parametrize(
    ("shell", "status"),
    [(">&- 2>&-", 0), ("2>&1 | true", 0)],
)
def test_the_result_is_written_with_closed_or_unread_streams(folder: Path, shell: str, status: int) -> None:
    output = folder / f"streams {abs(hash(shell))}"
    ended = run(segment(folder, output), shell=shell)
    assert ended.returncode == status
    assert ended.stderr == b""
    assert json.loads((output / "report.json").read_text(encoding="utf-8"))["organs"]
    assert labels_of(output).shape == nibabel.load(folder / "scan.nii").shape


@linux
def test_names_that_are_not_utf_8_and_a_console_of_another_encoding(folder: Path) -> None:
    scan = os.fsencode(folder) + b"/CT \xe4\xff \xe6\x97\xa5\xe6\x9c\xac.nii"
    shutil.copy(folder / "scan.nii", scan)
    output = os.fsencode(folder) + b"/out \xff"
    console = {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    ended = run(segment(folder, output, scan), environment=console)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"Written to" in ended.stdout
    for name in (b"report.html", b"report.pdf"):
        report = output + b" " + name
        ended = run(["report", output, "--scan", scan, "-o", report], environment=console)
        assert (ended.returncode, ended.stderr) == (0, b"")
        assert os.path.getsize(report) > 1000
    assert "日本" in Path(os.fsdecode(output + b" report.html")).read_text(encoding="utf-8")
    ended = run(["report", output + b"\xfe", "--scan", scan, "-o", report], environment=console)
    assert ended.returncode == 2
    assert ended.stderr.startswith(b"INPUT_MISSING")
    assert ended.stderr.count(b"\n") == 1


@linux
def test_names_as_long_as_a_file_system_allows(folder: Path) -> None:
    letter = "日"
    count = 250 // len(letter.encode())
    scan = folder / (letter * (count - 2) + ".nii")
    shutil.copy(folder / "scan.nii", scan)
    ended = run(segment(folder, folder / (letter * count), scan))
    assert (ended.returncode, ended.stderr) == (0, b"")
    report = folder / (letter * (count - 3) + ".html")
    ended = run(["report", folder / (letter * count), "--scan", scan, "-o", report])
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert report.is_file()
    ended = run(segment(folder, folder / "out", folder / (letter * 300)))
    assert ended.returncode == 2
    assert ended.stderr.startswith(b"INPUT_UNREADABLE")


def unusual_header(folder: Path) -> Path:
    """A header about which nibabel and ITK print warnings."""
    image = nibabel.load(folder / "scan.nii")
    image.header["pixdim"][1:4] = 1
    data = bytearray((folder / "scan.nii").read_bytes())
    data[76:108] = image.header["pixdim"].tobytes()
    data[252:254] = b"\0\0"
    data[70:72] = (4).to_bytes(2, "little")
    data[72:74] = (99).to_bytes(2, "little")
    (folder / "unusual.nii").write_bytes(bytes(data))
    return folder / "unusual.nii"


@pytest.mark.parametrize("make", [unusual_header])
def test_libraries_print_nothing_unless_verbose(folder: Path, make: Callable[[Path], Path]) -> None:
    scan = make(folder)
    ended = run(["--threads", "1", *segment(folder, folder / "quiet", scan)])
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"Note: The header's pixdim" in ended.stdout
    ended = run(["--verbose", *segment(folder, folder / "verbose", scan)])
    assert ended.returncode == 0
    assert b"DiffusionSegmentBackend.imaging.volume_io: read" in ended.stderr
    assert b"DiffusionSegmentBackend.pipeline.memory: needs" in ended.stderr


def test_an_unexpected_error_is_one_line_and_a_traceback_if_verbose(folder: Path) -> None:
    code = (
        "import sys; from DiffusionSegmentBackend.cli import installation, main;"
        "installation._run_models = lambda _: 1 / 0; sys.exit(main.main(sys.argv[1:]))"
    )
    path = {**os.environ, "PYTHONPATH": str(ENTRY.parents[1])}
    plain = subprocess.run(
        [sys.executable, "-c", code, "models"], capture_output=True, text=True, env=path, check=False
    )
    assert (plain.returncode, plain.stdout) == (1, "")
    assert plain.stderr.startswith("INTERNAL: An unexpected error occurred (ZeroDivisionError). Run again with --ver")
    assert plain.stderr.count("\n") == 1
    verbose = subprocess.run(
        [sys.executable, "-c", code, "--verbose", "models"], capture_output=True, text=True, env=path, check=False
    )
    assert "Traceback" in verbose.stderr


def test_the_command_line_adds_a_hint_to_force_a_run(folder: Path) -> None:
    volume = coarse_phantom()
    write_volume(type(volume)(np.abs(volume.array), volume.index_to_lps), folder / "mr.nii")
    call = [part for part in segment(folder, folder / "none", folder / "mr.nii") if part != "--force"]
    ended = run(call)
    assert ended.returncode == 2
    assert ended.stderr.startswith(b"MODALITY")
    assert ended.stderr.endswith(b"To go on anyway, run again with --force.\n")
