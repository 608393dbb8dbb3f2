"""A small part of the fuzzing, tests of its tools, and regression tests of its findings."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume, check_geometry, model_grid
from DiffusionSegmentBackend.imaging.volume_io import modality_of, read_volume, write_volume
from DiffusionSegmentBackend.models.manifest import read_description
from DiffusionSegmentBackend.models.model import find_model, load_model, load_network, save_network
from DiffusionSegmentBackend.networks.bodypart import BodyPartRegressor
from DiffusionSegmentBackend.protocol.messages import decode
from fixtures.tiny_model import CHANNELS, write_tiny_model

from . import fuzz_process
from .fuzz import SHARES, Counts, fuzz, main
from .fuzz_process import TARGETS, content_of, outcome
from .mutation import damaged, damaged_text
from .scan_targets import small_scan
from .target import Content

SLICE = 2000


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_inputs_are_accepted_or_refused(name: str) -> None:
    counts = fuzz(name, seed=7, numbers=range(round(SLICE * SHARES[name])))
    assert counts.failures == []
    assert counts.accepted
    assert counts.refused


def test_the_shares_sum_to_one() -> None:
    assert set(SHARES) == set(TARGETS)
    assert sum(SHARES.values()) == pytest.approx(1)


def test_inputs_depend_only_on_the_seed() -> None:
    data = bytes(range(256)) * 8
    inputs = [[damaged(Random(f"{seed} {n}"), data, head=300) for n in range(50)] for seed in (1, 1, 2)]
    assert inputs[0] == inputs[1] != inputs[2]
    assert sum(one != data for one in inputs[0]) > 40
    assert damaged_text(Random(3), {"a": [1, 2]}) == damaged_text(Random(3), {"a": [1, 2]})


class Faulty:
    """A target with a fault that must be detected."""

    allowed = frozenset({"input"})

    def __init__(self, sandbox: Path) -> None:
        self._sandbox = sandbox

    def make(self, rng: Random) -> Content:
        return {"input": b""}

    def consume(self, content: Content) -> None:
        raise NotImplementedError


def bug(sandbox: Path) -> None:
    raise ZeroDivisionError("a bug")


def two_lines(sandbox: Path) -> None:
    error = DiffusionSegmentError(ErrorCode.OPTION, "one line")
    error.message = "one line\nand another"
    raise type("Careless", (DiffusionSegmentError,), {"__str__": lambda self: "a\nb"})(ErrorCode.OPTION, "a")


def stray(sandbox: Path) -> None:
    (sandbox / "stray").touch()


def escape(sandbox: Path) -> None:
    (sandbox.parent / "escaped").touch()


@pytest.mark.parametrize(
    ("fault", "words"),
    [(bug, "a bug"), (two_lines, "one plain line"), (stray, "stray"), (escape, "escaped")],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_each_fault_is_detected(tmp_path: Path, fault: Callable[[Path], None], words: str) -> None:
    sandbox = tmp_path / "sandbox"
    sandbox.mkdir()
    target = Faulty(sandbox)
    target.consume = lambda _: fault(sandbox)  # type: ignore[method-assign]
    kind, reason = outcome(target, {}, sandbox)
    assert kind == "failed"
    assert words in reason


FATAL = """
import os, sys, time
sys.argv = ["fuzz_process", *sys.argv[2:]]
from reliability import fuzz_process
class Fatal:
    allowed = frozenset()
    def __init__(self, sandbox): self.number = 0
    def make(self, rng): return {}
    def consume(self, content):
        self.number += 1
        if self.number == 2: os.abort()
fuzz_process.TARGETS["nifti"] = Fatal
fuzz_process.main()
"""


def test_a_crash_is_one_failure_and_the_next_inputs_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "python"
    python = sys.executable
    script.write_text(f"#!/bin/sh\nshift\nexec '{python}' -c '{FATAL}' \"$@\"\n", encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(script))
    counts = fuzz("nifti", seed=1, numbers=range(5))
    assert [failure["number"] for failure in counts.failures] == [1, 3]
    assert "ended with -6" in counts.failures[0]["reason"]
    assert (counts.tried, counts.accepted) == (5, 3)


def test_the_command_counts_and_stores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "counts.json"
    assert main(["--count", "20", "--target", "nrrd", "--failures", str(tmp_path / "f"), "-o", str(output)]) == 0
    counts = json.loads(output.read_text(encoding="utf-8"))
    assert counts["targets"]["nrrd"]["tried"] == 20
    assert "20 tried" in capsys.readouterr().out


def test_counts_contain_the_maximum_time_and_memory() -> None:
    counts = Counts()
    counts.add({"number": 0, "kind": "refused", "reason": "OPTION", "peak_kb": 2048}, 0.5)
    counts.add({"number": 1, "kind": "failed", "reason": "why"}, 0.1)
    assert (counts.slowest_s, counts.peak_mb) == (0.5, 2.0)
    assert counts.as_json()["failed"] == 1
    assert fuzz_process.MEMORY_BYTES == 2 * 1024**3
    assert time.monotonic() > 0
    assert content_of(Faulty(Path()), "nifti", 1, 1) == {"input": b""}


# Regression tests of faults that fuzzing detected.


def replaced(path: Path, old: bytes, new: bytes) -> Path:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))
    return path


HEADERS: list[tuple[str, bytes, bytes]] = [
    ("nrrd", b"dimension: 3", b"dimension: " + b"a" * 5000),
    ("nrrd", b"dimension: 3", b"dimension: 3\ndimension: 3"),
    ("nrrd", b"sizes: 8 7 6", b"sizes: 8 7 -6"),
    ("nrrd", b"sizes: 8 7 6", b"sizes: 8 7 6 6"),
    ("nrrd", b"encoding: ", b"data file: /dev/stdin\nencoding: "),
    ("nrrd", b"encoding: ", b"data file: ../scan.raw\nencoding: "),
    ("mha", b"NDims = 3", b"NDims = 3.4e+38"),
    ("mha", b"ElementSpacing = 4 3.5", b"ElementSpacing = 4 3.5000-1e+30"),
    ("mha", b"DimSize = 8 7 6", b"DimSize = 8 7"),
    ("mha", b"0 0 0 1", b"0 1.7e+308 0 1"),
    ("nrrd", b"space origin: (-120", b"space origin: (-1e300"),
    ("mha", b"ElementDataFile = LOCAL", b"ElementDataFile = /dev/zero"),
    ("mha", b"ElementDataFile = LOCAL", b"ElementDataFile = LIST"),
]


@pytest.mark.parametrize(("suffix", "old", "new"), HEADERS, ids=range(len(HEADERS)))
def test_headers_that_crash_itk_are_refused(tmp_path: Path, suffix: str, old: bytes, new: bytes) -> None:
    path = tmp_path / f"scan.{suffix}"
    write_volume(small_scan(), path)
    assert read_volume(path).array.shape == (6, 7, 8)
    replaced(path, old, new)
    with pytest.raises(DiffusionSegmentError) as caught:
        read_volume(path)
    assert caught.value.code is ErrorCode.INPUT_UNREADABLE
    assert modality_of(path) is None


def test_a_png_is_refused_as_a_scan(tmp_path: Path) -> None:
    (tmp_path / "scan.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(DiffusionSegmentError, match="is a picture"):
        read_volume(tmp_path / "scan.png")


@pytest.mark.parametrize("matrix", [np.diag([1e30, 1, 1, 1]), np.diag([5000.0, 1, 1, 1])])
def test_voxels_larger_than_a_patient_are_refused(matrix: np.ndarray) -> None:
    with pytest.raises(DiffusionSegmentError, match="larger than a metre"):
        check_geometry(matrix)


def test_a_position_beyond_float32_is_refused_when_writing(tmp_path: Path) -> None:
    far = np.eye(4)
    far[:3, 3] = 1e9
    with pytest.raises(DiffusionSegmentError, match="kilometre"):
        write_volume(Volume(np.zeros((3, 3, 3), np.uint8), far), tmp_path / "far.nii")


def test_a_scan_that_is_too_large_is_refused_before_memory_is_allocated() -> None:
    long = Volume(np.zeros((50, 50, 50), np.uint8), np.diag([400.0, 400.0, 400.0, 1.0]))
    with pytest.raises(DiffusionSegmentError, match="Crop the scan"):
        model_grid(long, spacing=(3.0, 3.0, 3.0))


@pytest.mark.parametrize("side", [1, 2, 16, 17])
def test_a_scan_smaller_than_the_networks_stride_gets_coordinates(side: int) -> None:
    import torch

    regressor = BodyPartRegressor().eval()
    with torch.inference_mode():
        coordinates = regressor(torch.zeros(1, 1, side, 1, 2))
    assert coordinates.shape == (1, 3, side, 1, 2)
    assert torch.isfinite(coordinates).all()


def change_manifest(folder: Path, **changed: Any) -> None:
    path = folder / "model.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**raw, **changed}), encoding="utf-8")


MANIFESTS: list[dict[str, Any]] = [
    {"defaults": {"samples": {}}},
    {"defaults": {"steps": "2"}},
    {"defaults": {"abar_start": float("nan")}},
    {"defaults": {"smallest_piece": 1.5}},
    {"defaults": {"smallest_piece": -0.1}},
    {"anatomy": {"min_organ_ml": []}},
    {"anatomy": {"body_z_mm": [0, float("inf")]}},
    {"spacing_mm": [float("nan")] * 3},
    {"spacing_mm": [1e-9, 1, 1]},
    {"window": [0, 1e999]},
    {"networks": {"probe": {"file": "a", "sha256": "", "model": 0.0}}},
    {"networks": {"probe": {"file": "a", "sha256": "", "model": ""}}},
    {"base": {"name": 1, "version": "1", "weights_sha256": ""}},
    {"labels": [{"value": n + 1, "name": "a", "title": "A"} for n in range(255)]},
]


@pytest.mark.parametrize("changed", MANIFESTS, ids=range(len(MANIFESTS)))
def test_manifests_with_values_of_other_types_are_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    folder = write_tiny_model(tmp_path)
    change_manifest(folder, **changed)
    with pytest.raises(DiffusionSegmentError) as caught:
        read_description(folder)
    assert caught.value.code is ErrorCode.WEIGHTS_CORRUPT


@pytest.mark.parametrize("channels", [[], [4], [10**9, 10**9], [4, "4"], [0, 0], [4] * 300])
def test_an_architecture_that_does_not_match_the_weights_allocates_no_memory(
    tmp_path: Path, channels: list[Any]
) -> None:
    folder = write_tiny_model(tmp_path)
    raw = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    raw["networks"]["refiner"]["architecture"]["feature_channels"] = channels
    change_manifest(folder, networks=raw["networks"])
    with pytest.raises(DiffusionSegmentError) as caught:
        load_model(str(folder), "cpu")
    assert caught.value.code is ErrorCode.WEIGHTS_CORRUPT


def test_weights_with_nan_are_refused(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path)
    probe = load_network(read_description(folder), "probe")
    probe.head.bias.data[1] = float("nan")  # type: ignore[union-attr, operator, index]
    save_network(folder, "probe", probe, architecture={"channels": CHANNELS, "classes": 4, "hidden": 8})
    with pytest.raises(DiffusionSegmentError) as caught:
        load_model(str(folder), "cpu")
    assert caught.value.code is ErrorCode.WEIGHTS_CORRUPT


def test_invalid_file_names_are_reported_as_unknown_models() -> None:
    for name in ("a" * 5000, "\0", "\u202e\x7f"):
        with pytest.raises(DiffusionSegmentError, match="There is no model") as caught:
            find_model(name)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 1000


VOLUME = {"path": "v", "shape": [1, 1, 1], "dtype": "uint8", "ijk_to_lps": [0.0] * 16}
SEGMENT = {"type": "segment", "id": "1", "output_folder": "o", "volume": VOLUME}
MESSAGES: list[dict[str, Any]] = [
    {"id": ["1"]},
    {"id": None},
    {"output_folder": 5},
    {"output_folder": "a\0b"},
    {"output_folder": "\ud800"},
    {"seed": "1"},
    {"seed": True},
    {"samples": 1.5},
    {"organs": "liver"},
    {"organs": [1]},
    {"force": "yes"},
    {"volume": None},
    {"volume": {**VOLUME, "shape": ["1", 1, 1]}},
    {"volume": {**VOLUME, "ijk_to_lps": [float("nan")] * 16}},
    {"volume": {**VOLUME, "path": 7}},
]


@pytest.mark.parametrize("changed", MESSAGES, ids=range(len(MESSAGES)))
def test_messages_with_values_of_other_types_are_refused(changed: dict[str, Any]) -> None:
    decode(json.dumps(SEGMENT))
    with pytest.raises(DiffusionSegmentError, match="not understood") as caught:
        decode(json.dumps({**SEGMENT, **changed}))
    assert caught.value.code is ErrorCode.PROTOCOL
