"""Geometry: canonical orientation, the model's grid, and the exact inverse."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume, canonical, canonical_axes, model_grid
from DiffusionSegmentBackend.pipeline.restore import restore_map
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

ORIENTATIONS = [(p, s) for p in permutations(range(3)) for s in product((1, -1), repeat=3)]


def matrix(permutation: tuple[int, ...], signs: tuple[int, ...], spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """Index axis a points along world axis permutation[a], with a sign and a spacing."""
    result = np.eye(4)
    result[:3, :3] = 0
    for axis in range(3):
        result[permutation[axis], axis] = signs[axis] * spacing[axis]
    result[:3, 3] = (-31.0, 17.0, 105.0)
    return result


def peak_lps(volume: Volume) -> NDArray[np.float64]:
    k, j, i = np.unravel_index(int(volume.array.argmax()), volume.array.shape)
    return (volume.index_to_lps @ (i, j, k, 1))[:3]


def test_there_are_48_orientations() -> None:
    assert len(ORIENTATIONS) == 48


@pytest.mark.parametrize(("permutation", "signs"), ORIENTATIONS)
def test_canonical_keeps_the_position_of_every_voxel_and_undo_restores_the_array(
    permutation: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    array = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    volume = Volume(array, matrix(permutation, signs, (0.7, 1.5, 3.0)))
    turned, order = canonical(volume)
    directions = turned.index_to_lps[:3, :3]
    assert np.all(np.diag(directions) > 0)
    assert np.count_nonzero(directions) == 3
    np.testing.assert_allclose(peak_lps(turned), peak_lps(volume))
    np.testing.assert_array_equal(order.undo(turned.array), array)


@pytest.mark.parametrize(("permutation", "signs"), ORIENTATIONS)
def test_a_point_returns_from_the_grid_within_half_a_voxel(
    permutation: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    array = np.zeros((22, 31, 40), dtype=np.float32)
    array[9:12, 14:18, 20:25] = 1.0
    volume = Volume(array, matrix(permutation, signs, (1.0, 1.2, 2.0)))
    grid = model_grid(volume, spacing=(3.0, 3.0, 3.0))
    back = restore_map(grid.to_grid(array), (0, 0, 0), grid, outside=None)
    assert back.shape == array.shape
    indices = np.indices(array.shape).reshape(3, -1)
    centre, centre_back = (np.average(indices, axis=1, weights=a.ravel()) for a in (array, back))
    assert np.abs(centre - centre_back).max() < 0.25


@settings(max_examples=60, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 8.0)] * 3),
    shape=st.tuples(*[st.integers(1, 9)] * 3),
)
def test_grid_and_voxels_cover_the_same_points_for_any_oblique_anisotropic_volume(
    angles: tuple[float, ...], spacing: tuple[float, ...], shape: tuple[int, int, int]
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * spacing
    affine[:3, 3] = (5.0, -70.0, 12.0)
    volume = Volume(np.zeros(shape, dtype=np.float32), affine)
    grid = model_grid(volume, spacing=(3.0, 3.0, 3.0))
    turned, _ = canonical(volume)
    corner = turned.index_to_lps @ (-0.5, -0.5, -0.5, 1)
    np.testing.assert_allclose(grid.lps(np.array([-0.5, -0.5, -0.5])), corner[:3], atol=1e-6)
    far = grid.lps(np.array(grid.shape) - 0.5) - corner[:3]
    extent = (turned.index_to_lps @ (*(np.array(turned.shape_ijk) - 0.5), 1))[:3] - corner[:3]
    assert np.linalg.norm(far) >= np.linalg.norm(extent) * 0.999 or np.all(np.array(grid.shape) == 1)


def test_a_constant_volume_stays_constant_on_the_grid_and_restored() -> None:
    volume = Volume(np.full((5, 7, 9), 42.0, dtype=np.float32), matrix((2, 0, 1), (1, -1, 1), (0.9, 4.0, 2.5)))
    grid = model_grid(volume, spacing=(3.0, 3.0, 3.0))
    on_grid = grid.to_grid(volume.array)
    np.testing.assert_allclose(on_grid, 42.0, rtol=1e-5)
    np.testing.assert_allclose(restore_map(on_grid, (0, 0, 0), grid, outside=None), 42.0, rtol=1e-5)


def test_downsampling_averages_voxels() -> None:
    rng = np.random.default_rng(0)
    volume = Volume(rng.normal(size=(30, 60, 60)).astype(np.float32), np.diag([0.6, 0.6, 1.2, 1.0]))
    grid = model_grid(volume, spacing=(3.0, 3.0, 3.0))
    assert grid.to_grid(volume.array)[2:-2, 2:-2, 2:-2].std() < 0.2


def test_labels_on_a_grid_of_equal_spacing_are_unchanged() -> None:
    labels = np.random.default_rng(1).integers(0, 4, (6, 7, 8)).astype(np.uint8)
    volume = Volume(labels, np.diag([3.0, 3.0, 3.0, 1.0]))
    np.testing.assert_array_equal(model_grid(volume, spacing=(3.0, 3.0, 3.0)).labels_to_grid(labels), labels)


@pytest.mark.parametrize(
    "broken",
    [
        np.diag([1.0, 0.0, 1.0, 1.0]),
        np.array([[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
        np.diag([1.0, np.nan, 1.0, 1.0]),
        np.diag([np.inf, 1.0, 1.0, 1.0]),
    ],
    ids=["zero spacing", "singular", "nan", "infinite"],
)
def test_a_singular_or_non_finite_matrix_is_refused(broken: NDArray[np.float64]) -> None:
    with pytest.raises(DiffusionSegmentError) as caught:
        model_grid(Volume(np.zeros((4, 4, 4)), broken), spacing=(3.0, 3.0, 3.0))
    assert caught.value.code is ErrorCode.GEOMETRY


def test_nearest_axes_of_a_tilted_scan() -> None:
    tilted = np.eye(4)
    tilted[:3, :3] = Rotation.from_euler("x", 20, degrees=True).as_matrix()
    assert canonical_axes(tilted).axes == (0, 1, 2)
    assert canonical_axes(tilted).flips == (False, False, False)
