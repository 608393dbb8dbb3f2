"""Corrections: scribbled voxels get their label exactly, voxels within reach may change, all others do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.diffusion.noise import noise_field, noise_window
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.models.model import Model
from DiffusionSegmentBackend.pipeline.interactive.correction import Correction, Corrections, correct, scribbles_on_grid
from DiffusionSegmentBackend.pipeline.interactive.scribbles import REACH_VOXELS
from DiffusionSegmentBackend.pipeline.options import SegmentOptions
from DiffusionSegmentBackend.pipeline.segment import build_segmentation, open_session
from DiffusionSegmentBackend.pipeline.session import Session
from numpy.typing import NDArray
from scipy import ndimage

OPTIONS = SegmentOptions(samples=1, steps=1, seed=5, force=True)
SIDE = 64


@pytest.fixture(scope="module")
def ct(phantom_ct: Volume) -> Volume:
    """A part of the phantom as large as one tile."""
    start = [(n - SIDE) // 2 for n in phantom_ct.array.shape]
    matrix = phantom_ct.index_to_lps.copy()
    matrix[:3, 3] += matrix[:3, :3] @ np.array(start[::-1])
    return Volume(phantom_ct.array[tuple(slice(n, n + SIDE) for n in start)].copy(), matrix)


@pytest.fixture(scope="module")
def session(model: Model, ct: Volume) -> Session:
    return open_session(ct, model, OPTIONS)


@pytest.fixture(scope="module")
def labels(session: Session, model: Model) -> NDArray[np.uint8]:
    return build_segmentation(session, model, bodypart=False).labels


@pytest.fixture(scope="module")
def scribbles(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A scribble of the spleen inside the largest organ, and a click of background near it."""
    counts = np.bincount(labels.ravel())[1:]
    voxels = np.argwhere(ndimage.binary_erosion(labels == 1 + counts.argmax(), iterations=2))
    scribbles = np.zeros_like(labels)
    k, j, i = voxels[len(voxels) // 2]
    scribbles[k, j, i : i + 4] = 1 + 1
    beside = voxels[np.argmin(np.abs(np.linalg.norm(voxels - voxels[len(voxels) // 2], axis=1) - 5))]
    scribbles[tuple(beside)] = 1
    return scribbles


@pytest.fixture(scope="module")
def correction(session: Session, model: Model, labels: NDArray, scribbles: NDArray) -> Correction:
    return correct(session, model, Corrections(labels=labels, scribbles=scribbles))[0]


def _whole(labels: NDArray[np.uint8], correction: Correction) -> NDArray[np.uint8]:
    whole = labels.copy()
    whole[correction.box] = correction.labels
    return whole


def test_every_scribbled_voxel_has_exactly_its_label(
    labels: NDArray, scribbles: NDArray, correction: Correction
) -> None:
    after = _whole(labels, correction)
    assert (after[scribbles > 0] == scribbles[scribbles > 0] - 1).all()
    assert correction.changed_voxels == np.count_nonzero(after != labels)


def test_a_scribble_also_changes_voxels_around_it(labels: NDArray, scribbles: NDArray, correction: Correction) -> None:
    assert correction.changed_voxels > np.count_nonzero(scribbles)


def test_voxels_beyond_the_reach_of_scribbles_keep_their_label(
    labels: NDArray, scribbles: NDArray, correction: Correction
) -> None:
    """The phantom's voxels are those of the grid, so the reach is known in voxels."""
    near = ndimage.binary_dilation(scribbles > 0, np.ones((3, 3, 3)), iterations=REACH_VOXELS + 1)
    after = _whole(labels, correction)
    assert np.array_equal(after[~near], labels[~near])


def test_locked_labels_change_in_scribbled_voxels_only(
    session: Session, model: Model, labels: NDArray, scribbles: NDArray
) -> None:
    everything = tuple(range(model.description.classes))
    locked, _ = correct(session, model, Corrections(labels=labels, scribbles=scribbles, locked=everything))
    after = _whole(labels, locked)
    assert np.array_equal(after[scribbles == 0], labels[scribbles == 0])
    assert (after[scribbles > 0] == scribbles[scribbles > 0] - 1).all()


def test_edits_without_scribbles_are_kept(session: Session, model: Model, labels: NDArray, scribbles: NDArray) -> None:
    """Also within reach of a scribble."""
    edited = labels.copy()
    voxel = np.argwhere((labels == 0) & (ndimage.distance_transform_edt(scribbles == 0) > 3))[0]
    edited[tuple(voxel)] = 7
    after = _whole(edited, correct(session, model, Corrections(labels=edited, scribbles=scribbles))[0])
    assert after[tuple(voxel)] == 7


def test_equal_scribbles_give_equal_results_after_others_were_removed(
    session: Session, model: Model, labels: NDArray, scribbles: NDArray, correction: Correction
) -> None:
    more = scribbles.copy()
    more[tuple(np.argwhere((labels > 0) & (scribbles == 0))[-1])] = 1
    _, after_more = correct(session, model, Corrections(labels=labels, scribbles=more))
    again, _ = correct(after_more, model, Corrections(labels=labels, scribbles=scribbles))
    whole, expected = _whole(labels, again), _whole(labels, correction)
    assert np.array_equal(whole[scribbles > 0], expected[scribbles > 0])
    assert again.report.organs == correction.report.organs


def test_a_second_call_with_equal_scribbles_runs_no_network(
    session: Session, model: Model, labels: NDArray, scribbles: NDArray
) -> None:
    first, after = correct(session, model, Corrections(labels=labels, scribbles=scribbles))
    tiles: list[str] = []
    second, _ = correct(
        after,
        model,
        Corrections(labels=_whole(labels, first), scribbles=scribbles),
        progress=lambda stage, done, total: tiles.append(stage),
    )
    assert not tiles, "no network ran"
    assert second.changed_voxels == 0


def test_the_report_is_that_of_the_corrected_segmentation(labels: NDArray, correction: Correction, ct: Volume) -> None:
    after = _whole(labels, correction)
    for organ in correction.report.organs:
        volume = np.count_nonzero(after == organ.value) * ct.voxel_ml
        assert organ.volume_ml == pytest.approx(volume, abs=0.01)
    assert correction.regions.shape == labels.shape
    assert correction.regions.max() == len(correction.report.review)


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_corrections_work_in_any_orientation(axes: tuple[int, int, int], model: Model, ct: Volume) -> None:
    array = ct.array.transpose(axes)[::-1]
    matrix = ct.index_to_lps.copy()
    order = [2 - axes[2 - n] for n in range(3)]
    matrix[:3, :3] = ct.index_to_lps[:3, :3][:, order]
    matrix[:3, 3] += matrix[:3, 2] * (array.shape[0] - 1)
    matrix[:3, 2] *= -1
    turned = Volume(np.ascontiguousarray(array), matrix)
    session = open_session(turned, model, OPTIONS)
    labels = build_segmentation(session, model, bodypart=False).labels
    scribbles = np.zeros_like(labels)
    scribbles[tuple(np.argwhere(labels > 0)[100])] = 1
    correction, _ = correct(session, model, Corrections(labels=labels, scribbles=scribbles))
    assert (_whole(labels, correction)[scribbles > 0] == 0).all()
    assert scribbles[correction.box].any()


def test_a_stroke_thinner_than_voxels_of_the_grid_is_kept(model: Model, session: Session) -> None:
    fine = replace(session.grid, native_shape=(12, 12, 12), native_spacing=(1.0, 1.0, 1.0), shape=(4, 4, 4))
    scribbles = np.zeros((12, 12, 12), dtype=np.uint8)
    scribbles[5, 5, :] = 3
    scribbles[5, 6:8, 0] = 2
    scribbles = fine.order.undo(scribbles)
    expected = np.zeros((4, 4, 4), dtype=np.uint8)
    expected[1, 1, :] = 3
    expected[1, 2, 0] = 2
    np.testing.assert_array_equal(scribbles_on_grid(scribbles, fine).numpy(), expected)


def test_noise_in_a_window_is_that_of_the_whole_field() -> None:
    whole = noise_field((8, 9, 10), channels=3, seed=7, sample=1, step=2)
    part = noise_window((8, 9, 10), (slice(2, 6), slice(1, 9), slice(3, 7)), channels=3, seed=7, sample=1, step=2)
    assert torch.equal(part, whole[:, 2:6, 1:9, 3:7])


class TestRefusals:
    def test_no_scribbles(self, session: Session, model: Model, labels: NDArray) -> None:
        with pytest.raises(DiffusionSegmentError, match="Nothing is marked") as caught:
            correct(session, model, Corrections(labels=labels, scribbles=np.zeros_like(labels)))
        assert caught.value.code is ErrorCode.OPTION

    def test_another_shape(self, session: Session, model: Model, labels: NDArray, scribbles: NDArray) -> None:
        with pytest.raises(DiffusionSegmentError) as caught:
            correct(session, model, Corrections(labels=labels, scribbles=scribbles[1:]))
        assert caught.value.code is ErrorCode.GEOMETRY

    def test_an_unknown_label(self, session: Session, model: Model, labels: NDArray, scribbles: NDArray) -> None:
        with pytest.raises(DiffusionSegmentError, match="labels beyond 13"):
            correct(
                session, model, Corrections(labels=labels, scribbles=np.where(scribbles > 0, 15, 0).astype(np.uint8))
            )
