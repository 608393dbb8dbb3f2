"""Sheared scans: the model's grid has perpendicular axes, and results are restored to the voxels of the scan."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.imaging.sheared_grid import is_sheared
from DiffusionSegmentBackend.imaging.volume import Volume, model_grid
from DiffusionSegmentBackend.pipeline.interactive.correction import scribbles_on_grid
from DiffusionSegmentBackend.pipeline.restore import (
    in_native_box,
    interpolated,
    native_box,
    restore_labels,
    restore_map,
    restore_nearest,
)
from numpy.typing import NDArray

SPACING = (3.0, 3.0, 3.0)
CENTRE = np.array([4.0, -12.0, 31.0])


def tilted_matrix(degrees: float, shape: tuple[int, int, int], order: tuple[int, int, int]) -> NDArray[np.float64]:
    """Slices turned about x by `degrees`, stacked along z, centred on CENTRE; `order` renames the voxel axes."""
    angle = np.deg2rad(degrees)
    axes = np.array([[1.1, 0, 0], [0, 1.2 * np.cos(angle), 1.2 * np.sin(angle)], [0, 0, 2.5]]).T[:, order]
    matrix = np.eye(4)
    matrix[:3, :3] = axes
    matrix[:3, 3] = CENTRE - axes @ ((np.array(shape[::-1]) - 1) / 2)
    return matrix


def ball(matrix: NDArray[np.float64], shape: tuple[int, int, int], *, radius: float, at: NDArray) -> NDArray[np.bool_]:
    """Voxels of a volume whose centres lie within a ball, in LPS mm."""
    k, j, i = np.indices(shape)
    points = np.stack([i, j, k], axis=-1) @ matrix[:3, :3].T + matrix[:3, 3]
    return np.asarray(np.linalg.norm(points - at, axis=-1) <= radius)


def dice(one: NDArray, other: NDArray) -> float:
    return float(2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other)))


SCANS = [
    pytest.param(tilted_matrix(20, (30, 60, 50), (0, 1, 2)), (30, 60, 50), id="tilt"),
    pytest.param(tilted_matrix(-25, (60, 30, 50), (0, 2, 1)), (60, 30, 50), id="other axes"),
]


@pytest.mark.parametrize(("matrix", "shape"), SCANS)
def test_the_networks_see_the_anatomy_unsheared(matrix: NDArray[np.float64], shape: tuple[int, int, int]) -> None:
    at = np.add(CENTRE, (5.0, 4.0, -6.0))
    hu = np.where(ball(matrix, shape, radius=14, at=at), 100, -50).astype(np.int16)
    grid = model_grid(Volume(hu, matrix), spacing=SPACING)
    np.testing.assert_allclose(grid.index_to_lps[:3, :3], np.diag(SPACING))
    seen = grid.to_grid(hu) > 25
    assert dice(seen, ball(grid.index_to_lps, grid.shape, radius=14, at=at)) > 0.94
    assert grid.to_grid(hu).min() == pytest.approx(-50)
    np.testing.assert_array_equal(grid.labels_to_grid((hu > 0).astype(np.uint8)) > 0, seen)
    assert dice(grid.nearest_to_grid((hu > 0).astype(np.uint8)) > 0, seen) > 0.93


@pytest.mark.parametrize(("matrix", "shape"), SCANS)
def test_the_grid_covers_every_voxel(matrix: NDArray[np.float64], shape: tuple[int, int, int]) -> None:
    grid = model_grid(Volume(np.zeros(shape, np.int16), matrix), spacing=SPACING)
    corners = np.array(np.meshgrid(*([-0.5, n - 0.5] for n in shape[::-1]), indexing="ij")).reshape(3, -1)
    lps = matrix[:3, :3] @ corners + matrix[:3, 3:]
    on_grid = np.linalg.inv(grid.index_to_lps[:3, :3]) @ (lps - grid.index_to_lps[:3, 3:])
    assert on_grid.min() >= -0.5 - 1e-9
    assert np.all(on_grid.max(axis=1) <= np.array(grid.shape[::-1]) - 0.5 + 1e-9)


@pytest.mark.parametrize(("matrix", "shape"), SCANS)
@pytest.mark.parametrize("offset", [(0, 0, 0), (3, 4, 2)])
def test_labels_are_restored_at_their_position(
    matrix: NDArray[np.float64], shape: tuple[int, int, int], offset: tuple[int, int, int]
) -> None:
    at = np.add(CENTRE, (5.0, 4.0, -6.0))
    grid = model_grid(Volume(np.zeros(shape, np.int16), matrix), spacing=SPACING)
    inside = ball(grid.index_to_lps, grid.shape, radius=14, at=at)[offset[0] :, offset[1] :, offset[2] :]
    shares = torch.from_numpy(np.stack([~inside, inside]).astype(np.float32))
    expected = ball(matrix, shape, radius=14, at=at)
    labels = restore_labels(shares, offset, grid)
    assert labels.shape == shape
    assert dice(labels > 0, expected) > 0.94
    assert dice(restore_map(inside.astype(np.float32), offset, grid) > 0.5, expected) > 0.94
    assert dice(restore_nearest(inside.astype(np.uint8), offset, grid) > 0, expected) > 0.9


@pytest.mark.parametrize(("matrix", "shape"), SCANS)
def test_a_part_of_the_scan_gets_the_same_values_as_the_whole(
    matrix: NDArray[np.float64], shape: tuple[int, int, int]
) -> None:
    """A correction restores only the voxels that depend on changed voxels of the grid."""
    grid = model_grid(Volume(np.zeros(shape, np.int16), matrix), spacing=SPACING)
    values = np.zeros(grid.shape, dtype=np.float32)
    values[8:11, 9:14, 7:9] = np.random.default_rng(0).random((3, 5, 2))
    whole = restore_map(values, (0, 0, 0), grid)
    native = native_box(torch.from_numpy(values > 0), (0, 0, 0), grid)
    part = interpolated(torch.from_numpy(values)[None], (0, 0, 0), grid, native)[0].numpy()
    box = in_native_box(native, grid)
    np.testing.assert_allclose(grid.order.undo(part), whole[box], atol=1e-5)
    whole[box] = 0
    assert not whole.any()
    assert part.size < whole.size / 3


@pytest.mark.parametrize(("matrix", "shape"), SCANS)
def test_a_scribble_is_in_the_grid_voxel_that_contains_it(
    matrix: NDArray[np.float64], shape: tuple[int, int, int]
) -> None:
    scribbles = np.zeros(shape, np.uint8)
    k, j, i = (n // 3 for n in shape)
    scribbles[k, j, i] = 3
    grid = model_grid(Volume(scribbles, matrix), spacing=SPACING)
    (voxel,) = np.argwhere(scribbles_on_grid(scribbles, grid).numpy() == 3)
    assert np.abs(grid.lps(voxel) - (matrix @ (i, j, k, 1))[:3]).max() <= 1.5 + 1e-6


def test_rounding_errors_in_a_header_are_not_shear() -> None:
    matrix = tilted_matrix(0.3, (30, 60, 50), (0, 1, 2))
    assert not is_sheared(matrix)
    assert is_sheared(tilted_matrix(1.0, (30, 60, 50), (0, 1, 2)))
    assert model_grid(Volume(np.zeros((30, 60, 50)), matrix), spacing=SPACING).native_to_grid is None
