"""Pseudo-labels of organs without annotation: where networks agree with high probability, never over annotations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from DiffusionSegmentBackend.datasets.volumes import TrainingVolume
from DiffusionSegmentBackend.training.label_loss import IGNORED
from DiffusionSegmentBackend.training.pseudo_labels import pseudo_labelled
from fixtures.segmenter_data import CLASSES, LEFT, RIGHT, small_volume
from torch import Tensor


def predicting(labels: Tensor, *, probability: float = 0.9) -> Tensor:
    """Probabilities (classes, Z, Y, X) of a network that predicts these labels."""
    hot = torch.nn.functional.one_hot(labels.long(), CLASSES).movedim(-1, 0).float()
    return hot * probability + (1 - hot) * (1 - probability) / (CLASSES - 1)


@pytest.fixture
def truth() -> TrainingVolume:
    return small_volume()


@pytest.fixture
def partial(truth: TrainingVolume) -> TrainingVolume:
    """The same scan with annotations of the right organ only."""
    volume = small_volume(drawn=frozenset({RIGHT}))
    return replace(volume, labels=torch.where(truth.labels == RIGHT, truth.labels, 0))


def test_organs_without_annotation_are_labelled(truth: TrainingVolume, partial: TrainingVolume) -> None:
    result = pseudo_labelled(partial, [predicting(truth.labels)])
    assert torch.equal(result.labels, truth.labels)
    assert result.drawn.all()
    at = result.centres[LEFT].long()
    assert bool((result.labels[at[:, 0], at[:, 1], at[:, 2]] == LEFT).all())


def test_uncertain_voxels_and_disagreement_are_ignored(truth: TrainingVolume, partial: TrainingVolume) -> None:
    other = truth.labels.clone()
    other[:, :, -12:] = 0
    agreed = pseudo_labelled(partial, [predicting(truth.labels), predicting(other)], min_probability=0.3)
    assert bool((agreed.labels[truth.labels != other] == IGNORED).all())
    uncertain = pseudo_labelled(partial, [predicting(truth.labels, probability=0.6)])
    assert set(uncertain.labels.unique().tolist()) == {RIGHT, IGNORED}


def test_existing_labels_are_kept(truth: TrainingVolume, partial: TrainingVolume) -> None:
    background = pseudo_labelled(partial, [predicting(torch.zeros_like(truth.labels))])
    assert torch.equal(background.labels == RIGHT, partial.labels == RIGHT)


def test_an_annotated_organ_gets_no_additional_voxels(truth: TrainingVolume, partial: TrainingVolume) -> None:
    wider = torch.where(truth.labels == LEFT, RIGHT, truth.labels)
    result = pseudo_labelled(partial, [predicting(wider)])
    assert bool((result.labels[truth.labels == LEFT] == IGNORED).all())


def test_without_a_network_there_is_an_error(partial: TrainingVolume) -> None:
    with pytest.raises(ValueError, match="network"):
        pseudo_labelled(partial, [])
