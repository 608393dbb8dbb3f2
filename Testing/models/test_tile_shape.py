"""Tiles on two grids: sizes, positions and reach are whole voxels of the trunk."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.imaging.volume import Volume, coarser_grid, model_grid
from DiffusionSegmentBackend.models.tile_shape import TileShape
from DiffusionSegmentBackend.pipeline.interactive.scribbles import REACH_VOXELS, fading, reach
from DiffusionSegmentBackend.pipeline.parts import parts_of
from DiffusionSegmentBackend.pipeline.tiling import Tiling, on_trunk
from scipy import ndimage

TILE = TileShape.cube(20, (1, 2, 2))


def test_a_cube_of_trunk_voxels_has_twice_the_voxels_in_plane_on_the_fine_grid() -> None:
    assert TILE.voxels == (20, 40, 40)
    assert TILE.trunk_voxels == (20, 20, 20)


def test_a_scan_is_padded_to_at_least_a_tile_and_to_whole_trunk_voxels() -> None:
    assert TILE.covering((3, 41, 90)) == (20, 42, 90)
    assert TileShape.cube(64).covering((65, 64, 1)) == (65, 64, 64)


@pytest.mark.parametrize("step", [(1, 2, 2), (4, 8, 8)])
def test_tiles_start_at_multiples_of_the_step_and_cover_every_voxel(step: tuple[int, int, int]) -> None:
    tiling = Tiling((44, 88, 40), TILE.voxels, step=step)
    covered = torch.zeros(tiling.shape, dtype=torch.bool)
    for tile in tiling.tiles:
        assert all(s.start % n == 0 for s, n in zip(tile, step, strict=True))
        covered[tile] = True
    assert bool(covered.all())


def test_tiles_on_the_trunks_grid_are_the_same_tiles() -> None:
    tiling = Tiling((44, 86, 60), TILE.voxels, step=TILE.stride)
    for fine, coarse in zip(tiling.tiles, on_trunk(tiling, TILE).tiles, strict=True):
        assert [s.start // n for s, n in zip(fine, TILE.stride, strict=True)] == [s.start for s in coarse]


def test_parts_start_at_multiples_of_the_tiles_step() -> None:
    parts = parts_of(100, 60, TileShape.cube(24, (2, 1, 1)))
    assert [part.core.start % 36 for part in parts] == [0] * len(parts)
    assert max(part.input.stop - part.input.start for part in parts[:-1]) > 60 - 48
    assert parts[-1].core.stop == 100


def test_a_scribble_has_an_effect_up_to_the_reach_along_each_axis() -> None:
    scribbled = torch.zeros((40, 70, 70), dtype=torch.bool)
    scribbled[20, 35, 35] = True
    inside = reach(scribbled, (1, 2, 2)).nonzero()
    low, high = inside.amin(dim=0), inside.amax(dim=0)
    assert low.tolist() == [20 - REACH_VOXELS, 35 - 2 * REACH_VOXELS, 35 - 2 * REACH_VOXELS]
    assert high.tolist() == [20 + REACH_VOXELS, 35 + 2 * REACH_VOXELS, 35 + 2 * REACH_VOXELS]


def test_a_new_prediction_is_blended_over_the_last_four_voxels_of_the_reach() -> None:
    scribbled = torch.zeros((40, 40, 40), dtype=torch.bool)
    scribbled[20, 20, 18:22] = True
    distance = ndimage.distance_transform_cdt(~scribbled.numpy(), metric="chessboard")
    expected = np.clip((REACH_VOXELS + 1 - distance) / 4, 0, 1)
    np.testing.assert_array_equal(fading(scribbled).numpy(), expected.astype(np.float32))


def test_voxels_of_a_coarser_grid_are_centred_on_the_voxels_that_they_cover() -> None:
    volume = Volume(np.zeros((10, 31, 29), np.int16), np.diag([2.0, 2.0, 5.0, 1.0]))
    fine = model_grid(volume, spacing=(1.5, 1.5, 5.0))
    coarse = coarser_grid(fine, (1, 2, 2))
    assert coarse.spacing == (3.0, 3.0, 5.0)
    assert coarse.shape == (fine.shape[0], -(-fine.shape[1] // 2), -(-fine.shape[2] // 2))
    covered = fine.lps(np.array([[4, y, x] for y in (6, 7) for x in (10, 11)]))
    np.testing.assert_allclose(coarse.lps(np.array([4, 3, 5])), covered.mean(axis=0))
