"""Geometry of a DICOM series: one regular grid for all slices, or an error that names the slice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import read_volume
from fixtures.dicom_files import slices, small_ct, write
from pydicom.dataset import Dataset
from scipy.spatial.transform import Rotation


def assert_same(actual: Volume, expected: Volume, atol: float = 1e-4) -> None:
    np.testing.assert_array_equal(actual.array, expected.array)
    np.testing.assert_allclose(actual.index_to_lps, expected.index_to_lps, atol=atol)


def tilted(degrees: float) -> Volume:
    """Slices turned about x and stacked along the table, as in a scan with gantry tilt."""
    volume = small_ct()
    angle = np.deg2rad(degrees)
    matrix = volume.index_to_lps.copy()
    matrix[:3, 1] = 1.1 * np.array([0.0, np.cos(angle), np.sin(angle)])
    return Volume(volume.array, matrix)


@pytest.mark.parametrize("degrees", [-30, -8, 20])
def test_a_gantry_tilt_keeps_its_sheared_matrix(tmp_path: Path, degrees: float) -> None:
    volume = tilted(degrees)
    assert_same(read_volume(write(slices(volume), tmp_path)), volume)
    assert "gantry tilt" in read_volume(tmp_path).notes[0]


def test_an_oblique_series_keeps_its_matrix_with_files_in_any_order(tmp_path: Path) -> None:
    volume = small_ct()
    matrix = volume.index_to_lps.copy()
    matrix[:3, :3] = Rotation.from_euler("xyz", (12, -7, 30), degrees=True).as_matrix() * (0.8, 1.1, 2.5)
    images = slices(Volume(volume.array, matrix), InstanceNumber=lambda k: str((k * 5) % 8))
    order = np.random.default_rng(1).permutation(len(images))
    assert_same(read_volume(write([images[n] for n in order], tmp_path)), Volume(volume.array, matrix))


def test_slices_from_head_to_feet_are_stacked_from_feet_to_head(tmp_path: Path) -> None:
    volume = small_ct()
    assert_same(read_volume(write(slices(volume)[::-1], tmp_path)), volume)


@pytest.mark.parametrize("distance", [0.625, 1.25, 0.3])
def test_positions_rounded_to_one_decimal_are_accepted(tmp_path: Path, distance: float) -> None:
    volume = small_ct((0.0, 0.0, distance), shape=(40, 6, 7))
    images = slices(volume)
    for image in images:
        image.ImagePositionPatient = [f"{float(v):.1f}" for v in image.ImagePositionPatient]
    loaded = read_volume(write(images, tmp_path))
    np.testing.assert_array_equal(loaded.array, volume.array)
    np.testing.assert_allclose(loaded.index_to_lps, volume.index_to_lps, atol=0.06)
    np.testing.assert_allclose(loaded.spacing[2], distance, atol=0.005)


def test_orientation_noise_is_accepted_and_leaves_no_shear(tmp_path: Path) -> None:
    volume = small_ct()
    images = slices(volume)
    rng = np.random.default_rng(3)
    for image in images:
        image.ImageOrientationPatient = [f"{v + rng.normal() * 1e-4:.6f}" for v in (1, 0, 0, 0, 1, 0)]
    loaded = read_volume(write(images, tmp_path))
    np.testing.assert_allclose(loaded.index_to_lps, volume.index_to_lps, atol=1e-3)
    axes = loaded.index_to_lps[:3, :3] / loaded.spacing
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-9)


def moved(k: int, mm: tuple[float, float, float]) -> Callable[[list[Dataset]], None]:
    def change(images: list[Dataset]) -> None:
        position = np.array(images[k].ImagePositionPatient, dtype=float) + mm
        images[k].ImagePositionPatient = [f"{v:.4f}" for v in position]

    return change


def half_beside(images: list[Dataset]) -> None:
    for k in range(4, 8):
        moved(k, (3.0, 0.0, 0.0))(images)


def missing_slice(images: list[Dataset]) -> None:
    del images[3]


def changing_distance(images: list[Dataset]) -> None:
    for k in range(4, 8):
        moved(k, (0.0, 0.0, 1.5 * (k - 3)))(images)


def other_spacing(images: list[Dataset]) -> None:
    for image in images[4:]:
        image.PixelSpacing = ["1.0", "0.7"]


def turned_slice(images: list[Dataset]) -> None:
    images[5].ImageOrientationPatient = ["0.9962", "0.0872", "0", "-0.0872", "0.9962", "0"]


def no_position(images: list[Dataset]) -> None:
    del images[2].ImagePositionPatient


def same_height(images: list[Dataset]) -> None:
    images[6].ImagePositionPatient = images[5].ImagePositionPatient


def skewed_axes(images: list[Dataset]) -> None:
    for image in images:
        image.ImageOrientationPatient = ["1", "0", "0", "0.2", "0.98", "0"]


def interleaved_stack(images: list[Dataset]) -> None:
    """A second stack of the same series overlaps the first by three slices, between them."""
    other = slices(small_ct(), SOPInstanceUID=lambda k: f"1.2.3.{k}")
    for k, image in enumerate(other):
        image.ImagePositionPatient = ["-120", "33.5", f"{801 + 2.5 * (k + 5) + 1.2:.4f}"]
    images += other


WRONG: list[tuple[Callable[[list[Dataset]], None], str]] = [
    (moved(2, (0.0, 1.0, 0.0)), "002.dcm"),
    (moved(7, (0.4, 0.0, 0.0)), "007.dcm"),
    (half_beside, "away from the line"),
    (missing_slice, "slices are missing"),
    (changing_distance, "not evenly spaced: 2.50 mm between 000.dcm and 001.dcm, 4.00 mm elsewhere"),
    (other_spacing, "PixelSpacing"),
    (turned_slice, "005.dcm of"),
    (no_position, "002.dcm of"),
    (same_height, "005.dcm and 006.dcm"),
    (skewed_axes, "right angles"),
    (interleaved_stack, "not evenly spaced"),
]


@pytest.mark.parametrize(("corrupt", "words"), WRONG, ids=[f"{n} {words}" for n, (_, words) in enumerate(WRONG)])
def test_a_slice_off_the_grid_is_named(
    tmp_path: Path, corrupt: Callable[[list[Dataset]], None], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    images = slices(small_ct())
    corrupt(images)
    with pytest.raises(DiffusionSegmentError) as caught:
        read_volume(write(images, tmp_path))
    assert caught.value.code is ErrorCode.GEOMETRY
    assert words in str(caught.value)
    assert caught.value.hint
    assert capfd.readouterr() == ("", "")


def test_a_gradually_growing_slice_distance_is_refused(tmp_path: Path) -> None:
    """Each distance is only slightly larger than the one before."""
    images = slices(small_ct(shape=(40, 6, 7)))
    for k in range(40):
        moved(k, (0.0, 0.0, 0.005 * k * k))(images)
    with pytest.raises(DiffusionSegmentError, match="not evenly spaced"):
        read_volume(write(images, tmp_path))
