"""Tiles on two grids: sides, places and reaches are whole voxels of the trunk."""

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


def test_a_cube_of_the_trunk_is_flat_on_a_grid_finer_in_plane() -> None:
    assert TILE.voxels == (20, 40, 40)
    assert TILE.trunk_voxels == (20, 20, 20)


def test_tiles_need_a_tile_at_least_and_whole_voxels_of_the_trunk() -> None:
    assert TILE.covering((3, 41, 90)) == (20, 42, 90)
    assert TileShape.cube(64).covering((65, 64, 1)) == (65, 64, 64)


@pytest.mark.parametrize("step", [(1, 2, 2), (4, 8, 8)])
def test_tiles_begin_at_whole_cells_and_leave_nothing_out(step: tuple[int, int, int]) -> None:
    tiling = Tiling((44, 88, 40), TILE.voxels, step=step)
    seen = torch.zeros(tiling.shape, dtype=torch.bool)
    for place in tiling.tiles:
        assert all(s.start % n == 0 for s, n in zip(place, step, strict=True))
        seen[place] = True
    assert bool(seen.all())


def test_the_same_tiles_on_the_trunks_grid() -> None:
    tiling = Tiling((44, 86, 60), TILE.voxels, step=TILE.stride)
    for fine, coarse in zip(tiling.tiles, on_trunk(tiling, TILE).tiles, strict=True):
        assert [s.start // n for s, n in zip(fine, TILE.stride, strict=True)] == [s.start for s in coarse]


def test_parts_follow_the_depth_of_the_tile() -> None:
    parts = parts_of(100, 60, TileShape.cube(24, (2, 1, 1)))
    assert [part.core.start % 36 for part in parts] == [0] * len(parts)
    assert max(part.input.stop - part.input.start for part in parts[:-1]) > 60 - 48
    assert parts[-1].core.stop == 100


def test_a_mark_reaches_so_many_voxels_of_the_trunk_along_each_axis() -> None:
    marked = torch.zeros((40, 70, 70), dtype=torch.bool)
    marked[20, 35, 35] = True
    found = reach(marked, (1, 2, 2)).nonzero()
    low, high = found.amin(dim=0), found.amax(dim=0)
    assert low.tolist() == [20 - REACH_VOXELS, 35 - 2 * REACH_VOXELS, 35 - 2 * REACH_VOXELS]
    assert high.tolist() == [20 + REACH_VOXELS, 35 + 2 * REACH_VOXELS, 35 + 2 * REACH_VOXELS]


def test_a_new_answer_fades_over_the_last_four_voxels_of_the_reach() -> None:
    marked = torch.zeros((40, 40, 40), dtype=torch.bool)
    marked[20, 20, 18:22] = True
    distance = ndimage.distance_transform_cdt(~marked.numpy(), metric="chessboard")
    expected = np.clip((REACH_VOXELS + 1 - distance) / 4, 0, 1)
    np.testing.assert_array_equal(fading(marked).numpy(), expected.astype(np.float32))


def test_a_coarser_grid_has_its_voxels_where_those_that_it_covers_have_their_mean() -> None:
    volume = Volume(np.zeros((10, 31, 29), np.int16), np.diag([2.0, 2.0, 5.0, 1.0]))
    fine = model_grid(volume, spacing=(1.5, 1.5, 5.0))
    coarse = coarser_grid(fine, (1, 2, 2))
    assert coarse.spacing == (3.0, 3.0, 5.0)
    assert coarse.shape == (fine.shape[0], -(-fine.shape[1] // 2), -(-fine.shape[2] // 2))
    covered = fine.lps(np.array([[4, y, x] for y in (6, 7) for x in (10, 11)]))
    np.testing.assert_allclose(coarse.lps(np.array([4, 3, 5])), covered.mean(axis=0))
