"""The pictures and costs of the augmentation, on a small synthetic patient."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import pytest
import torch
from DiffusionSegmentBackend.datasets.augmentations import HospitalAugmentation, PatchBatch
from DiffusionSegmentBackend.phantom.phantom import Organ, make_phantom
from DiffusionSegmentResearch.studies import augmentations
from DiffusionSegmentResearch.studies.augmentations import Picture, around_organs, cost_rows, draw, pictures

WINDOW = (-125.0, 275.0)


@pytest.fixture(scope="module")
def batch() -> PatchBatch:
    phantom = make_phantom(seed=3, spacing_mm=(5.0, 5.0, 5.0))
    image = torch.from_numpy(phantom.image).float().clamp(*WINDOW)[None, None]
    labels = torch.from_numpy(phantom.labels).long()[None, None]
    return PatchBatch(image, labels, (5.0, 5.0, 5.0), {organ.name.lower(): int(organ) for organ in Organ})


def test_every_part_of_the_augmentation_has_a_picture() -> None:
    stems = {picture.stem for picture in pictures()}
    assert set(HospitalAugmentation().probabilities()) <= stems
    assert "together" in stems


@pytest.mark.parametrize("picture", pictures(), ids=lambda picture: picture.stem)
def test_every_picture_can_be_drawn(picture: Picture, batch: PatchBatch, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    draw(picture, batch, path, window=WINDOW)
    pixels = matplotlib.image.imread(path)
    assert pixels.shape[1] >= 250 * len(picture.columns)
    assert pixels[..., :3].std() > 0.1


def test_a_column_shows_the_scan_before_and_after(batch: PatchBatch, tmp_path: Path) -> None:
    same = Picture("same", "", {"same": lambda patch: patch})
    other = Picture("other", "", {"same": lambda patch: PatchBatch(-patch.image, patch.labels, (5, 5, 5), {})})
    drawn = []
    for picture in (same, other):
        draw(picture, batch, tmp_path / "picture.png", window=WINDOW)
        drawn.append(matplotlib.image.imread(tmp_path / "picture.png")[..., :3])
    half = len(drawn[0]) // 2
    assert abs(drawn[0][20:half] - drawn[0][half + 20 :][: half - 20]).mean() < 0.05
    assert abs(drawn[1][20:half] - drawn[1][half + 20 :][: half - 20]).mean() > 0.1


def test_costs_are_measured_for_each_part_and_for_all(batch: PatchBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentations, "_ROUNDS", 1)
    monkeypatch.setattr(augmentations, "_WHOLE_ROUNDS", 2)
    threads = torch.get_num_threads()
    *parts, whole = cost_rows(batch, HospitalAugmentation(dose=0.3, untouched=0.5))
    assert {row.name for row in parts} == set(HospitalAugmentation().probabilities())
    assert next(row.numbers["probability"] for row in parts if row.name == "dose") == pytest.approx(0.15)
    assert all(row.numbers["ms a patch"] > 0 for row in parts)
    assert whole.numbers["largest ms"] >= whole.numbers["ms a patch"]
    assert torch.get_num_threads() == threads


def test_a_part_around_the_organs_stays_inside_the_scan(batch: PatchBatch) -> None:
    assert around_organs(batch, (20, 30, 1000)).shape == (20, 30, batch.shape[2])
    assert int((around_organs(batch, (20, 30, 30)).labels > 0).sum()) > 1000
