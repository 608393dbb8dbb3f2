"""No pickle is loaded, no code of a model folder runs, no network is used: checked in the source and at run time."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume_io import write_volume
from DiffusionSegmentBackend.models.model import load_model, sha256_of
from fixtures.tiny_model import coarse_phantom, write_tiny_model

MODULE = Path(__file__).resolve().parents[2] / "DiffusionSegment"
NETWORK = {
    "socket",
    "ssl",
    "http",
    "urllib",
    "ftplib",
    "smtplib",
    "requests",
    "httpx",
    "aiohttp",
    "xmlrpc",
    "telnetlib",
}
# Packages that serve a network, each imported by its own command alone.
SERVERS = {"dicom_node", "remote", "service"}
UNPICKLING = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}
CODE_EXECUTION = {"eval", "exec", "compile", "__import__"}


def violations(path: Path) -> Iterator[str]:
    """Where a file could load a pickle, run text as code, or use a network, which servers may."""
    forbidden = UNPICKLING if SERVERS.intersection(path.parts) else NETWORK | UNPICKLING
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [(node.module or "").partition(".")[0]] if node.module != "urllib.parse" else []
        yield from (f"imports {name}" for name in names if name in forbidden)
        if isinstance(node, ast.Call):
            yield from _unsafe_call(node)


def _unsafe_call(call: ast.Call) -> Iterator[str]:
    arguments = {keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords}
    called = ast.unparse(call.func)
    if called in CODE_EXECUTION:
        yield f"calls {called}"
    if called == "torch.load" and arguments.get("weights_only") is not True:
        yield "torch.load without weights_only=True"
    if called in ("np.load", "numpy.load") and arguments.get("allow_pickle") is not False:
        yield "np.load without allow_pickle=False"


def test_the_source_has_no_pickle_no_eval_and_no_network() -> None:
    violations_of = {
        path.relative_to(MODULE).as_posix(): list(violations(path)) for path in sorted(MODULE.rglob("*.py"))
    }
    assert len(violations_of) > 100
    assert {path: lines for path, lines in violations_of.items() if lines} == {}


def test_the_check_of_the_source_detects_violations(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("import pickle, socket\nfrom urllib import request\ntorch.load(p)\nnp.load(p)\nexec(t)\n")
    assert len(list(violations(file))) == 6
    file.write_text("torch.load(p, weights_only=True)\nnp.load(p, allow_pickle=False)\nmodel.eval()\nre.compile(t)\n")
    assert list(violations(file)) == []


class MaliciousObject:
    """An object whose unpickling has a side effect."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("evil",)


def test_a_pickle_instead_of_weights_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_tiny_model(tmp_path / "models")
    weights = folder / "probe.safetensors"
    weights.write_bytes(pickle.dumps(MaliciousObject()))
    raw = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    raw["networks"]["probe"]["sha256"] = sha256_of(weights)
    (folder / "model.json").write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(DiffusionSegmentError) as caught:
        load_model(str(folder), "cpu")
    assert caught.value.code is ErrorCode.WEIGHTS_CORRUPT
    assert not (tmp_path / "evil").exists()


# An audit hook of the interpreter, called for every socket, program, unpickled class and opened file.
AUDITED = """
import json, os, sys
events = []
def record(event, args):
    if event.split(".")[0] in ("socket", "urllib", "ftplib", "smtplib", "http"):
        events.append([event, str(args[1:])])
    elif event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "pickle.find_class"):
        events.append([event, str(args)[:200]])
    elif event == "open" and isinstance(args[0], str) and args[1] is not None and set(args[1]) & set("wax+"):
        events.append(["write", os.path.abspath(args[0])])
    elif event == "import" and "evil" in args[0]:
        events.append([event, args[0]])
from DiffusionSegmentBackend.commands import correct, segment
from DiffusionSegmentBackend.models import user_models
from DiffusionSegmentBackend.worker import engine
from DiffusionSegmentBackend.cli.main import main
sys.addaudithook(record)
status = main(json.loads(sys.argv[1]))
print("EVENTS " + json.dumps(events), file=sys.stderr)
sys.exit(status)
"""


def test_a_run_opens_no_socket_starts_no_program_and_writes_only_to_its_output(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "models")
    for name in ("__init__.py", "evil.py", "sitecustomize.py", "conftest.py", "setup.py"):
        (folder / name).write_text(f"import os\nos.mkdir({str(tmp_path / 'evil')!r})\n", encoding="utf-8")
    write_volume(coarse_phantom(), tmp_path / "scan.nii.gz")
    shutil.copy(tmp_path / "scan.nii.gz", folder / "scan.nii.gz")
    output = tmp_path / "results" / "output"
    command = ["segment", str(tmp_path / "scan.nii.gz"), "-o", str(output), "--model", str(folder), "--force"]
    done = subprocess.run(
        [sys.executable, "-c", AUDITED, json.dumps([*command, "--device", "cpu"])],
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(MODULE)},
    )
    assert done.returncode == 0, done.stderr
    events = json.loads(done.stderr.rpartition("EVENTS ")[2])
    written = {path for event, path in events if event == "write"}
    assert written
    allowed = (str(tmp_path / "results"), "/dev/null")
    assert [path for path in written if not path.startswith(allowed)] == []
    assert [entry for entry in events if entry[0] != "write"] == []
    assert not (tmp_path / "evil").exists()
    assert {path.name for path in (tmp_path / "results").iterdir()} == {"output"}
