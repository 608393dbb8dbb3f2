"""Signed distance of boxes, whose surface is known."""

from __future__ import annotations

import numpy as np
from DiffusionSegmentBackend.imaging.signed_distance import signed_distance


def test_the_surface_lies_between_voxels_and_inside_is_positive() -> None:
    mask = np.zeros((9, 9, 9), bool)
    mask[3:6] = True
    np.testing.assert_allclose(signed_distance(mask, (2.0, 2.0, 2.0))[:, 4, 4], [-5, -3, -1, 1, 3, 1, -1, -3, -5])


def test_a_mask_at_the_edge_continues_beyond_it() -> None:
    mask = np.zeros((5, 4, 4), bool)
    mask[3:] = True
    np.testing.assert_allclose(signed_distance(mask, (1.0, 1.0, 1.0))[:, 2, 2], [-2.5, -1.5, -0.5, 0.5, 1.5])


def test_an_empty_mask_is_far_from_everything() -> None:
    assert (signed_distance(np.zeros((2, 3, 4), bool), (1.0, 1.0, 1.0)) == -1000).all()
