"""Similar voxels: high in the organ of the point and at its position; an invalid point gives a one-line error."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.cli.main import main
from DiffusionSegmentBackend.errors import Cancelled, DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume, model_grid
from DiffusionSegmentBackend.imaging.volume_io import read_volume, write_volume
from DiffusionSegmentBackend.models.model import Model, load_model
from DiffusionSegmentBackend.phantom.phantom import Phantom, make_phantom
from DiffusionSegmentBackend.pipeline.interactive.similarity import (
    DenseDescriptors,
    describe_scan,
    similar_region,
    similarity_map,
    similarity_on_grid,
    voxel_at,
)

LIVER, SPLEEN, AORTA = 6, 1, 8
SPACING = (6.0, 6.0, 6.0)
SLICES = slice(22, 46)
Point = tuple[float, float, float]


@pytest.fixture(scope="module", autouse=True)
def own_models(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFUSION_SEGMENT_MODELS", str(tmp_path_factory.mktemp("models")))


@pytest.fixture(scope="module")
def features_model() -> Model:
    return load_model("abdomen-ct", "cpu", with_refiner=False)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    whole = make_phantom(seed=3, spacing_mm=SPACING)
    matrix = whole.index_to_lps.copy()
    matrix[:3, 3] += SLICES.start * matrix[:3, 2]
    return Phantom(whole.image[SLICES].copy(), whole.labels[SLICES].copy(), matrix)


@pytest.fixture(scope="module")
def scan(phantom: Phantom) -> Volume:
    return Volume(phantom.image, phantom.index_to_lps)


@pytest.fixture(scope="module")
def descriptors(scan: Volume, features_model: Model) -> DenseDescriptors:
    return describe_scan(scan, features_model)


def middle_of(phantom: Phantom, organ: int) -> Point:
    """A point in LPS mm inside an organ, next to its middle."""
    voxels = np.argwhere(phantom.labels == organ)
    k, j, i = voxels[np.argmin(((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1))]
    x, y, z, _ = phantom.index_to_lps @ (i, j, k, 1.0)
    # A little beside the voxel's centre, which is where two voxels of the model's grid meet.
    return float(x) + 0.7, float(y) + 0.7, float(z) + 0.7


@pytest.mark.parametrize("organ", [LIVER, SPLEEN])
def test_the_organ_of_the_point_is_more_similar_than_the_rest(
    descriptors: DenseDescriptors, phantom: Phantom, organ: int
) -> None:
    similarity = similarity_map(descriptors, middle_of(phantom, organ))
    assert similarity.shape == phantom.labels.shape
    assert similarity.dtype == np.float32
    assert similarity.min() >= -1
    assert similarity.max() <= 1.0001
    body = phantom.image > -200
    inside, outside = similarity[phantom.labels == organ], similarity[body & (phantom.labels != organ)]
    assert np.median(inside) > np.percentile(outside, 95)


def test_similarity_is_high_at_the_point_itself(descriptors: DenseDescriptors, phantom: Phantom) -> None:
    point = middle_of(phantom, LIVER)
    similarity = similarity_on_grid(descriptors, point)
    assert similarity.array[voxel_at(similarity, point)] > 0.9
    assert similarity.array[voxel_at(similarity, point)] > np.percentile(similarity.array, 99)


def test_the_map_on_the_grid_agrees_with_the_map_of_the_scan(
    descriptors: DenseDescriptors, phantom: Phantom, scan: Volume
) -> None:
    point = middle_of(phantom, SPLEEN)
    coarse, fine = similarity_on_grid(descriptors, point), similarity_map(descriptors, point)
    grid = model_grid(scan, spacing=(3.0, 3.0, 3.0))
    assert np.allclose(coarse.spacing, grid.spacing)
    random = np.random.default_rng(0)
    for k, j, i in np.argwhere(phantom.labels == SPLEEN)[random.integers(0, 200, 20)]:
        position = scan.index_to_lps @ (i, j, k, 1.0)
        assert abs(coarse.array[voxel_at(coarse, (position[0], position[1], position[2]))] - fine[k, j, i]) < 0.35


def test_a_flipped_scan_gives_the_flipped_map(
    descriptors: DenseDescriptors, phantom: Phantom, scan: Volume, features_model: Model
) -> None:
    mirrored = scan.index_to_lps.copy()
    mirrored[:3, 2] *= -1
    mirrored[:3, 3] += scan.index_to_lps[:3, 2] * (scan.array.shape[0] - 1)
    turned = Volume(np.ascontiguousarray(scan.array[::-1]), mirrored)
    point = middle_of(phantom, LIVER)
    again = similarity_map(describe_scan(turned, features_model), point)
    np.testing.assert_allclose(again[::-1], similarity_map(descriptors, point), atol=0.01)


def test_descriptors_are_normalised_and_in_half_precision(descriptors: DenseDescriptors) -> None:
    finest = descriptors.levels[0].shape[1:]
    for n, level in enumerate(descriptors.levels):
        assert level.dtype == torch.float16
        assert tuple(level.shape[1:]) == tuple(side // 2**n for side in finest)
        lengths = level.float().norm(dim=0)
        assert torch.allclose(lengths, torch.ones_like(lengths), atol=0.01)


def test_further_points_are_fast(descriptors: DenseDescriptors, phantom: Phantom) -> None:
    point = middle_of(phantom, AORTA)
    similarity_on_grid(descriptors, point)
    began = time.perf_counter()
    similarity_on_grid(descriptors, point)
    assert time.perf_counter() - began < 2


def line_of(values: list[float]) -> Volume:
    return Volume(np.array(values, np.float32).reshape(1, 1, -1), np.eye(4))


def test_the_region_is_connected_with_the_point() -> None:
    similarity = line_of([0.9, 0.8, 0.1, 0.9, 0.7])
    assert similar_region(similarity, (0, 0, 0), 0.7).ravel().tolist() == [True, True, False, False, False]
    assert similar_region(similarity, (4, 0, 0), 0.7).ravel().tolist() == [False, False, False, True, True]
    assert not similar_region(similarity, (2, 0, 0), 0.7).any()


@pytest.mark.parametrize("threshold", [-1.5, 1.01, float("nan")])
def test_a_threshold_out_of_range_is_refused(threshold: float) -> None:
    with pytest.raises(DiffusionSegmentError, match="threshold") as caught:
        similar_region(line_of([1.0]), (0, 0, 0), threshold)
    assert caught.value.code is ErrorCode.OPTION


@pytest.mark.parametrize("point", [(5000.0, 0.0, 0.0), (0.0, 0.0, -5000.0), (float("nan"), 0.0, 0.0)])
def test_a_point_outside_the_scan_is_refused(descriptors: DenseDescriptors, point: Point) -> None:
    with pytest.raises(DiffusionSegmentError, match="outside") as caught:
        similarity_on_grid(descriptors, point)
    assert caught.value.code is ErrorCode.OPTION


def test_describing_a_scan_can_be_cancelled(scan: Volume, features_model: Model) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        describe_scan(scan, features_model, progress=stop)


def test_the_command_writes_map_and_region(
    tmp_path: Path, phantom: Phantom, scan: Volume, capsys: pytest.CaptureFixture[str]
) -> None:
    write_volume(scan, tmp_path / "ct.nii.gz")
    x, y, z = middle_of(phantom, LIVER)
    source, out = str(tmp_path / "ct.nii.gz"), str(tmp_path / "out")
    assert main(["similar", source, "--point", f"{x},{y},{z}", "-o", out, "--device", "cpu"]) == 0
    similarity, region = read_volume(Path(out, "similarity.nii.gz")), read_volume(Path(out, "region.nii.gz"))
    assert similarity.array.shape == region.array.shape == phantom.labels.shape
    assert set(np.unique(region.array)) == {0, 1}
    assert np.mean(phantom.labels[region.array > 0] == LIVER) > 0.5
    capsys.readouterr()
    for point in ("9000,0,0", "here", "1,2"):
        assert main(["similar", source, f"--point={point}", "-o", str(tmp_path / "none"), "-q"]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "none").exists()
