"""A region of interest limits the segmentation; a preview is sent before sampling."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume, model_grid
from DiffusionSegmentBackend.models.model import Model
from DiffusionSegmentBackend.models.tile_shape import TileShape
from DiffusionSegmentBackend.pipeline.options import SegmentOptions
from DiffusionSegmentBackend.pipeline.region import box_for, region_mask
from DiffusionSegmentBackend.pipeline.segment import build_segmentation, open_session
from DiffusionSegmentBackend.schema.run_options import box_region
from numpy.typing import NDArray

LIVER = 6


def lps_of(volume: Volume, voxels: NDArray) -> NDArray[np.float64]:
    """LPS mm of voxels (N, 3) given as k, j, i."""
    return voxels[:, ::-1] @ volume.index_to_lps[:3, :3].T + volume.index_to_lps[:3, 3]


def test_labels_are_inside_the_region_and_there_as_without_a_region(model: Model, phantom_ct: Volume) -> None:
    previews: list[NDArray[np.uint8]] = []
    options = SegmentOptions(samples=1, steps=1, force=True)
    whole = build_segmentation(open_session(phantom_ct, model, options, preview=previews.append), model, bodypart=False)
    centre = lps_of(phantom_ct, np.argwhere(whole.labels == LIVER)).mean(axis=0)
    region = box_region(*(edge for c in centre for edge in (c - 40, c + 40)))
    chosen = SegmentOptions(samples=1, steps=1, region=region)
    session = open_session(phantom_ct, model, chosen, preview=previews.append)
    result = build_segmentation(session, model, bodypart=False)
    for labels in (result.labels, previews[1]):
        distance = np.abs(lps_of(phantom_ct, np.argwhere(labels > 0)) - centre)
        assert distance.max() <= 40 + 3.0  # a voxel of the grid
        assert distance.max() > 30
    organs = result.labels > 0
    assert float(np.mean(result.labels[organs] == whole.labels[organs])) > 0.9
    assert result.uncertainty[whole.labels == 0][:1000].max(initial=0) <= 1
    assert result.report["provenance"]["region"] == list(region)
    assert "in the region of interest" in " ".join(result.report["warnings"])
    assert previews[0].shape == previews[1].shape == phantom_ct.array.shape
    assert float(np.mean(previews[0] == whole.labels)) > 0.95


def test_an_oblique_box_contains_the_voxels_inside_it() -> None:
    grid = model_grid(Volume(np.zeros((20, 20, 20), np.int16), np.diag([3.0, 3.0, 3.0, 1.0])), spacing=(3.0, 3.0, 3.0))
    half = math.sqrt(0.5)
    turned = np.array([[half, -half, 0, 30.0], [half, half, 0, 30.0], [0, 0, 1, 30.0], [0, 0, 0, 1.0]])
    mask = region_mask(tuple((turned @ np.diag([21.0, 3.0, 6.0, 1.0])).ravel()), grid)
    # Along its long axis, the diagonal of x and y.
    assert bool(mask[10, 14, 14])
    assert bool(mask[10, 6, 6])
    assert not bool(mask[10, 14, 6])
    assert not bool(mask[10, 10, 13])
    assert not bool(mask[14, 10, 10])


def test_the_networks_get_a_whole_tile_and_context_around_any_region() -> None:
    mask = torch.zeros(100, 80, 90, dtype=torch.bool)
    mask[98:, 2:4, 40:50] = True
    box = box_for(mask, (slice(0, 100), slice(10, 70), slice(0, 90)), tile=TileShape.cube(64))
    assert all(s.stop - s.start >= 64 and s.start >= 0 and s.stop <= n for s, n in zip(box, mask.shape, strict=True))
    assert box[0].stop == 100
    assert box[1].start <= 2
    assert box[2].start <= 24
    assert box[2].stop >= 66


@pytest.mark.parametrize(
    ("region", "code", "words"),
    [
        ((0.0,) * 16, ErrorCode.OPTION, "no volume"),
        ((1.0, 2.0), ErrorCode.OPTION, "no volume"),
        (box_region(0, 10, 5, 5, 0, 10), ErrorCode.OPTION, "no volume"),
        (box_region(9000, 9010, 0, 10, 0, 10), ErrorCode.GEOMETRY, "outside the scan"),
    ],
)
def test_an_empty_region_or_one_outside_the_scan_is_refused(
    model: Model, phantom_ct: Volume, region: tuple[float, ...], code: ErrorCode, words: str
) -> None:
    with pytest.raises(DiffusionSegmentError, match=words) as caught:
        open_session(phantom_ct, model, SegmentOptions(region=region))
    assert caught.value.code is code
