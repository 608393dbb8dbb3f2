"""What a reader's own model is worth: an organ taught from one scan, beside a network trained on that scan alone."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ..evaluation.metrics import dice_by_label
from ..imaging.label_maps import read_label_map
from ..networks.backbone import Backbone
from ..networks.probe import Probe
from ..pipeline.model import Model
from ..pipeline.tile_shape import TILE_SIDE, TileShape
from ..training.data import Case, CaseFiles, load_case
from ..training.loop import Budget
from ..training.presegmentations import probe_map
from ..training.probe import Task, train_probe
from ..training.session import add_coordinates
from ..training.taught_model import teaching_budget
from ..training.teaching import TaughtCase, teach
from ..volume_io import read_volume
from .result_file import StudyRow

TAUGHT = "taught from one scan"
FROM_SCRATCH = "network of its own from that scan"
ORGANS = ("left_kidney", "spleen")


def teaching_rows(
    base: Model, lesson: CaseFiles, tests: Sequence[Case], organs: Sequence[str], *, minutes: float
) -> list[StudyRow]:
    """Two rows, Dice of each organ, which is taught alone in so many minutes, on the cases `tests` with coordinates."""
    case = load_case(lesson, base.description)
    add_coordinates([case], base.bodypart)
    volume = read_volume(lesson.image)
    taught = TaughtCase(volume, read_label_map(lesson.label, volume))
    rows = {name: StudyRow(name, dice={test.name: {} for test in tests}) for name in (TAUGHT, FROM_SCRATCH)}
    budget = teaching_budget(minutes)
    for organ in tqdm(organs, desc="organs"):
        value = base.description.label_named(organ).value
        with tempfile.TemporaryDirectory() as folder:
            probe = teach([taught], {value: organ}, base, budget=budget, folder=Path(folder))
        _record(rows[TAUGHT], tests, organ, value, base.backbone, probe)
        _record(rows[FROM_SCRATCH], tests, organ, value, *network_of_its_own(base, case, value, budget))
    return list(rows.values())


def network_of_its_own(base: Model, case: Case, value: int, budget: Budget) -> tuple[Backbone, Probe]:
    """Backbone and probe of the base's architecture, both new, trained on one organ of one case alone."""
    own = replace(case, labels=(case.labels == value).astype(np.uint8), drawn=None)
    torch.manual_seed(budget.seed)
    backbone = Backbone(base.backbone.channels)
    with tempfile.TemporaryDirectory() as folder:
        trained = train_probe(
            [Task("organ", [own], 2)], backbone=backbone, budget=budget, folder=Path(folder), finetune=True
        )
    return trained.backbone.eval(), trained.probes["organ"].eval()  # type: ignore[return-value]


def organ_on_grid(case: Case, backbone: Backbone, probe: Probe) -> NDArray[np.uint8]:
    """Where a probe of two classes finds its organ (z, y, x) in a case that has its coordinates."""
    image, coordinates = case.padded(TileShape.cube(TILE_SIDE))
    found = probe_map(image, coordinates, backbone, probe, device="cpu", bf16=False).argmax(dim=0)
    z, y, x = case.image.shape
    return found[:z, :y, :x].byte().numpy()


def _record(row: StudyRow, tests: Sequence[Case], organ: str, value: int, backbone: Backbone, probe: Probe) -> None:
    assert row.dice is not None
    for test in tests:
        truth = (test.labels == value).astype(np.uint8)
        row.dice[test.name][organ] = round(float(dice_by_label(organ_on_grid(test, backbone, probe), truth, 2)[0]), 4)
