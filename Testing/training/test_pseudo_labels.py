"""Labels for what nobody drew: where networks agree and are sure, never against the reader."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from DiffusionSegmentBackend.datasets.volumes import TrainingVolume
from DiffusionSegmentBackend.training.label_loss import IGNORED
from DiffusionSegmentBackend.training.pseudo_labels import pseudo_labelled
from fixtures.segmenter_data import CLASSES, LEFT, RIGHT, small_volume
from torch import Tensor


def says(labels: Tensor, *, sure: float = 0.9) -> Tensor:
    """Probabilities (classes, Z, Y, X) of a network that finds these labels."""
    hot = torch.nn.functional.one_hot(labels.long(), CLASSES).movedim(-1, 0).float()
    return hot * sure + (1 - hot) * (1 - sure) / (CLASSES - 1)


@pytest.fixture
def truth() -> TrainingVolume:
    return small_volume()


@pytest.fixture
def partly(truth: TrainingVolume) -> TrainingVolume:
    """The same scan with the right organ drawn alone."""
    volume = small_volume(drawn=frozenset({RIGHT}))
    return replace(volume, labels=torch.where(truth.labels == RIGHT, truth.labels, 0))


def test_what_was_not_drawn_is_labelled(truth: TrainingVolume, partly: TrainingVolume) -> None:
    result = pseudo_labelled(partly, [says(truth.labels)])
    assert torch.equal(result.labels, truth.labels)
    assert result.drawn.all()
    at = result.centres[LEFT].long()
    assert bool((result.labels[at[:, 0], at[:, 1], at[:, 2]] == LEFT).all())


def test_uncertain_voxels_and_disagreement_are_ignored(truth: TrainingVolume, partly: TrainingVolume) -> None:
    other = truth.labels.clone()
    other[:, :, -12:] = 0
    agreed = pseudo_labelled(partly, [says(truth.labels), says(other)], min_probability=0.3)
    assert bool((agreed.labels[truth.labels != other] == IGNORED).all())
    uncertain = pseudo_labelled(partly, [says(truth.labels, sure=0.6)])
    assert set(uncertain.labels.unique().tolist()) == {RIGHT, IGNORED}


def test_existing_labels_are_kept(truth: TrainingVolume, partly: TrainingVolume) -> None:
    nothing = pseudo_labelled(partly, [says(torch.zeros_like(truth.labels))])
    assert torch.equal(nothing.labels == RIGHT, partly.labels == RIGHT)


def test_a_drawn_organ_gets_no_further_voxels(truth: TrainingVolume, partly: TrainingVolume) -> None:
    wider = torch.where(truth.labels == LEFT, RIGHT, truth.labels)
    result = pseudo_labelled(partly, [says(wider)])
    assert bool((result.labels[truth.labels == LEFT] == IGNORED).all())


def test_without_a_network_there_are_no_labels(partly: TrainingVolume) -> None:
    with pytest.raises(ValueError, match="network"):
        pseudo_labelled(partly, [])
