"""Calibration of the intervals of volumes: scores of organs, the conformal tail, and its place in model.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.errors import DiffusionSegmentError
from DiffusionSegmentBackend.models.manifest import read_description
from DiffusionSegmentBackend.models.model import load_model
from DiffusionSegmentBackend.pipeline.options import SegmentOptions
from DiffusionSegmentBackend.pipeline.segment import segment
from DiffusionSegmentBackend.pipeline.uncertainty import volume_interval_ml
from DiffusionSegmentBackend.training.volume_calibration import calibrate_volumes, conformal_tail, containing_tail
from fixtures.evaluation_data import write_labelled_phantoms
from fixtures.tiny_model import coarse_phantom, write_tiny_model
from hypothesis import given
from hypothesis import strategies as st

_probabilities = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30)


@given(_probabilities, st.integers(1, 30))
def test_the_score_is_the_largest_tail_whose_interval_contains_the_volume(values: list[float], voxels: int) -> None:
    probability = np.array(values, np.float32)
    score = containing_tail(probability, voxels)

    def contains(tail: float) -> bool:
        low, high = volume_interval_ml(probability, 1.0, tail=tail)
        return low <= voxels <= high

    assert 0 <= score <= 0.5
    steps = np.linspace(1e-4, 0.4999, 200)
    assert not any(contains(tail) for tail in steps if tail > score + 1e-6)
    assert all(contains(tail) for tail in steps if tail < score - 1e-6)


def test_the_tail_leaves_a_tenth_of_new_volumes_outside() -> None:
    """Exchangeable scores: over many draws of 40 to calibrate with, at least 90 % of new ones are contained."""
    random = np.random.default_rng(0)
    contained = []
    for _ in range(300):
        calibration = conformal_tail(list(random.beta(2, 5, 40) / 2))
        assert calibration is not None
        contained.append(np.mean(random.beta(2, 5, 200) / 2 >= calibration.tail))
    assert 0.89 < np.mean(contained) < 0.93


def test_eight_organs_are_too_few() -> None:
    assert conformal_tail([0.1] * 8) is None
    nine = conformal_tail([0.1, 0.2, 0.3] * 3)
    assert nine is not None
    assert (nine.tail, nine.organs, nine.contained) == (0.1, 9, 1.0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five phantoms with the three organs of the tiny model."""
    folder = write_labelled_phantoms(tmp_path / "data", {str(seed): seed for seed in range(5)})
    parts = {"validation": [str(seed) for seed in range(5)]}
    (folder / "splits.json").write_text(json.dumps(parts), encoding="utf-8")
    return folder


def test_the_command_stores_a_tail_that_runs_use(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_tiny_model(tmp_path / "models")
    before = segment(coarse_phantom(), load_model(str(folder), "cpu"), SegmentOptions(force=True)).report
    assert main(["calibrate", "volumes", "--model", str(folder), "--data", str(data)]) == 0
    tail = read_description(folder).volume_tail
    assert tail != 0.05
    assert f"Tail {tail:.4f}" in capsys.readouterr().out
    after = segment(coarse_phantom(), load_model(str(folder), "cpu"), SegmentOptions(force=True)).report
    widths = [[high - low for low, high in (o.volume_interval_ml for o in r.organs)] for r in (before, after)]
    narrower = tail > 0.05
    assert widths[0] != widths[1]
    assert all((new <= old) if narrower else (new >= old) for old, new in zip(*widths, strict=True))


def test_too_few_organs_change_nothing(data: Path, tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "models")
    (data / "splits.json").write_text(json.dumps({"validation": ["0", "1"]}), encoding="utf-8")
    before = (folder / "model.json").read_bytes()
    with pytest.raises(DiffusionSegmentError, match="at least 9 are needed"):
        calibrate_volumes(folder, [data], device="cpu")
    assert (folder / "model.json").read_bytes() == before


@pytest.mark.parametrize("tail", [-0.1, 0.6])
def test_a_tail_outside_0_to_half_is_refused(tail: float, tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "models")
    raw = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    (folder / "model.json").write_text(json.dumps({**raw, "volume_tail": tail}), encoding="utf-8")
    with pytest.raises(DiffusionSegmentError, match="volume_tail must be 0 to"):
        read_description(folder)
