"""A segmentation of another source is the result voxel by voxel; the model states where it is probably wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.models.model import Model, load_model
from DiffusionSegmentBackend.pipeline.interactive.alternatives import grid_alternatives
from DiffusionSegmentBackend.pipeline.interactive.correction import Corrections, correct
from DiffusionSegmentBackend.pipeline.interactive.scribbles import reach
from DiffusionSegmentBackend.pipeline.interactive.session_files import (
    UnusableSessionError,
    read_session,
    write_session,
)
from DiffusionSegmentBackend.pipeline.options import SegmentOptions, run_plan_of
from DiffusionSegmentBackend.pipeline.restore import restore_nearest
from DiffusionSegmentBackend.pipeline.reviewed import mix_with_given
from DiffusionSegmentBackend.pipeline.segment import Segmentation, build_segmentation, open_session
from DiffusionSegmentBackend.pipeline.session import GIVEN_WEIGHT, Session
from DiffusionSegmentBackend.pipeline.uncertainty import error_probability
from DiffusionSegmentBackend.schema.report import AlarmKind
from DiffusionSegmentBackend.schema.run_options import box_region
from fixtures.correction_cases import GENERATIONS, RIGHT_KIDNEY, SPLEEN
from fixtures.tiny_model import coarse_phantom
from numpy.typing import NDArray

ALL = ("spleen", "right_kidney", "left_kidney")
OTHER = 255


@pytest.fixture(scope="module", params=GENERATIONS)
def model(request: pytest.FixtureRequest, models: Path) -> Model:
    return load_model(str(models / request.param), "cpu")


@pytest.fixture(scope="module")
def scan() -> Volume:
    return coarse_phantom()


def options(given: NDArray[np.uint8] | None = None, organs: tuple[str, ...] | None = ALL) -> SegmentOptions:
    return SegmentOptions(samples=1, steps=1, force=True, organs=organs, reviewed=given)


def review(
    scan: Volume, model: Model, given: NDArray[np.uint8], organs: tuple[str, ...] | None = ALL
) -> tuple[Session, Segmentation]:
    session = open_session(scan, model, options(given, organs))
    return session, build_segmentation(session, model, bodypart=False)


@pytest.fixture(scope="module")
def own(scan: Volume, model: Model) -> NDArray[np.uint8]:
    """The model's own segmentation."""
    session = open_session(scan, model, options())
    return build_segmentation(session, model, bodypart=False).labels


@pytest.fixture(scope="module")
def wrong(own: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The model's own segmentation, in which the spleen is erased and half of it is called right kidney."""
    given = own.copy()
    voxels = np.argwhere(own == SPLEEN)
    given[tuple(voxels.T)] = 0
    given[tuple(voxels[: len(voxels) // 2].T)] = RIGHT_KIDNEY
    return given


def random_probabilities(classes: int = 4) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.rand(classes, 5, 6, 7).mul(8).softmax(dim=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_arg_max_of_the_ensemble_is_the_given_label_whatever_the_model_says(dtype: torch.dtype) -> None:
    given = torch.randint(0, 4, (5, 6, 7), dtype=torch.uint8)
    everywhere = torch.ones(given.shape, dtype=torch.bool)
    for p in (random_probabilities(), torch.nn.functional.one_hot((given.long() + 1) % 4, 4).movedim(-1, 0).float()):
        mixed = mix_with_given(p.to(dtype), given, everywhere)
        assert torch.equal(mixed.argmax(dim=0), given.long())
        torch.testing.assert_close(mixed.float().sum(dim=0), torch.ones(given.shape), atol=3e-3, rtol=0)


def test_the_error_probability_is_one_minus_what_the_model_gives_to_the_label() -> None:
    p, given = random_probabilities(), torch.randint(0, 4, (5, 6, 7), dtype=torch.uint8)
    expected = 1 - p.gather(0, given[None].long())[0]
    mixed = mix_with_given(p.clone(), given, torch.ones(given.shape, dtype=torch.bool))
    torch.testing.assert_close(error_probability(mixed, given_weight=GIVEN_WEIGHT), expected)
    torch.testing.assert_close(error_probability(p), 1 - p.amax(dim=0))


def test_what_is_not_judged_is_certain() -> None:
    p, given = random_probabilities(), torch.ones((5, 6, 7), dtype=torch.uint8)
    judged = torch.zeros(given.shape, dtype=torch.bool)
    mixed = mix_with_given(p, given, judged)
    assert torch.equal(mixed, torch.nn.functional.one_hot(given.long(), 4).movedim(-1, 0).float())


def test_the_result_is_the_given_segmentation_voxel_by_voxel(
    scan: Volume, model: Model, wrong: NDArray[np.uint8]
) -> None:
    _, result = review(scan, model, wrong)
    np.testing.assert_array_equal(result.labels, wrong)
    volumes = {organ.value: organ.volume_ml for organ in result.report.organs}
    for value, volume in volumes.items():
        assert volume == pytest.approx(np.count_nonzero(wrong == value) * scan.voxel_ml, abs=0.01)
    for organ in result.report.organs:
        low, high = organ.volume_interval_ml
        assert low <= organ.volume_ml <= high
    assert result.report.taken_out == ()


def test_the_first_region_to_review_is_what_was_changed(
    scan: Volume, model: Model, own: NDArray[np.uint8], wrong: NDArray[np.uint8]
) -> None:
    session, result = review(scan, model, wrong)
    assert np.mean((own != wrong)[result.regions == 1]) > 0.7
    first = result.report.review[0]
    assert "spleen" in (first.organ, first.competing_organ)
    assert first.score <= first.volume_ml * 1.01
    clean = review(scan, model, own)[1]
    scores = [sum(region.score for region in found.report.review) for found in (clean, result)]
    assert scores[0] < scores[1]
    error = error_probability(session.maps.ensemble, given_weight=session.given_weight)
    assert 0 <= float(error.min()) <= float(error.max()) <= 1


def test_confidence_is_what_the_model_alone_gives_to_the_labels(
    scan: Volume, model: Model, own: NDArray[np.uint8], wrong: NDArray[np.uint8]
) -> None:
    _, clean = review(scan, model, own)
    _, changed = review(scan, model, wrong)
    kidney = [result.report.organs[RIGHT_KIDNEY - 1].confidence for result in (clean, changed)]
    assert 0 <= kidney[1] < kidney[0] <= 1


def test_a_covered_organ_without_a_voxel_is_an_error_and_one_that_is_not_covered_is_none(
    scan: Volume, model: Model, own: NDArray[np.uint8]
) -> None:
    erased = np.where(own == SPLEEN, 0, own).astype(np.uint8)
    _, covered = review(scan, model, erased)
    assert {"spleen"} <= {region.organ for region in covered.report.review}
    assert [alarm.kind for alarm in covered.report.alarms if alarm.organ == "spleen"] == [AlarmKind.ABSENT]
    assert sum("spleen" in warning.casefold() for warning in covered.report.warnings) == 1
    _, partial = review(scan, model, erased, organs=("right_kidney", "left_kidney"))
    assert [organ.name for organ in partial.report.organs] == ["right_kidney", "left_kidney"]
    names = {name for region in partial.report.review for name in (region.organ, region.competing_organ)}
    assert "spleen" not in names
    assert "spleen" not in {alarm.organ for alarm in partial.report.alarms}
    assert partial.uncertainty[own == SPLEEN].mean() < covered.uncertainty[own == SPLEEN].mean()


def test_a_segmentation_of_which_the_model_sees_little_gives_a_warning(
    scan: Volume, model: Model, own: NDArray[np.uint8]
) -> None:
    def warned(given: NDArray[np.uint8]) -> bool:
        warnings = review(scan, model, given)[1].report.warnings
        return any("segmentation of another scan" in warning for warning in warnings)

    mixed_up = np.array([0, 2, 3, 1], dtype=np.uint8)[own]
    assert warned(mixed_up)
    assert not warned(own)


def test_labels_outside_the_body_give_a_warning(models: Path, own: NDArray[np.uint8]) -> None:
    model = load_model(str(models / GENERATIONS[0]), "cpu")
    phantom = coarse_phantom()
    air = np.full((60, *phantom.array.shape[1:]), -1000, dtype=phantom.array.dtype)
    scan = Volume(np.concatenate([phantom.array, air]), phantom.index_to_lps)
    given = np.zeros(scan.array.shape, dtype=np.uint8)
    given[5:8, 8:12, 8:12] = SPLEEN
    assert not any("outside the body" in text for text in review(scan, model, given)[1].report.warnings)
    given[-2:, 8:12, 8:12] = SPLEEN
    volume_ml = 2 * 4 * 4 * scan.voxel_ml
    texts = [text for text in review(scan, model, given)[1].report.warnings if "outside the body" in text]
    assert texts == [f"{volume_ml:.1f} mL of the segmentation lie outside the body, where nothing was judged."]


def test_other_structures_are_not_judged(scan: Volume, model: Model, own: NDArray[np.uint8]) -> None:
    tumour = np.where(own == SPLEEN, OTHER, own).astype(np.uint8)
    session, result = review(scan, model, tumour)
    assert not result.labels[own == SPLEEN].any()
    inside = torch.from_numpy(session.grid.labels_to_grid(tumour))
    z, y, x = (slice(o, o + n) for o, n in zip(session.prediction.offset, session.maps.ensemble.shape[1:], strict=True))
    others = inside[z, y, x] == OTHER
    assert bool(others.any())
    assert float(session.maps.ensemble[0][others].min()) == 1
    for alternative in grid_alternatives(session):
        assert not bool(alternative.labels[others].any())


def test_outside_the_region_of_interest_nothing_is_judged(scan: Volume, model: Model, wrong: NDArray[np.uint8]) -> None:
    i, j, k = (n / 2 for n in scan.shape_ijk)
    x, y, z = (scan.index_to_lps @ [i, j, k, 1])[:3]
    region = box_region(x - 60, x + 60, y - 60, y + 60, z - 60, z + 60)
    session = open_session(scan, model, replace(options(wrong), region=region))
    result = build_segmentation(session, model, bodypart=False)
    np.testing.assert_array_equal(result.labels, wrong)
    corner = np.zeros(wrong.shape, dtype=bool)
    corner[:2] = True
    assert not result.regions[corner].any()
    assert result.uncertainty[corner].max() < 1e-3


def scribbled(given: NDArray[np.uint8], own: NDArray[np.uint8], *, count: int = 2) -> NDArray[np.uint8]:
    """Scribbles of spleen in the middle of the spleen that was erased."""
    scribbles = np.zeros_like(given)
    voxels = np.argwhere((own == SPLEEN) & (given != SPLEEN))
    middle = len(voxels) // 2
    scribbles[tuple(voxels[middle : middle + count].T)] = SPLEEN + 1
    return scribbles


def test_a_correction_changes_only_what_it_reaches(
    scan: Volume, model: Model, own: NDArray[np.uint8], wrong: NDArray[np.uint8]
) -> None:
    session, result = review(scan, model, wrong)
    scribbles = scribbled(wrong, own)
    correction, after = correct(session, model, Corrections(result.labels, scribbles))
    corrected = result.labels.copy()
    corrected[correction.box] = correction.labels
    assert (corrected[scribbles > 0] == SPLEEN).all()
    assert after.scribbles is not None
    unreached = (after.maps.ensemble == session.maps.ensemble).all(dim=0)
    unreached &= ~reach(after.scribbles > 0, model.tile.stride)
    kept = restore_nearest(unreached.byte().numpy(), session.prediction.offset, session.grid) > 0
    outside = np.ones(wrong.shape, dtype=bool)
    outside[correction.box] = False
    np.testing.assert_array_equal(corrected[kept & (scribbles == 0)], wrong[kept & (scribbles == 0)])
    np.testing.assert_array_equal(corrected[outside], wrong[outside])


def test_a_correction_to_the_label_of_the_model_makes_it_certain(
    scan: Volume, model: Model, own: NDArray[np.uint8], wrong: NDArray[np.uint8]
) -> None:
    session, result = review(scan, model, wrong)
    _, after = correct(session, model, Corrections(result.labels, scribbled(wrong, own)))
    assert after.scribbles is not None
    old, new = (maps.ensemble.argmax(dim=0) for maps in (session.maps, after.maps))
    errors = [error_probability(maps.ensemble, given_weight=GIVEN_WEIGHT) for maps in (session.maps, after.maps)]
    spread = (new == SPLEEN) & (old != SPLEEN) & (after.scribbles == 0)
    assert bool(spread.any()), "the scribbles reached no other voxel"
    torch.testing.assert_close(errors[1][spread], 1 - unmixed(session)[SPLEEN][spread], atol=1e-5, rtol=0)
    same = (old == new) & (after.scribbles == 0)
    assert torch.equal(errors[0][same], errors[1][same])


def unmixed(session: Session) -> torch.Tensor:
    """The probabilities (classes, z, y, x) of the model alone."""
    ensemble = session.maps.ensemble
    given = torch.nn.functional.one_hot(ensemble.argmax(dim=0), len(ensemble)).movedim(-1, 0)
    return (ensemble - GIVEN_WEIGHT * given) / (1 - GIVEN_WEIGHT)


def test_a_correction_leaves_other_structures_and_islands_alone(
    scan: Volume, model: Model, own: NDArray[np.uint8], wrong: NDArray[np.uint8]
) -> None:
    given = wrong.copy()
    voxels = np.argwhere((own == SPLEEN) & (wrong == 0))
    scribbles = scribbled(wrong, own, count=1)
    beside = voxels[~(scribbles[tuple(voxels.T)] > 0)]
    given[tuple(beside.T)] = OTHER
    session, result = review(scan, model, given)
    correction, _ = correct(session, model, Corrections(result.labels, scribbles))
    corrected = result.labels.copy()
    corrected[correction.box] = correction.labels
    assert not corrected[(given == OTHER) & (scribbles == 0)].any()
    assert correction.report.taken_out == ()


def test_a_kept_session_belongs_to_the_segmentation_that_was_reviewed(
    scan: Volume, model: Model, own: NDArray[np.uint8], wrong: NDArray[np.uint8], tmp_path: Path
) -> None:
    session, result = review(scan, model, wrong)
    path = tmp_path / "session.zip"
    write_session(session, scan, model, options(wrong), path)
    read = read_session(path, scan, model, options(wrong))
    np.testing.assert_array_equal(build_segmentation(read, model, bodypart=False).labels, result.labels)
    scribbles = scribbled(wrong, own)
    first, again = (correct(state, model, Corrections(result.labels, scribbles))[0].labels for state in (session, read))
    assert np.mean(first != again) < 0.02
    for other in (own, None):
        with pytest.raises(UnusableSessionError, match="another run"):
            read_session(path, scan, model, options(other))


@pytest.mark.parametrize(("default", "expected"), [((4, 2), (2, 1)), ((1, 1), (1, 1))])
def test_a_review_draws_at_most_two_samples_of_one_step(
    scan: Volume, model: Model, own: NDArray[np.uint8], default: tuple[int, int], expected: tuple[int, int]
) -> None:
    samples, steps = default
    defaults = replace(model.description.defaults, samples=samples, steps=steps)
    described = replace(model, description=replace(model.description, defaults=defaults))
    plan = open_session(scan, described, SegmentOptions(force=True, reviewed=own)).run
    assert (plan.samples, plan.steps) == expected
    plan = run_plan_of(SegmentOptions(), described)
    assert (plan.samples, plan.steps) == default


def test_a_review_draws_as_many_samples_as_are_asked_for(model: Model, own: NDArray[np.uint8]) -> None:
    plan = run_plan_of(SegmentOptions(samples=3, steps=5, reviewed=own), model)
    assert (plan.samples, plan.steps) == (3, 5)


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda labels: labels[1:], ErrorCode.GEOMETRY, "shape"),
        (lambda labels: np.zeros_like(labels), ErrorCode.INPUT_VALUES, "empty"),
        (lambda labels: np.full_like(labels, OTHER), ErrorCode.INPUT_VALUES, "empty"),
        (lambda labels: np.maximum(labels, 1), ErrorCode.INPUT_VALUES, "whole scan"),
    ],
)
def test_a_segmentation_that_cannot_be_reviewed_is_refused(
    scan: Volume, model: Model, own: NDArray[np.uint8], change: object, code: ErrorCode, words: str
) -> None:
    with pytest.raises(DiffusionSegmentError, match=words) as caught:
        open_session(scan, model, options(change(own)))  # type: ignore[operator]
    assert caught.value.code is code
