"""A label map is brought to the voxels of its scan, or is refused with the difference between the grids."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.alignment import align_to_scan
from DiffusionSegmentBackend.imaging.label_maps import read_label_map
from DiffusionSegmentBackend.imaging.shear import straight_grid, straightened
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import read_volume, write_map, write_volume

SHAPE = (7, 8, 9)
MATRIX = np.array([[0.8, 0.0, 0.0, -90.3], [0.0, 0.8, 0.0, -70.1], [0.0, 0.0, 2.5, 301.7], [0, 0, 0, 1.0]])
TILTED = np.array([[0.8, 0.0, 0.0, -90.3], [0.0, 0.75, 0.0, -70.1], [0.0, 0.27, 2.5, 301.7], [0, 0, 0, 1.0]])
SCAN = Volume(np.zeros(SHAPE, np.int16), MATRIX)
SEGMENTS = {
    "Segment0_ID": "Segment_1",
    "Segment0_Name": "liver",
    "Segment0_LabelValue": "6",
    "Segment0_Layer": "0",
    "Segment1_Name": "spleen",
    "Segment1_LabelValue": "1",
    "Segment1_Layer": "0",
}


@pytest.fixture
def labels() -> np.ndarray:
    array = np.zeros(SHAPE, np.uint8)
    array[2:4, 3:6, 4:8] = 6
    array[5, 1:3, 2:4] = 1
    return array


def moved(matrix: np.ndarray, ijk: tuple[float, float, float]) -> np.ndarray:
    """The matrix of a volume that begins at that voxel."""
    result = matrix.copy()
    result[:3, 3] = (matrix @ [*ijk, 1])[:3]
    return result


def write_segmentation(path: Path, array: np.ndarray, matrix: np.ndarray, pairs: dict[str, str]) -> Path:
    """A .seg.nrrd file as 3D Slicer writes it; with an axis of layers first when the array (k, j, i, layer) has one."""
    sizes = [*array.shape[3:], *array.shape[2::-1]]
    vectors = ["none"] * (array.ndim - 3) + ["(" + ",".join(map(str, matrix[:3, c])) + ")" for c in range(3)]
    header = [
        *("NRRD0004", "type: unsigned char", f"dimension: {array.ndim}", "space: left-posterior-superior"),
        f"sizes: {' '.join(map(str, sizes))}",
        f"space directions: {' '.join(vectors)}",
        f"kinds: {'list ' * (array.ndim - 3)}domain domain domain",
        "encoding: raw",
        f"space origin: ({','.join(map(str, matrix[:3, 3]))})",
        *(f"{name}:={value}" for name, value in pairs.items()),
    ]
    path.write_bytes(("\n".join(header) + "\n\n").encode() + array.astype(np.uint8).tobytes())
    return path


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("flips", list(product((1, -1), repeat=3)))
def test_axes_in_another_order_and_flips_are_undone(
    tmp_path: Path, labels: np.ndarray, order: tuple[int, ...], flips: tuple[int, ...]
) -> None:
    image = nibabel.Nifti1Image(labels.T, np.diag([-1, -1, 1, 1]) @ MATRIX)
    turned = image.as_reoriented([[axis, flip] for axis, flip in zip(order, flips, strict=True)])
    nibabel.save(turned, tmp_path / "labels.nii")
    np.testing.assert_array_equal(read_label_map(tmp_path / "labels.nii", SCAN), labels)


def test_a_segmentation_cropped_by_slicer_is_padded_to_the_scan(tmp_path: Path, labels: np.ndarray) -> None:
    path = write_segmentation(tmp_path / "a.seg.nrrd", labels[1:6, 1:7, 2:9], moved(MATRIX, (2, 1, 1)), SEGMENTS)
    np.testing.assert_array_equal(read_label_map(path, SCAN), labels)


def test_layers_that_do_not_overlap_become_one_label_map(tmp_path: Path, labels: np.ndarray) -> None:
    layers = np.stack([np.where(labels == 6, 6, 0), np.where(labels == 1, 1, 0)], axis=-1)
    path = write_segmentation(tmp_path / "a.seg.nrrd", layers, MATRIX, SEGMENTS | {"Segment1_Layer": "1"})
    np.testing.assert_array_equal(read_label_map(path, SCAN), labels)


def test_segments_that_overlap_or_share_a_label_value_are_refused(tmp_path: Path, labels: np.ndarray) -> None:
    layers = np.stack([labels, np.where(labels == 6, 1, 0)], axis=-1)
    path = write_segmentation(tmp_path / "a.seg.nrrd", layers, MATRIX, SEGMENTS | {"Segment1_Layer": "1"})
    with pytest.raises(DiffusionSegmentError, match="overlap: 24 voxels"):
        read_label_map(path, SCAN)
    shared = SEGMENTS | {"Segment1_Layer": "1", "Segment1_LabelValue": "6"}
    path = write_segmentation(tmp_path / "b.seg.nrrd", layers, MATRIX, shared)
    with pytest.raises(DiffusionSegmentError, match="numbers several segments 6: liver, spleen"):
        read_label_map(path, SCAN)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_float_labels_are_accepted_within_a_thousandth_of_an_integer(
    tmp_path: Path, labels: np.ndarray, kind: type
) -> None:
    write_volume(Volume(labels.astype(kind) * 0.9999, MATRIX), tmp_path / "labels.nii.gz")
    np.testing.assert_array_equal(read_label_map(tmp_path / "labels.nii.gz", SCAN), labels)


@pytest.mark.parametrize(
    ("change", "value"),
    [
        (lambda labels: labels * 0.999, "5.994"),
        (lambda labels: labels.astype(np.int16) * 100, "600"),
        (lambda labels: labels.astype(np.int16) - 1, "-1"),
        (lambda labels: labels + 0.5 * (labels == 6), "6.5"),
    ],
)
def test_invalid_label_values_are_named_in_the_error(tmp_path: Path, labels: np.ndarray, change, value: str) -> None:
    write_volume(Volume(change(labels), MATRIX), tmp_path / "labels.nii.gz")
    with pytest.raises(DiffusionSegmentError, match=f"holds the value {value}") as caught:
        read_label_map(tmp_path / "labels.nii.gz", SCAN)
    assert caught.value.code is ErrorCode.INPUT_VALUES


def test_an_origin_rounded_to_one_decimal_is_accepted(tmp_path: Path, labels: np.ndarray) -> None:
    rounded = MATRIX.copy()
    rounded[:3, 3] = np.round(MATRIX[:3, 3] + 0.04, 1)
    write_volume(Volume(labels, rounded), tmp_path / "labels.nii.gz")
    np.testing.assert_array_equal(read_label_map(tmp_path / "labels.nii.gz", SCAN), labels)


@pytest.mark.parametrize(
    ("cut", "matrix", "reason"),
    [
        (np.s_[3:], moved(MATRIX, (0, 0, 3)), "does not cover the whole scan"),
        (np.s_[1:], MATRIX, "does not cover the whole scan"),
        (np.s_[:], moved(MATRIX, (0.4, 0, 0)), "0.32 mm apart"),
        (np.s_[:], MATRIX @ np.diag([2, 2, 1, 1]), "1.6 x 1.6 x 2.5 and 0.8 x 0.8 x 2.5 mm"),
    ],
)
def test_a_map_on_another_grid_is_refused_with_the_difference(
    tmp_path: Path, labels: np.ndarray, cut: slice, matrix: np.ndarray, reason: str
) -> None:
    write_volume(Volume(labels[cut], matrix), tmp_path / "labels.nii.gz")
    with pytest.raises(DiffusionSegmentError, match=reason) as caught:
        read_label_map(tmp_path / "labels.nii.gz", SCAN)
    assert caught.value.code is ErrorCode.GEOMETRY
    assert str(tmp_path / "labels.nii.gz") in caught.value.message


def test_labelled_voxels_outside_the_scan_are_refused(labels: np.ndarray) -> None:
    larger = Volume(np.pad(labels, 2, constant_values=3), moved(MATRIX, (-2, -2, -2)))
    with pytest.raises(DiffusionSegmentError, match="voxels of the map lie outside"):
        align_to_scan(larger, SCAN, what="Both", hint="Crop it.")
    larger = Volume(np.pad(labels, 2), moved(MATRIX, (-2, -2, -2)))
    np.testing.assert_array_equal(align_to_scan(larger, SCAN, what="Both", hint="Crop it."), labels)


SHEARS = [
    TILTED,
    np.array([[0.8, 0.3, -1.0, 5], [0.0, 0.7, 0.9, 6], [0.1, 0.0, 2.5, 7], [0, 0, 0, 1.0]]),
    np.array([[-0.8, 0.0, 0.4, 5], [0.0, 0.0, -2.5, 6], [0.0, -0.9, 0.6, 7], [0, 0, 0, 1.0]]),
]


@pytest.mark.parametrize("matrix", SHEARS)
def test_voxels_of_a_sheared_scan_stay_within_half_a_voxel_on_the_straight_grid(matrix: np.ndarray) -> None:
    numbered = np.arange(1, np.prod(SHAPE) + 1).reshape(SHAPE)
    straight = straightened(Volume(numbered, matrix))
    for k, j, i in [(0, 0, 0), (6, 7, 8), (3, 2, 5), (6, 0, 0)]:
        (index,) = np.argwhere(straight.array == numbered[k, j, i])
        position = straight.index_to_lps @ [*index[::-1], 1]
        difference = np.linalg.inv(straight.index_to_lps[:3, :3]) @ (position - matrix @ [i, j, k, 1])[:3]
        assert np.abs(difference).max() <= 0.5 + 1e-9
    grid = straight_grid(matrix, SHAPE)
    np.testing.assert_array_equal(grid.sheared(grid.straightened(numbered)), numbered)


def centre_mm(array: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    k, j, i = np.argwhere(array == 6).mean(axis=0)
    return (matrix @ [i, j, k, 1])[:3]


def test_itk_and_nibabel_read_the_map_of_a_sheared_scan_at_its_position(tmp_path: Path, labels: np.ndarray) -> None:
    tall = np.zeros((40, 60, 50), np.uint8)
    tall[25:35, 20:45, 10:30] = 6
    scan = Volume(tall.astype(np.int16), TILTED)
    write_map(Volume(tall, TILTED), tmp_path / "labels.nii.gz")
    image = sitk.ReadImage(str(tmp_path / "labels.nii.gz"))
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    matrix[:3, 3] = image.GetOrigin()
    other = nibabel.load(tmp_path / "labels.nii.gz")
    expected = centre_mm(tall, TILTED)
    assert np.abs(centre_mm(sitk.GetArrayFromImage(image), matrix) - expected).max() < 0.4
    assert np.abs(centre_mm(np.asarray(other.dataobj).T, np.diag([-1, -1, 1, 1]) @ other.affine) - expected).max() < 0.4
    # Read again, it is unchanged in the voxels of the scan.
    np.testing.assert_array_equal(read_label_map(tmp_path / "labels.nii.gz", scan), tall)


def test_a_map_of_a_straight_scan_is_written_unchanged(tmp_path: Path, labels: np.ndarray) -> None:
    write_map(Volume(labels, MATRIX), tmp_path / "labels.nii.gz")
    again = read_volume(tmp_path / "labels.nii.gz")
    np.testing.assert_array_equal(again.array, labels)
    np.testing.assert_allclose(again.index_to_lps, MATRIX, atol=1e-4)
