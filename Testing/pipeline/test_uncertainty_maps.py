"""Maps on the model's grid: interpolated where the scan's voxels are, they are the maps in the scan's geometry."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from DiffusionSegmentBackend.imaging.interpolated_plane import interpolated_plane, overlaps
from DiffusionSegmentBackend.imaging.volume import Grid, Volume, model_grid
from DiffusionSegmentBackend.pipeline.restore import map_on_grid, restore_map
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

ORIENTATIONS = [(p, s) for p in permutations(range(3)) for s in product((1, -1), repeat=3)]
OBLIQUE = Rotation.from_euler("xyz", (17, -23, 40), degrees=True).as_matrix()
SHAPE = (13, 17, 22)


def scan_along(axes: NDArray[np.float64]) -> Volume:
    """A scan whose voxel axes (columns, mm) are given."""
    matrix = np.eye(4)
    matrix[:3, :3] = axes
    matrix[:3, 3] = (-31.0, 17.0, 105.0)
    return Volume(np.zeros(SHAPE, np.int16), matrix)


def oriented(permutation: tuple[int, ...], signs: tuple[int, ...], turn: NDArray[np.float64]) -> Volume:
    axes = np.zeros((3, 3))
    for axis in range(3):
        axes[permutation[axis], axis] = signs[axis] * (1.0, 1.3, 2.1)[axis]
    return scan_along(turn @ axes)


def inner_map(grid: Grid, *, margin: int) -> tuple[NDArray[np.float32], tuple[int, int, int]]:
    """Random values in a box that ends `margin` voxels before the grid does, and their offset."""
    shape = tuple(n - 2 * margin for n in grid.shape)
    return np.random.default_rng(3).random(shape, dtype=np.float32), (margin, margin, margin)


def planes_of(volume: Volume, scan: Volume) -> NDArray[np.float32]:
    """The map in the voxels of the scan, plane by plane."""
    return np.stack([interpolated_plane(volume, scan, plane) for plane in range(len(scan.array))])


def assert_same_values(scan: Volume, spacing: tuple[float, float, float], margin: int) -> None:
    grid = model_grid(scan, spacing=spacing)
    values, offset = inner_map(grid, margin=margin)
    on_grid = map_on_grid(values, offset, grid)
    assert on_grid.array.dtype == np.float32
    assert on_grid.array.flags.c_contiguous
    np.testing.assert_allclose(planes_of(on_grid, scan), restore_map(values, offset, grid), atol=2e-5)


@pytest.mark.parametrize("turn", [np.eye(3), OBLIQUE], ids=["straight", "oblique"])
@pytest.mark.parametrize(("permutation", "signs"), ORIENTATIONS)
def test_every_orientation(permutation: tuple[int, ...], signs: tuple[int, ...], turn: NDArray[np.float64]) -> None:
    assert_same_values(oriented(permutation, signs, turn), (3.0, 3.0, 3.0), margin=1)


@pytest.mark.parametrize("margin", [0, 1, 2])
@pytest.mark.parametrize("spacing", [(3.0, 3.0, 3.0), (0.5, 0.5, 0.7), (1.0, 4.0, 2.1)])
def test_boxes_inside_and_at_the_edge_of_coarser_and_finer_grids(
    spacing: tuple[float, float, float], margin: int
) -> None:
    """At the edge of the grid its values extend to the edge of the scan."""
    assert_same_values(oriented((1, 0, 2), (1, -1, -1), OBLIQUE), spacing, margin)


@pytest.mark.parametrize("degrees", [20, -30])
@pytest.mark.parametrize("margin", [0, 2])
def test_sheared_scans(degrees: float, margin: int) -> None:
    angle = np.deg2rad(degrees)
    axes = np.array([[1.1, 0, 0], [0, 1.2 * np.cos(angle), 1.2 * np.sin(angle)], [0, 0, 2.5]]).T
    assert_same_values(scan_along(axes), (3.0, 3.0, 3.0), margin)


def test_a_scan_thinner_than_a_voxel_of_the_grid() -> None:
    scan = Volume(np.zeros((2, 9, 9), np.int16), np.diag([1.0, 1.0, 1.0, 1.0]))
    assert model_grid(scan, spacing=(3.0, 3.0, 3.0)).shape[0] == 1
    assert_same_values(scan, (3.0, 3.0, 3.0), margin=0)


def test_the_rim_is_zero_where_the_grid_continues() -> None:
    grid = model_grid(oriented((0, 1, 2), (1, 1, 1), np.eye(3)), spacing=(3.0, 3.0, 3.0))
    shape = (grid.shape[0], grid.shape[1] - 3, grid.shape[2] - 2)
    on_grid = map_on_grid(np.ones(shape, np.float32), (0, 2, 1), grid)
    assert on_grid.array.shape == (shape[0], shape[1] + 2, shape[2] + 2)
    assert on_grid.array[:, 1:-1, 1:-1].min() == 1
    assert on_grid.array.sum() == np.prod(shape)
    np.testing.assert_allclose(on_grid.index_to_lps[:3, 3], grid.lps(np.array([0, 1, 0])))


def test_a_map_beside_the_scan_is_recognised() -> None:
    scan = oriented((0, 1, 2), (1, -1, 1), OBLIQUE)
    grid = model_grid(scan, spacing=(3.0, 3.0, 3.0))
    on_grid = map_on_grid(np.ones(grid.shape, np.float32), (0, 0, 0), grid)
    assert overlaps(on_grid, scan)
    away = on_grid.index_to_lps.copy()
    away[:3, 3] += 200.0
    assert not overlaps(Volume(on_grid.array, away), scan)
