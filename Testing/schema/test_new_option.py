"""A run option is defined once: command line, messages, session key, provenance and panel follow from it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = Path(__file__).resolve().parents[2] / "DiffusionSegment"
TESTING = Path(__file__).resolve().parents[1]
NEW = '    sharpness: int | None = option(None, "an option of the test (default: 3)", metavar="N")\n'
BEFORE = "    bodypart: bool = option("

PROBE = """
import io, json, contextlib
from DiffusionSegmentBackend.cli.main import build_parser
from DiffusionSegmentBackend.protocol.messages import Segment, VolumeReference, decode, encode
from DiffusionSegmentBackend.schema.model_manifest import Defaults
from DiffusionSegmentBackend.schema.provenance import Provenance, Software
from DiffusionSegmentBackend.schema.run_options import RunOptions, run_options_of, run_plan

parsed = build_parser().parse_args(["segment", "ct.nii", "-o", "out", "--sharpness", "7"])
volume = VolumeReference(path="v.raw", shape=(1, 1, 1), dtype="int16", ijk_to_lps=(1.0,) * 16)
message = decode(encode(Segment(id="1", output_folder="o", volume=volume, sharpness=5)))
plan = run_plan(RunOptions(sharpness=2), Defaults())
provenance = Provenance(software=Software(software="s", version="1", sha256="0"), plan=plan)
print(json.dumps({
    "parsed": run_options_of(parsed).sharpness,
    "message": run_options_of(message).sharpness,
    "key": dict(plan.session_key).get("sharpness"),
    "written": provenance.to_json().get("sharpness"),
    "read": Provenance.from_json(provenance.to_json()).plan.sharpness,
}))
"""
PANEL = """
import json
from pythonqt.slicer_application import Application
Application()
from DiffusionSegmentLib.parameters import Parameters, runOptions
import slicer
node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")
parameters = Parameters(node)
before = runOptions(parameters).sharpness
parameters.sharpness = 4
print(json.dumps({"before": before, "after": runOptions(parameters).sharpness}))
"""


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the module with one more field in `RunOptions`."""
    module = tmp_path_factory.mktemp("changed") / "DiffusionSegment"
    shutil.copytree(MODULE, module, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
    path = module / "DiffusionSegmentBackend" / "schema" / "run_options.py"
    text = path.read_text(encoding="utf-8")
    assert text.count(BEFORE) == 1
    path.write_text(text.replace(BEFORE, NEW + BEFORE), encoding="utf-8")
    return module


def run(module: Path, code: str) -> dict[str, int | None]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(module), str(TESTING)))}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_command_line_messages_session_key_and_provenance_have_it(changed: Path) -> None:
    assert run(changed, PROBE) == {"parsed": 7, "message": 5, "key": 2, "written": 2, "read": 2}


def test_the_parameter_node_of_the_panel_has_it(changed: Path) -> None:
    assert run(changed, PANEL) == {"before": None, "after": 4}
