"""Averaging of training runs: mean weights, other networks are refused, and no incomplete model is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.models.manifest import read_description
from DiffusionSegmentBackend.models.model import find_model, load_network, save_network, share_network
from DiffusionSegmentBackend.networks.backbone import Backbone
from DiffusionSegmentBackend.networks.probe import Probe

CHANNELS = (8, 16)


def stored_model(folder: Path, *, seed: int, channels: tuple[int, ...] = CHANNELS) -> Path:
    """A model with an untrained backbone and probe."""
    raw = json.loads((find_model("abdomen-ct") / "model.json").read_text(encoding="utf-8"))
    folder.mkdir()
    described = {**raw, "name": folder.name, "networks": {}, "quality": {}, "channels": list(channels)}
    (folder / "model.json").write_text(json.dumps(described), encoding="utf-8")
    torch.manual_seed(seed)
    backbone, probe = Backbone(channels), Probe(channels, 14)
    save_network(folder, "backbone", backbone, architecture=backbone.architecture)
    save_network(folder, "probe", probe, architecture={"channels": list(channels), "classes": 14})
    return folder


def weights_of(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_network(read_description(folder), name).state_dict()


@pytest.mark.parametrize("name", ["backbone", "probe"])
def test_every_weight_is_the_mean_of_the_runs(tmp_path: Path, name: str) -> None:
    runs = [stored_model(tmp_path / f"run{n}", seed=n) for n in range(3)]
    goal = stored_model(tmp_path / "goal", seed=9)
    assert main(["average", *map(str, runs), "-o", str(goal)]) == 0
    states = [weights_of(run, name) for run in runs]
    for key, value in weights_of(goal, name).items():
        assert torch.allclose(value, sum(s[key] for s in states) / 3, atol=2e-3)  # type: ignore[arg-type]


def test_a_shared_backbone_is_not_averaged(tmp_path: Path) -> None:
    runs = [stored_model(tmp_path / f"run{n}", seed=n) for n in range(2)]
    goal = stored_model(tmp_path / "goal", seed=9)
    share_network(goal, "backbone", runs[0])
    before = (runs[0] / "backbone.safetensors").read_bytes()
    assert main(["average", *map(str, runs), "-o", str(goal)]) == 0
    assert read_description(goal).networks["backbone"].model == "run0"
    assert (runs[0] / "backbone.safetensors").read_bytes() == before


def test_runs_of_another_network_are_refused_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, other = stored_model(tmp_path / "run", seed=0), stored_model(tmp_path / "other", seed=1, channels=(8, 24))
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    assert main(["average", str(run), str(other), "-o", str(run)]) == 2
    assert "another network" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_a_single_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = stored_model(tmp_path / "run", seed=0)
    assert main(["average", str(run), "-o", str(run)]) == 2
    assert "at least two" in capsys.readouterr().err
