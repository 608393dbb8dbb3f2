"""A model of the second generation, with a finer grid than its trunk, supports every operation of a model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.commands.features import write_features_of
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import write_volume
from DiffusionSegmentBackend.models.model import Model, load_model
from DiffusionSegmentBackend.models.pre_segmenter import ProbedFeatures, WholeSegmenter
from DiffusionSegmentBackend.models.tile_shape import TileShape
from DiffusionSegmentBackend.models.user_models import export_model, import_model
from DiffusionSegmentBackend.networks.bodypart import normalised, whole_volume_coordinates
from DiffusionSegmentBackend.phantom.phantom import Phantom
from DiffusionSegmentBackend.pipeline import segment as segment_module
from DiffusionSegmentBackend.pipeline.constraints import one_hot_scribbles
from DiffusionSegmentBackend.pipeline.dense_features import scan_features
from DiffusionSegmentBackend.pipeline.features import body_coordinates
from DiffusionSegmentBackend.pipeline.interactive.alternatives import alternative_map, grid_alternatives
from DiffusionSegmentBackend.pipeline.interactive.correction import Corrections, correct
from DiffusionSegmentBackend.pipeline.interactive.scribbles import REACH_VOXELS, Descriptors, spread
from DiffusionSegmentBackend.pipeline.interactive.similarity import (
    describe_scan,
    similarity_map,
    similarity_on_grid,
    voxel_at,
)
from DiffusionSegmentBackend.pipeline.memory import MemoryPlan
from DiffusionSegmentBackend.pipeline.options import SegmentOptions
from DiffusionSegmentBackend.pipeline.segment import Segmentation, build_segmentation, open_session, segment
from DiffusionSegmentBackend.pipeline.session import Session
from DiffusionSegmentBackend.training.fine_tuned_model import fine_tune_user_model
from DiffusionSegmentBackend.training.fine_tuning import LabelledVolume, fine_tune_probe
from DiffusionSegmentBackend.training.loop import Budget
from fixtures.segmenter_model import CHANNELS, CLASSES, NAME, anisotropic_phantom, scan_of, write_segmenter_model
from numpy.typing import NDArray
from scipy import ndimage

OPTIONS = SegmentOptions(seed=5, force=True)
LIVER = 6


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(autouse=True)
def own_models(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUSION_SEGMENT_MODELS", str(models))


@pytest.fixture(scope="module")
def model(models: Path) -> Model:
    return load_model(str(write_segmenter_model(models)), "cpu", precision="float32")


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return anisotropic_phantom()


@pytest.fixture(scope="module")
def scan(phantom: Phantom) -> Volume:
    return scan_of(phantom)


@pytest.fixture(scope="module")
def session(model: Model, scan: Volume) -> Session:
    return open_session(scan, model, OPTIONS)


@pytest.fixture(scope="module")
def reference(session: Session, model: Model) -> Segmentation:
    result = build_segmentation(session, model, bodypart=True)
    counts = np.bincount(result.labels.ravel(), minlength=CLASSES)
    assert np.count_nonzero(counts > 50) >= 2, "a map of one label would always compare as equal"
    return result


class TestSegment:
    def test_the_prediction_is_on_the_fine_grid(self, session: Session, model: Model) -> None:
        assert session.grid.spacing == (6.0, 6.0, 12.0)
        assert model.tile == TileShape((16, 32, 32), (1, 2, 2))
        pairs = session.prediction.pre.unfold(3, 2, 2)
        assert float((pairs[..., 0] - pairs[..., 1]).abs().max()) > 0.05, "voxels of one trunk voxel differ"

    def test_a_result_contains_all_maps(self, reference: Segmentation, scan: Volume) -> None:
        assert reference.labels.shape == scan.array.shape
        assert reference.bodypart is not None
        assert reference.bodypart.shape == (*scan.array.shape, 3)
        assert reference.uncertainty.max() > 0
        assert not reference.mutual_information.any()
        assert reference.regions.max() == len(reference.report.review)
        assert reference.report.provenance.plan.samples == 0
        json.dumps(reference.report.to_json(), allow_nan=False)

    def test_body_coordinates_are_those_of_the_trunks_grid(self, session: Session, model: Model) -> None:
        coordinates = body_coordinates(session.image, model)
        z, y, x = session.image.shape
        even = session.image[:, : y // 2 * 2, : x // 2 * 2]
        coarse = torch.nn.functional.avg_pool3d(even[None, None], (1, 2, 2))[0, 0]
        expected = whole_volume_coordinates(model.bodypart, coarse)
        own = torch.nn.functional.avg_pool3d(coordinates[:, :, : y // 2 * 2, : x // 2 * 2][None], (1, 2, 2))[0]
        inner = (slice(None), slice(1, -1), slice(1, -1), slice(1, -1))
        assert float((own[inner] - expected[inner]).abs().mean()) < 0.1 * float(expected.std())
        assert normalised(coordinates).shape == (3, z, y, x)

    def test_a_region_of_interest_limits_the_result_and_a_preview_is_sent(
        self, model: Model, scan: Volume, reference: Segmentation
    ) -> None:
        previews: list[NDArray[np.uint8]] = []
        centre = scan.index_to_lps @ [*(n / 2 for n in scan.shape_ijk), 1.0]
        box = np.diag([60.0, 60.0, 60.0, 1.0])
        box[:3, 3] = centre[:3]
        options = replace(OPTIONS, region=tuple(box.ravel()))
        inside = build_segmentation(open_session(scan, model, options, preview=previews.append), model, bodypart=False)
        assert previews[0].shape == scan.array.shape
        assert 0 < np.count_nonzero(inside.labels) < np.count_nonzero(reference.labels)

    def test_a_scan_in_parts_gives_the_labels_of_the_whole_scan(
        self, model: Model, scan: Volume, reference: Segmentation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plans: list[int | None] = []

        def in_parts(size: Any, limit_gb: float | None) -> MemoryPlan:
            plans.append(28)
            return MemoryPlan(28, True, 1)

        tall = np.concatenate([scan.array, scan.array[::-1]])
        long = Volume(tall, scan.index_to_lps)
        whole = segment(long, model, OPTIONS).labels
        monkeypatch.setattr(segment_module, "choose_memory_plan", in_parts)
        parts = segment(long, model, OPTIONS).labels
        assert plans == [28]
        assert float(np.mean(parts == whole)) > 0.999
        assert np.count_nonzero(whole) > 1000

    def test_predicted_memory_is_proportional_to_the_tile(self, model: Model, session: Session) -> None:
        small = model.pre_segmenter.footprint(model.tile, torch.float32)
        large = model.pre_segmenter.footprint(TileShape.cube(64, (1, 2, 2)), torch.float32)
        assert large.pass_bytes == pytest.approx(64 * small.pass_bytes)
        assert session.memory_plan.bytes > small.pass_bytes


ORIENTATIONS = [
    (order, flips)
    for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
    for flips in np.ndindex(2, 2, 2)
]


def oriented(volume: Volume, order: tuple[int, ...], flips: tuple[int, ...]) -> tuple[Volume, tuple[slice, ...]]:
    """The same scan with its array's axes in another order and direction; the slices undo the flips."""
    slices = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    old_from_new = np.zeros((4, 4))
    old_from_new[3, 3] = 1
    for new, (old, flip) in enumerate(zip(order, flips, strict=True)):
        old_from_new[2 - old, 2 - new] = -1 if flip else 1
        old_from_new[2 - old, 3] = volume.array.shape[old] - 1 if flip else 0
    return Volume(volume.array.transpose(order)[slices], volume.index_to_lps @ old_from_new), slices


def test_all_48_orientations_of_one_scan_give_the_same_labels(
    model: Model, scan: Volume, reference: Segmentation
) -> None:
    agreement = 1.0
    for order, flips in ORIENTATIONS:
        reoriented, slices = oriented(scan, order, flips)
        labels = segment(reoriented, model, OPTIONS).labels[slices].transpose(np.argsort(order))
        agreement = min(agreement, float(np.mean(labels == reference.labels)))
    assert len(ORIENTATIONS) == 48
    assert agreement > 0.999


class TestCorrections:
    @pytest.fixture(scope="class")
    @staticmethod
    def scribbles(reference: Segmentation) -> NDArray[np.uint8]:
        """A patch in the middle of the largest organ that gives it another label."""
        organ = 1 + np.bincount(reference.labels.ravel())[1:].argmax()
        positions = np.argwhere(ndimage.binary_erosion(reference.labels == organ, iterations=1))
        k, j, i = positions[len(positions) // 2]
        scribbles = np.zeros_like(reference.labels)
        scribbles[k, j - 1 : j + 2, i - 1 : i + 2] = 1 + 1 + organ % (CLASSES - 1)
        return scribbles

    def test_scribbles_have_an_effect_up_to_the_same_distance_in_mm_along_each_axis(
        self, model: Model, session: Session, reference: Segmentation, scribbles: NDArray[np.uint8], scan: Volume
    ) -> None:
        correction, after = correct(session, model, Corrections(labels=reference.labels, scribbles=scribbles))
        whole = reference.labels.copy()
        whole[correction.box] = correction.labels
        assert (whole[scribbles > 0] == scribbles[scribbles > 0] - 1).all()
        changed = np.argwhere(whole != reference.labels)
        assert len(changed) > np.count_nonzero(scribbles), "voxels around the scribbles change too"
        distance = ndimage.distance_transform_cdt(scribbles == 0, metric="chessboard")
        assert distance[tuple(changed.T)].max() * 7.0 <= (REACH_VOXELS + 1) * 12.0
        assert after.corrected is not None

    def test_scribbles_spread_by_intensity_within_a_trunk_voxel(self) -> None:
        pre = torch.full((2, 4, 8, 8), 0.0)
        pre[0] = 1.0
        image = torch.full((4, 8, 8), -0.8)
        image[:, :, ::2] = 0.8
        scribbles = torch.zeros((4, 8, 8), dtype=torch.uint8)
        scribbles[2, 4, 4] = 2
        spreading = spread(pre, one_hot_scribbles(scribbles, 2), Descriptors(torch.ones(3, 4, 4, 4), image, (1, 2, 2)))
        assert float(spreading[1, 2, 4, 2]) > 0.5
        assert float(spreading[1, 2, 4, 3]) < 0.1


def test_without_samples_there_is_one_alternative(session: Session, reference: Segmentation) -> None:
    (only,) = grid_alternatives(session)
    predicted, expected = alternative_map(only, session) > 0, reference.labels > 0
    assert 2 * np.count_nonzero(predicted & expected) / (np.count_nonzero(predicted) + np.count_nonzero(expected)) > 0.9


class TestFeatures:
    def test_similarity_is_computed_from_the_features_of_the_trunk(
        self, model: Model, scan: Volume, phantom: Phantom
    ) -> None:
        descriptors = describe_scan(scan, model)
        assert [level.shape[0] for level in descriptors.levels] == CHANNELS
        assert descriptors.grid.spacing == (12.0, 12.0, 12.0)
        voxels = np.argwhere(phantom.labels == LIVER)
        k, j, i = (int(n) for n in voxels[np.argmin(((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1))])
        x, y, z, _ = scan.index_to_lps @ (i, j, k, 1.0)
        point = (float(x), float(y), float(z))
        similarity, on_grid = similarity_map(descriptors, point), similarity_on_grid(descriptors, point)
        assert similarity.shape == scan.array.shape
        assert similarity[k, j, i] > np.percentile(similarity[similarity > -1], 90)
        assert on_grid.array[voxel_at(on_grid, point)] > np.percentile(on_grid.array, 99)

    def test_tiles_of_features_start_at_multiples_of_the_coarsest_stride(self, model: Model, scan: Volume) -> None:
        """With an overlap of a quarter, tiles of 20 trunk voxels would start at multiples of 15 instead of 4."""
        odd = replace(model, description=replace(model.description, tile=TileShape.cube(20, (1, 2, 2))))
        features = scan_features(scan, odd)
        z, y, x = features.image.shape
        assert [tuple(level.shape[1:]) for level in features.levels] == [(z >> n, y >> n, x >> n) for n in range(3)]
        assert all(torch.isfinite(level).all() for level in features.levels)

    def test_features_of_a_noisy_scan_are_written_with_their_geometry(
        self, models: Path, model: Model, scan: Volume, tmp_path: Path
    ) -> None:
        write_volume(scan, tmp_path / "scan.nii.gz")
        write_features_of(
            str(tmp_path / "scan.nii.gz"), tmp_path / "out", model_name=str(models / NAME), timestep=200, device="cpu"
        )
        record = json.loads((tmp_path / "out" / "features.json").read_text(encoding="utf-8"))
        assert record["network_timestep"] == 200
        assert [level["spacing_mm"][0] for level in record["levels"]] == [12.0, 24.0, 48.0]


class TestFineTuning:
    @pytest.fixture(scope="class")
    @staticmethod
    def case(scan: Volume, phantom: Phantom) -> LabelledVolume:
        return LabelledVolume(scan, np.asarray(phantom.labels))

    def test_a_probe_learns_an_organ_from_trunk_features(
        self, model: Model, case: LabelledVolume, tmp_path: Path
    ) -> None:
        budget = Budget(steps=240, minutes=5.0, learning_rate=1e-2, ema_decay=0.9)
        probe = fine_tune_probe([case], {LIVER: "liver"}, model, budget=budget, folder=tmp_path)
        assert isinstance(model.pre_segmenter, WholeSegmenter)
        description = replace(model.description, labels=model.description.labels[:1])
        probed = ProbedFeatures(model.pre_segmenter.trunk, probe)
        result = segment(case.volume, replace(model, pre_segmenter=probed, description=description), OPTIONS)
        inside, truth = result.labels > 0, case.labels == LIVER
        assert np.count_nonzero(inside & truth) > 0.7 * np.count_nonzero(inside)
        assert np.count_nonzero(inside & truth) > 0.05 * np.count_nonzero(truth)

    def test_a_fine_tuned_model_shares_the_segmenter_and_can_be_exported(
        self, model: Model, case: LabelledVolume, tmp_path: Path
    ) -> None:
        base = load_model(NAME, "cpu", precision="float32")
        fine_tune_user_model([case], {LIVER: "my liver"}, base=base, name="fine-tuned", minutes=0.01)
        fine_tuned = load_model("fine-tuned", "cpu", precision="float32")
        assert set(fine_tuned.pre_segmenter.networks) == {"segmenter", "probe"}
        assert fine_tuned.tile == model.tile
        assert segment(case.volume, fine_tuned, OPTIONS).labels.shape == case.labels.shape
        export_model("fine-tuned", tmp_path / "fine-tuned.zip")
        assert import_model(tmp_path / "fine-tuned.zip", replace=True) == "fine-tuned"


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ({"trunk_spacing_mm": [12.0, 12.0, 24.0]}, "stride"),
        ({"trunk_spacing_mm": [9.0, 12.0, 12.0]}, "trunk_spacing_mm must be"),
        ({"tile_voxels": [30, 32, 16]}, "multiples of"),
        ({"tile_voxels": [31, 32, 16]}, "tile_voxels must be"),
        ({"channels": [8, 16, 32]}, "channels"),
        ({"labels": []}, "classes"),
    ],
)
def test_a_manifest_that_does_not_fit_its_network_is_refused_in_one_line(
    tmp_path: Path, described: dict[str, Any], words: str
) -> None:
    folder = write_segmenter_model(tmp_path, **described)
    with pytest.raises(DiffusionSegmentError, match=words) as caught:
        load_model(str(folder), "cpu")
    assert caught.value.code is ErrorCode.WEIGHTS_CORRUPT
    assert "\n" not in str(caught.value)
