"""Label maps on other grids than the scan's: the label with the largest share of each voxel, in patient coordinates."""

from __future__ import annotations

import numpy as np
import pytest
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.resampled_labels import fit_to_scan, resampled_labels
from DiffusionSegmentBackend.imaging.volume import Volume
from numpy.typing import NDArray

CENTRE = np.array([30.0, 30.0, 30.0])
TURNED = np.array([[np.cos(0.3), -np.sin(0.3), 0.0], [np.sin(0.3), np.cos(0.3), 0.0], [0.0, 0.0, 1.0]])
SHEARED = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.3], [0.0, 0.0, 1.0]])


def grid(
    spacing: tuple[float, float, float],
    shape: tuple[int, int, int],
    *,
    axes: NDArray[np.float64] | None = None,
) -> Volume:
    """An empty volume (k, j, i) of this spacing (i, j, k) whose middle is `CENTRE`."""
    matrix = np.eye(4)
    matrix[:3, :3] = (np.eye(3) if axes is None else axes) @ np.diag(spacing)
    matrix[:3, 3] = CENTRE - matrix[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2)
    return Volume(np.zeros(shape, np.uint8), matrix)


def spheres(volume: Volume) -> Volume:
    """Two half spheres, 3 and 7, around a ball of 9, drawn exactly in patient coordinates."""
    k, j, i = np.indices(volume.array.shape)
    points = np.stack([i, j, k, np.ones_like(i)], axis=-1) @ volume.index_to_lps.T
    distance = np.linalg.norm(points[..., :3] - CENTRE, axis=-1)
    labels = np.where(distance < 20, np.where(points[..., 0] < CENTRE[0], 3, 7), 0)
    return Volume(np.where(distance < 8, 9, labels).astype(np.uint8), volume.index_to_lps)


def dice(first: NDArray[np.uint8], second: NDArray[np.uint8], value: int) -> float:
    both = np.count_nonzero((first == value) & (second == value))
    return 2 * both / (np.count_nonzero(first == value) + np.count_nonzero(second == value))


FINE = grid((1.0, 1.0, 1.0), (60, 60, 60))


@pytest.mark.parametrize(
    ("scan", "min_dice"),
    [
        (grid((0.7, 0.7, 2.5), (24, 80, 80)), 0.96),
        (grid((3.0, 3.0, 4.0), (14, 20, 20)), 0.85),
        (grid((0.7, 2.5, 0.7), (80, 24, 80), axes=np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])), 0.96),
        (grid((1.0, 1.0, 2.0), (30, 60, 60), axes=TURNED), 0.94),
        (grid((1.0, 1.0, 2.0), (30, 60, 60), axes=SHEARED), 0.94),
    ],
    ids=["finer", "coarser", "permuted", "oblique", "sheared"],
)
def test_labels_are_where_they_are_in_the_patient(scan: Volume, min_dice: float) -> None:
    labels = resampled_labels(spheres(FINE), scan)
    expected = spheres(scan).array
    assert sorted(np.unique(labels)) == [0, 3, 7, 9]
    assert min(dice(labels, expected, value) for value in (3, 7, 9)) > min_dice


@pytest.mark.parametrize("axes", [None, TURNED], ids=["parallel", "oblique"])
def test_a_voxel_has_the_label_with_the_largest_share_not_the_nearest_one(axes: NDArray[np.float64] | None) -> None:
    """Of five fine slices in each thick one, the middle one has another label than the others."""
    fine = grid((1.0, 1.0, 1.0), (50, 20, 20))
    fine.array[:] = np.array([4, 4, 6, 4, 4], np.uint8)[np.arange(50) % 5][:, None, None]
    thick = grid((1.0, 1.0, 5.0), (10, 8, 8), axes=axes)
    assert (resampled_labels(fine, thick)[1:-1] == 4).all()


def test_equal_grids_in_other_orientations_are_not_resampled() -> None:
    labels = spheres(FINE)
    flipped = Volume(labels.array[::-1].copy(), labels.index_to_lps @ _flip_k(60))
    fitted = fit_to_scan(flipped, FINE, what="The map")
    np.testing.assert_array_equal(fitted.labels, labels.array)
    assert (fitted.covered, fitted.notes) == (None, ())


def _flip_k(count: int) -> NDArray[np.float64]:
    matrix = np.diag([1.0, 1.0, -1.0, 1.0])
    matrix[2, 3] = count - 1
    return matrix


def test_a_crop_is_copied_and_the_rest_of_the_scan_is_unknown() -> None:
    labels = spheres(FINE)
    matrix = labels.index_to_lps.copy()
    matrix[:3, 3] += matrix[:3, 2] * 12
    crop = Volume(labels.array[12:52], matrix)
    fitted = fit_to_scan(crop, FINE, what="The map")
    np.testing.assert_array_equal(fitted.labels[12:52], crop.array)
    assert not fitted.labels[:12].any()
    assert fitted.covered is not None
    assert fitted.covered[12:52].all()
    assert not fitted.covered[:12].any()
    assert not fitted.covered[52:].any()
    assert fitted.notes == ("The map covers 67 % of the scan: the rest was not reviewed.",)
    background = fit_to_scan(crop, FINE, what="The map", whole=False)
    np.testing.assert_array_equal(background.labels, fitted.labels)
    assert background.covered is None


def test_labels_outside_the_scan_are_left_out_with_their_volume() -> None:
    labels = spheres(FINE)
    scan = Volume(np.zeros((30, 60, 60), np.int16), labels.index_to_lps)
    fitted = fit_to_scan(labels, scan, what="The map")
    np.testing.assert_array_equal(fitted.labels, labels.array[:30])
    lost = np.count_nonzero(labels.array[30:]) / 1000
    assert fitted.notes == (f"{lost:.1f} mL of The map lie outside the scan and were left out.",)


def test_other_voxels_are_stated() -> None:
    (note,) = fit_to_scan(spheres(FINE), grid((2.0, 2.0, 2.0), (25, 25, 25)), what="The map").notes
    assert note == "The map has voxels of 1 x 1 x 1 mm, the scan of 2 x 2 x 2 mm: it was resampled."
    half = Volume(FINE.array, FINE.index_to_lps + np.array([[0.0, 0, 0, 0.5], *[[0, 0, 0, 0]] * 3]))
    notes = fit_to_scan(spheres(FINE), half, what="The map", whole=False).notes
    assert notes == ("The voxels of The map lie between those of the scan: it was resampled.",)


def test_a_map_beside_the_scan_is_refused() -> None:
    matrix = FINE.index_to_lps.copy()
    matrix[0, 3] += 200
    with pytest.raises(DiffusionSegmentError, match="does not overlap the scan: their centres lie 200 mm") as caught:
        fit_to_scan(spheres(FINE), Volume(FINE.array, matrix), what="The map")
    assert caught.value.code is ErrorCode.GEOMETRY
