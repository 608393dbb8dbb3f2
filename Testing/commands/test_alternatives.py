"""`--alternatives` and `--probabilities`: other plausible label maps and probabilities, in the geometry of the scan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.commands.alternatives import write_alternatives
from DiffusionSegmentBackend.commands.probabilities import write_probabilities
from DiffusionSegmentBackend.imaging.shear import straightened
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import read_volume
from DiffusionSegmentBackend.models.model import Model, load_model
from DiffusionSegmentBackend.pipeline import restore as restore_module
from DiffusionSegmentBackend.pipeline.options import SegmentOptions
from DiffusionSegmentBackend.pipeline.restore import restore_labels, restore_map
from DiffusionSegmentBackend.pipeline.segment import build_segmentation, open_session
from DiffusionSegmentBackend.pipeline.session import Session
from fixtures.correction_cases import (
    BACKGROUND,
    GENERATIONS,
    REFINED,
    RIGHT_KIDNEY,
    SPLEEN,
    correct,
    labels_of,
    report_of,
    segment,
    segment_by_each_model,
    write_scribbles,
)
from fixtures.tiny_model import coarse_phantom


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models, a scan, and its result with alternatives and probabilities by each model."""
    return segment_by_each_model(tmp_path_factory.mktemp("alternatives"), "--alternatives", "--probabilities")


@pytest.fixture(autouse=True)
def models(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUSION_SEGMENT_MODELS", str(results / "models"))


@pytest.fixture(scope="module")
def model(results: Path) -> Model:
    return load_model(str(results / "models" / REFINED), "cpu")


@pytest.fixture(scope="module")
def session(model: Model) -> Session:
    """A run of three samples, of which the second has the label spleen in place of right kidney."""
    run = open_session(coarse_phantom(), model, SegmentOptions(samples=3, force=True))
    first = run.prediction.sample_labels[0]
    other = torch.where(first == RIGHT_KIDNEY, torch.full_like(first, SPLEEN), first)
    return replace(run, prediction=replace(run.prediction, sample_labels=(first, other, first)))


@pytest.mark.parametrize("name", GENERATIONS)
def test_a_result_folder_holds_the_alternatives_that_its_report_lists(name: str, results: Path) -> None:
    listed = report_of(results / name)["alternatives"]
    files = sorted(path.relative_to(results / name).as_posix() for path in (results / name / "alternatives").iterdir())
    assert sorted(entry["file"] for entry in listed) == files
    assert sum(entry["share"] for entry in listed) == pytest.approx(1)
    scan, labels = read_volume(results / "ct.nii.gz"), labels_of(results / name)
    for entry in listed:
        alternative = read_volume(results / name / entry["file"])
        np.testing.assert_allclose(alternative.index_to_lps, scan.index_to_lps)
        changed = alternative.array != labels
        assert entry["differs_ml"] == pytest.approx(np.count_nonzero(changed) * scan.voxel_ml, abs=0.01)
        gained = {organ["name"]: organ["gained_ml"] for organ in entry["organs"]}
        spleen = np.count_nonzero(changed & (alternative.array == SPLEEN)) * scan.voxel_ml
        assert gained.get("spleen", 0.0) == pytest.approx(spleen, abs=0.01)


def test_identical_samples_are_one_alternative_and_the_first_has_most_samples(
    session: Session, model: Model, tmp_path: Path
) -> None:
    scan = coarse_phantom()
    labels = build_segmentation(session, model, bodypart=False).labels
    first, second = write_alternatives(session, model.description, labels, scan.index_to_lps, tmp_path)
    assert (first.samples, first.share) == (2, pytest.approx(2 / 3, abs=1e-4))
    assert (second.samples, second.share) == (1, pytest.approx(1 / 3, abs=1e-4))
    for entry, sample in zip((first, second), session.prediction.sample_labels[:2], strict=True):
        one_hot = torch.nn.functional.one_hot(sample.long(), model.description.classes).movedim(-1, 0).float()
        restored = restore_labels(one_hot, session.prediction.offset, session.grid)
        np.testing.assert_array_equal(read_volume(tmp_path / entry.file).array, restored)
    largest = second.differences[0]
    assert (largest.label, largest.instead) == ("spleen", "right_kidney")
    assert largest.sentence == f"Spleen, not right kidney: {largest.volume_ml:.1f} mL."
    index = np.linalg.inv(scan.index_to_lps) @ (*largest.position_lps_mm, 1.0)
    i, j, k = np.rint(index[:3]).astype(int)
    assert read_volume(tmp_path / second.file).array[k, j, i] == SPLEEN
    assert labels[k, j, i] == RIGHT_KIDNEY


def test_alternatives_contain_only_the_requested_organs(session: Session, model: Model, tmp_path: Path) -> None:
    only = replace(session, wanted=[SPLEEN])
    labels = build_segmentation(only, model, bodypart=False).labels
    for entry in write_alternatives(only, model.description, labels, coarse_phantom().index_to_lps, tmp_path):
        assert set(np.unique(read_volume(tmp_path / entry.file).array)) <= {BACKGROUND, SPLEEN}


@pytest.mark.parametrize("name", GENERATIONS)
def test_probabilities_of_each_organ_have_the_scans_geometry(name: str, results: Path) -> None:
    listed = report_of(results / name)["probabilities"]
    assert listed == [f"probabilities/{organ}.nii.gz" for organ in ("spleen", "right_kidney", "left_kidney")]
    scan, labels = read_volume(results / "ct.nii.gz"), labels_of(results / name)
    maps = [read_volume(results / name / file) for file in listed]
    for probability in maps:
        np.testing.assert_allclose(probability.index_to_lps, scan.index_to_lps)
        assert probability.array.min() >= 0
        assert probability.array.max() <= 1 + 1e-6
    stored = nibabel.load(results / name / listed[0])
    assert stored.get_data_dtype() == np.uint8
    spleen = maps[0].array
    others = np.maximum(maps[1].array, maps[2].array)
    assert (spleen >= others - 1 / 255)[labels == SPLEEN].all()


def test_stored_probabilities_are_those_of_the_ensemble_rounded_to_8_bits(
    session: Session, model: Model, tmp_path: Path
) -> None:
    write_probabilities(session, model.description, coarse_phantom().index_to_lps, tmp_path)
    exact = restore_map(session.maps.ensemble[SPLEEN].numpy(), session.prediction.offset, session.grid)
    stored = read_volume(tmp_path / "probabilities" / "spleen.nii.gz").array
    np.testing.assert_allclose(stored, exact, atol=0.5 / 255 + 1e-6)


def test_only_one_organ_is_in_memory_at_a_time(
    session: Session, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CT of 512 x 512 x 300 voxels takes 315 MB per organ as float32."""
    channel_counts: list[int] = []
    interpolated = restore_module.interpolated

    def recording(probabilities: torch.Tensor, *rest: object) -> torch.Tensor:
        channel_counts.append(len(probabilities))
        return interpolated(probabilities, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(restore_module, "interpolated", recording)
    write_probabilities(session, model.description, coarse_phantom().index_to_lps, tmp_path)
    assert set(channel_counts) == {1}


def test_maps_of_a_sheared_scan_have_the_straight_grid_of_its_segmentation(model: Model, tmp_path: Path) -> None:
    straight = coarse_phantom()
    tilt = np.eye(4)
    tilt[1, 2] = np.tan(np.radians(20))
    scan = Volume(straight.array, straight.index_to_lps @ tilt)
    run = open_session(scan, model, SegmentOptions(force=True))
    labels = build_segmentation(run, model, bodypart=False).labels
    write_alternatives(run, model.description, labels, scan.index_to_lps, tmp_path)
    write_probabilities(run, model.description, scan.index_to_lps, tmp_path)
    expected = straightened(Volume(labels, scan.index_to_lps))
    for name in ("alternatives/1.nii.gz", "probabilities/spleen.nii.gz"):
        volume = read_volume(tmp_path / name)
        assert volume.array.shape == expected.array.shape
        np.testing.assert_allclose(volume.index_to_lps, expected.index_to_lps, atol=1e-3)


def test_probabilities_after_a_correction_are_0_or_1_in_scribbled_voxels(results: Path, tmp_path: Path) -> None:
    scribbles = write_scribbles(
        results / REFINED, tmp_path / "scribbles.nii.gz", of=SPLEEN, label=RIGHT_KIDNEY, count=2
    )
    after = correct(results / REFINED, scribbles, tmp_path / "after", "--probabilities", "--alternatives")
    scribbled = read_volume(scribbles).array > 0
    assert read_volume(after / "probabilities" / "right_kidney.nii.gz").array[scribbled] == pytest.approx(1)
    assert read_volume(after / "probabilities" / "spleen.nii.gz").array[scribbled] == pytest.approx(0)
    assert report_of(after)["alternatives"]


@pytest.mark.parametrize("name", GENERATIONS)
def test_alternatives_after_a_correction_have_the_labels_of_the_scribbles(
    name: str, results: Path, tmp_path: Path
) -> None:
    scribbles = write_scribbles(results / name, tmp_path / "scribbles.nii.gz", of=SPLEEN, label=BACKGROUND, count=8)
    corrected = correct(results / name, scribbles, tmp_path / "corrected", "--alternatives")
    scribbled = read_volume(scribbles).array > 0
    for entry in report_of(corrected)["alternatives"]:
        assert not read_volume(corrected / entry["file"]).array[scribbled].any()


def test_a_second_run_removes_maps_that_are_no_longer_requested(results: Path, tmp_path: Path) -> None:
    folder = segment(results / "ct.nii.gz", tmp_path / "again", REFINED, "--alternatives", "--probabilities")
    (folder / "probabilities" / "mine.txt").write_text("mine", encoding="utf-8")
    segment(results / "ct.nii.gz", folder, REFINED, "--alternatives")
    assert [path.name for path in (folder / "probabilities").iterdir()] == ["mine.txt"]
    assert "probabilities" not in report_of(folder)
    segment(results / "ct.nii.gz", folder, REFINED)
    assert not (folder / "alternatives").exists()
