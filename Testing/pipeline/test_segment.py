"""The pipeline on a phantom with the bundled weights: geometry, reproducibility, uncertainty, cancel, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.errors import Cancelled, DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume, model_grid
from DiffusionSegmentBackend.models.model import Model
from DiffusionSegmentBackend.pipeline.features import body_box
from DiffusionSegmentBackend.pipeline.options import SegmentOptions
from DiffusionSegmentBackend.pipeline.restore import restore_labels
from DiffusionSegmentBackend.pipeline.segment import Segmentation, segment
from DiffusionSegmentBackend.pipeline.tiling import Tiling
from DiffusionSegmentBackend.pipeline.uncertainty import SampleStatistics, entropy, volume_interval_ml

FAST = SegmentOptions(samples=2, steps=1, seed=5)


def test_maps_have_the_scans_geometry_and_ranges(result: Segmentation, phantom_ct: Volume) -> None:
    shape = phantom_ct.array.shape
    assert result.labels.shape == result.uncertainty.shape == result.mutual_information.shape == shape
    assert result.labels.dtype == np.uint8
    assert result.labels.max() <= 13
    for values in (result.uncertainty, result.mutual_information):
        assert values.dtype == np.float32
        assert values.min() >= 0
        assert values.max() <= 1
    assert result.bodypart is not None
    assert result.bodypart.shape == (*shape, 3)


def test_organs_are_on_the_correct_side(result: Segmentation, phantom_ct: Volume) -> None:
    def left(value: int) -> float:
        k, j, i = np.argwhere(result.labels == value).mean(axis=0)
        return float((phantom_ct.index_to_lps @ (i, j, k, 1))[0])

    assert left(6) < left(1)
    assert left(2) < left(3)


def test_body_coordinates_rise_along_each_axis(result: Segmentation, phantom_ct: Volume) -> None:
    body = phantom_ct.array > -200
    z, y, x = np.nonzero(body)
    assert result.bodypart is not None
    for axis, position in enumerate((x, y, z)):
        assert np.corrcoef(result.bodypart[body][:, axis], position)[0, 1] > 0.8


def test_uncertainty_is_higher_at_boundaries_of_organs(result: Segmentation) -> None:
    edge = np.zeros(result.labels.shape, dtype=bool)
    for axis in range(3):
        edge |= np.roll(result.labels, 1, axis) != result.labels
    inside = (result.labels > 0) & ~edge
    assert result.uncertainty[edge].mean() > 2 * result.uncertainty[inside].mean()


def test_the_report_has_organs_regions_provenance_and_timings(result: Segmentation, phantom_ct: Volume) -> None:
    report = result.report
    assert [organ["value"] for organ in report["organs"]] == list(range(1, 14))
    for organ in report["organs"]:
        counted = np.count_nonzero(result.labels == organ["value"]) * phantom_ct.voxel_ml
        assert organ["volume_ml"] == pytest.approx(counted, abs=0.01)
        low, high = organ["volume_interval_ml"]
        assert low <= organ["volume_ml"] <= high
    scores = [region["score"] for region in report["review"]]
    assert scores == sorted(scores, reverse=True)
    assert "?" in report["review"][0]["sentence"]
    assert report["provenance"]["seed"] == 5
    assert set(report["timings_s"]) == {"prepare", "bodypart", "features", "refine", "restore", "total"}


def test_a_seed_reproduces_the_result_bitwise_and_another_gives_other_samples(
    result: Segmentation, model: Model, phantom_ct: Volume
) -> None:
    again = segment(phantom_ct, model, FAST)
    np.testing.assert_array_equal(again.labels, result.labels)
    np.testing.assert_array_equal(again.uncertainty, result.uncertainty)
    other = segment(phantom_ct, model, SegmentOptions(samples=2, steps=1, seed=6))
    assert not np.array_equal(other.mutual_information, result.mutual_information)


def test_the_result_does_not_depend_on_the_axes_of_the_file(
    result: Segmentation, model: Model, phantom_ct: Volume
) -> None:
    """The same scan stored with its slices as columns, top first."""
    last = phantom_ct.array.shape[0] - 1
    old_from_new = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [-1, 0, 0, last], [0, 0, 0, 1.0]])
    turned = Volume(phantom_ct.array.transpose(1, 2, 0)[:, :, ::-1], phantom_ct.index_to_lps @ old_from_new)
    labels = segment(turned, model, FAST).labels
    np.testing.assert_array_equal(labels, result.labels.transpose(1, 2, 0)[:, :, ::-1])


def test_only_requested_organs_are_segmented(model: Model, phantom_ct: Volume) -> None:
    segmentation = segment(phantom_ct, model, SegmentOptions(samples=1, steps=1, organs=("liver", "spleen")))
    assert set(np.unique(segmentation.labels)) <= {0, 1, 6}
    assert [organ["name"] for organ in segmentation.report["organs"]] == ["spleen", "liver"]


def test_a_run_is_cancelled_at_the_next_tile(model: Model, phantom_ct: Volume) -> None:
    calls = []

    def stop(stage: str, done: int, total: int) -> None:
        calls.append(stage)
        if stage == "refine":
            raise Cancelled

    with pytest.raises(Cancelled):
        segment(phantom_ct, model, FAST, progress=stop)
    assert calls.count("refine") == 1


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"samples": 0}, "samples"),
        ({"steps": 1000}, "steps"),
        ({"sampler": "euler"}, "sampler"),
        ({"schedule": "square"}, "schedule"),
        ({"abar_start": 1.0}, "abar_start"),
        ({"organs": ("heart",)}, "heart"),
        ({"seed": -1}, "seed"),
    ],
)
def test_options_out_of_range_are_refused(
    model: Model, phantom_ct: Volume, options: dict[str, object], word: str
) -> None:
    with pytest.raises(DiffusionSegmentError, match=word) as caught:
        segment(phantom_ct, model, SegmentOptions(**options))  # type: ignore[arg-type]
    assert caught.value.code is ErrorCode.OPTION


def test_an_mr_is_refused_unless_forced(model: Model, phantom_ct: Volume) -> None:
    mr = Volume((phantom_ct.array.astype(np.float32) + 1024).clip(0) / 2, phantom_ct.index_to_lps)
    with pytest.raises(DiffusionSegmentError) as caught:
        segment(mr, model, FAST)
    assert caught.value.code is ErrorCode.MODALITY
    with pytest.raises(DiffusionSegmentError, match="MR"):
        segment(phantom_ct, model, SegmentOptions(modality="MR"))


def test_a_scan_without_organs_is_refused(model: Model) -> None:
    water = np.full((40, 60, 60), -1000, dtype=np.int16)
    water[10:30, 20:40, 20:40] = 0
    with pytest.raises(DiffusionSegmentError) as caught:
        segment(Volume(water, np.diag([3.0, 3.0, 3.0, 1.0])), model, FAST)
    assert caught.value.code is ErrorCode.BODY_PART_MISMATCH


class TestTiling:
    def test_blending_tiles_of_a_field_gives_the_field(self) -> None:
        field = torch.randn(2, 70, 81, 64)
        tiling = Tiling((70, 81, 64), (64, 64, 64))
        blended = tiling.blend(lambda _, tile: field[(slice(None), *tile)], channels=2)
        torch.testing.assert_close(blended, field, rtol=1e-4, atol=1e-5)

    def test_every_voxel_is_covered(self) -> None:
        tiling = Tiling((130, 64, 65), (64, 64, 64))
        ones = tiling.blend(lambda index, tile: torch.ones(1, 64, 64, 64), channels=1)
        torch.testing.assert_close(ones, torch.ones_like(ones))


class TestUncertainty:
    def test_entropy_is_0_for_one_class_and_1_for_equal_classes(self) -> None:
        assert float(entropy(torch.tensor([[1.0], [0.0], [0.0]]))) == 0
        assert float(entropy(torch.full((3, 1), 1 / 3))) == pytest.approx(1)

    def test_mutual_information_is_the_disagreement_of_samples(self) -> None:
        agree, disagree = (SampleStatistics.empty(2, (1, 1, 1)) for _ in range(2))
        for n in range(2):
            agree.add(torch.full((2, 1, 1, 1), 0.5))
            disagree.add(torch.eye(2)[:, n].reshape(2, 1, 1, 1))
        assert float(agree.mutual_information) == pytest.approx(0, abs=1e-6)
        assert float(disagree.mutual_information) == pytest.approx(1)

    def test_the_volume_interval_is_between_two_level_sets(self) -> None:
        probability = np.array([1.0, 0.96, 0.5, 0.06, 0.01])
        assert volume_interval_ml(probability, 2.0) == (4.0, 8.0)


def test_restore_keeps_the_position_of_a_block() -> None:
    labels = np.zeros((20, 40, 40), dtype=np.uint8)
    labels[5:15, 10:30, 10:30] = 1
    volume = Volume(labels, np.diag([1.5, 1.5, 3.0, 1.0]))
    grid = model_grid(volume, spacing=(3.0, 3.0, 3.0))
    share = torch.from_numpy(grid.to_grid(labels == 1))
    probabilities = torch.stack([1 - share, share])[:, 2:18, 3:18, 3:18]
    restored = restore_labels(probabilities, (2, 3, 3), grid)
    assert 2 * np.count_nonzero(restored & labels) / (restored.sum() + labels.sum()) > 0.95
    np.testing.assert_allclose(np.argwhere(restored).mean(axis=0), np.argwhere(labels).mean(axis=0), atol=0.05)


def test_body_box_excludes_air() -> None:
    image = torch.full((50, 100, 100), -1.0)
    image[10:40, 30:70, 20:80] = 0.2
    box = body_box(image, min_shape=(16, 16, 16))
    assert [(s.start, s.stop) for s in box] == [(10, 40), (30, 70), (20, 80)]


def test_body_box_includes_a_spinal_cord_alone_in_masked_slices() -> None:
    image = torch.full((50, 100, 100), -1.0)
    image[20:40, 30:70, 20:80] = 0.2
    image[4:20, 60:63, 49:52] = 0.1
    image[2, 0, 0] = 0.1
    assert body_box(image, min_shape=(16, 16, 16))[0] == slice(4, 40)
