"""Sampling from a given label map instead of the pre-segmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.commands.segment import RunChoices, segment_file
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import write_volume
from DiffusionSegmentBackend.models.model import Model
from DiffusionSegmentBackend.phantom.phantom import Phantom, make_phantom
from DiffusionSegmentBackend.pipeline.checks import organ_confidence
from DiffusionSegmentBackend.pipeline.options import SegmentOptions
from DiffusionSegmentBackend.pipeline.sampling import SamplingPlan, sample_steps
from DiffusionSegmentBackend.pipeline.segment import segment
from DiffusionSegmentBackend.schema.run_options import RunOptions

COARSE = (5.0, 5.0, 5.0)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(seed=3, spacing_mm=COARSE)


def one_tile(array: np.ndarray, phantom: Phantom) -> Volume:
    """The middle of the phantom, no larger than the pipeline's tile."""
    box = tuple(slice(n // 2 - 18, n // 2 + 18) for n in array.shape)
    matrix = phantom.index_to_lps.copy()
    matrix[:3, 3] += matrix[:3, :3] @ [s.start for s in reversed(box)]
    return Volume(np.ascontiguousarray(array[box]), matrix)


@pytest.fixture(scope="module")
def scan(phantom: Phantom) -> Volume:
    return one_tile(phantom.image, phantom)


@pytest.fixture(scope="module")
def truth(phantom: Phantom) -> Volume:
    return one_tile(phantom.labels, phantom)


def test_samples_start_from_the_given_label_map(model: Model, scan: Volume, truth: Volume) -> None:
    def overlap(labels: np.ndarray | None) -> float:
        options = SegmentOptions(samples=1, steps=1, abar_start=0.9, presegmentation=labels, force=True)
        predicted = segment(scan, model, options).labels
        return (
            2
            * np.count_nonzero((predicted == truth.array) & (truth.array > 0))
            / (np.count_nonzero(predicted) + np.count_nonzero(truth.array))
        )

    assert overlap(truth.array) > overlap(None)
    assert overlap(np.zeros_like(truth.array)) < overlap(truth.array)


def test_a_label_map_that_does_not_fit_is_refused(model: Model, scan: Volume, truth: Volume, tmp_path: Path) -> None:
    for labels, code in (
        (truth.array[1:], ErrorCode.GEOMETRY),
        (np.full_like(truth.array, 14), ErrorCode.OPTION),
    ):
        with pytest.raises(DiffusionSegmentError) as caught:
            segment(scan, model, SegmentOptions(presegmentation=labels, force=True))
        assert caught.value.code is code
    moved = truth.index_to_lps.copy()
    moved[2, 3] += 7
    write_volume(scan, tmp_path / "ct.nii.gz")
    write_volume(Volume(truth.array, moved), tmp_path / "labels.nii.gz")
    with pytest.raises(DiffusionSegmentError, match="geometry") as caught:
        segment_file(
            str(tmp_path / "ct.nii.gz"),
            tmp_path / "out",
            RunChoices(options=RunOptions(device="cpu"), presegmentation=tmp_path / "labels.nii.gz"),
        )
    assert caught.value.code is ErrorCode.GEOMETRY
    assert not (tmp_path / "out").exists()


def test_confidence_is_over_organs_only() -> None:
    p = torch.tensor([[0.9, 0.2], [0.1, 0.8]])[:, :, None, None]
    assert organ_confidence(p) == pytest.approx(0.8)
    assert organ_confidence(torch.tensor([[0.9], [0.1]])[:, :, None, None]) == 0.0


def test_every_step_gives_an_estimate_and_receives_the_previous_one() -> None:
    plan = SamplingPlan(schedule="cosine", sampler="ddim", steps=3, abar_start=0.2, seed=0)
    received = []

    def predict(x_t: torch.Tensor, _: float, previous: torch.Tensor | None) -> torch.Tensor:
        received.append(previous)
        return torch.full_like(x_t, 0.1 * len(received))

    pre = torch.full((2, 4, 4, 4), 0.5)
    estimates = list(sample_steps(pre, predict, plan, noise=lambda step: torch.full_like(pre, float(step))))
    assert [round(float(e.mean()), 3) for e in estimates] == [0.1, 0.2, 0.3]
    assert received[0] is None
    assert all(torch.equal(a, b) for a, b in zip(received[1:], estimates, strict=False))
