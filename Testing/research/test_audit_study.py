"""`study audit`: segmentations of models on labelled cases, and how well the audit network finds their errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from DiffusionSegmentBackend.datasets.labelled_cases import Case
from DiffusionSegmentBackend.imaging.volume import Volume, model_grid
from DiffusionSegmentBackend.models.model import Model, load_model
from DiffusionSegmentResearch.audit.network import AuditNetwork
from DiffusionSegmentResearch.studies.audit import audit_rows, audited_case, left_out_values
from DiffusionSegmentResearch.studies.audit_cases import AuditCase, predicted_case
from DiffusionSegmentResearch.studies.audit_measures import Detection, at_precision, auroc, detections

SPACING = (3.0, 3.0, 3.0)
MM = 12.0


@pytest.fixture(scope="module")
def case(tiny: Model) -> Case:
    """Two organs, of which the expert has drawn the first."""
    random = np.random.default_rng(0)
    image = random.uniform(-0.5, 0.5, (16, 16, 32)).astype(np.float32)
    grid = model_grid(Volume(image, np.diag([MM, MM, MM, 1.0])), spacing=tiny.description.spacing_mm)
    labels = np.zeros(image.shape, np.uint8)
    labels[4:10, 4:10, 4:12] = 1
    labels[4:10, 4:10, 20:28] = 2
    return Case("case", image, labels, grid, drawn=frozenset({1}))


def test_a_case_to_audit_has_voxels_of_3_mm_and_the_organs_drawn(tiny: Model, case: Case) -> None:
    found = predicted_case(case, tiny)
    assert found.organs == (1,)
    assert found.labels.shape == found.truth.shape == found.image.shape == found.doubt.shape
    # The box around the body is a whole number of voxels of 12 mm.
    assert all(side % 4 == 0 for side in found.truth.shape)
    assert np.count_nonzero(found.truth == 1) == 4**3 * 6 * 6 * 8
    assert set(np.unique(found.truth)) == {0, 1}
    assert set(np.unique(found.labels)) <= {0, 1}
    assert 0 <= found.doubt.min() <= found.doubt.max() < 1


@pytest.fixture
def labels_and_truth() -> tuple[np.ndarray, np.ndarray]:
    """A label map that lacks a large piece of its organ, 5.8 mL, and has no other error."""
    truth = np.zeros((40, 40, 40), np.uint8)
    truth[10:30, 10:30, 10:30] = 1
    labels = truth.copy()
    labels[10:16, 10:16, 10:16] = 0
    return labels, truth


def test_a_region_over_the_error_finds_it_and_one_over_everything_does_not(
    labels_and_truth: tuple[np.ndarray, np.ndarray],
) -> None:
    labels, truth = labels_and_truth
    wrong = (labels != truth).astype(np.float32) * 0.6
    assert detections(wrong, labels, truth, SPACING)[5] == Detection(regions=1, right=1, errors=1, found=1)
    everything = np.full(truth.shape, 0.6, np.float32)
    assert detections(everything, labels, truth, SPACING)[5] == Detection(regions=1, right=0, errors=1, found=0)
    assert detections(wrong * 0, labels, truth, SPACING)[5] == Detection(errors=1)


def test_a_thin_region_is_none(labels_and_truth: tuple[np.ndarray, np.ndarray]) -> None:
    labels, truth = labels_and_truth
    rim = np.zeros(truth.shape, np.float32)
    rim[9, 10:30, 10:30] = 0.9
    assert detections(rim, labels, truth, SPACING)[0].regions == 0


def test_a_case_does_not_choose_its_own_threshold() -> None:
    precise = (Detection(10, 3, 5, 5), Detection(2, 2, 5, 2))
    vague = (Detection(4, 3, 5, 3), Detection(0, 0, 5, 0))
    # Alone, the first case reaches 0.55 at the second threshold only, the second case at both.
    total = at_precision([precise, vague])
    assert total == precise[0] + vague[1]
    assert total.precision == pytest.approx(0.3)
    assert at_precision([vague, vague]) == vague[0] + vague[0]
    assert at_precision([vague, vague]).recall == pytest.approx(0.6)


def test_without_a_region_precision_is_1_and_without_an_error_recall_is_unknown() -> None:
    assert Detection().precision == 1.0
    assert np.isnan(Detection().recall)


def test_auroc_by_ranks() -> None:
    positive = np.repeat([False, True], 30)
    assert auroc(np.arange(60, dtype=np.float32), positive) == 1.0
    assert auroc(np.zeros(60, np.float32), positive) == 0.5
    assert auroc(np.zeros(30, np.float32), positive[:30]) is None


class _KnowsTheError(AuditNetwork):
    """Logits from the image, which shows where the error is."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return 8 * inputs[:, :1]


@pytest.fixture
def audit_case(labels_and_truth: tuple[np.ndarray, np.ndarray]) -> AuditCase:
    labels, truth = labels_and_truth
    image = np.where(labels != truth, 1.0, -1.0).astype(np.float32)
    doubt = np.full(labels.shape, 0.1, np.float32)
    return AuditCase(name="case", image=image, labels=labels, truth=truth, doubt=doubt, organs=(1,))


def test_a_network_that_knows_the_error_scores_1_and_constant_doubt_scores_a_half(audit_case: AuditCase) -> None:
    audited = audited_case(_KnowsTheError().eval(), audit_case)
    scores = {name: values[1] for name, values in audited.aurocs.items()}
    assert scores.pop("audit network") == 1.0
    assert scores.pop("doubt of the segmenter") == 0.5
    assert list(scores) == ["distance to its surface"]
    assert audited.detections["audit network"][5] == Detection(1, 1, 1, 1)
    # The image accuses the expert's map as well, in one region.
    assert audited.expert_detections[5] == Detection(1, 0, 0, 0)
    wrong_ml = np.count_nonzero(audit_case.labels != audit_case.truth) * 0.027
    assert audited.expected_ml == pytest.approx((wrong_ml, wrong_ml), rel=0.25)


def test_rows_tell_organs_of_the_training_from_others(tiny: Model, audit_case: AuditCase) -> None:
    network, description = _KnowsTheError().eval(), tiny.description
    title = description.labels[0].title
    rows = {row.name: row.numbers for row in audit_rows(network, [audit_case] * 2, description, never_seen=frozenset())}
    assert rows["tiny, audit network"] == {
        "label maps": 2,
        "AUROC": 1.0,
        "organs audited in training": 1.0,
        "gross errors": 2,
        "recall of regions": 1.0,
        "precision of regions": 1.0,
    }
    assert rows[f"tiny, {title}"] == {"AUROC": 1.0}
    assert rows["tiny, expert label maps"]["without a region"] == 0
    other = {row.name: row.numbers for row in audit_rows(network, [audit_case], description, never_seen=None)}
    assert other["tiny, audit network"]["organs never audited"] == 1.0
    clean = replace(audit_case, labels=audit_case.truth)
    names = {row.name: row.numbers for row in audit_rows(network, [clean], description, never_seen=None)}
    assert "AUROC" not in names["tiny, audit network"]


def test_the_organs_left_out_are_those_of_the_shipped_model() -> None:
    assert len(left_out_values(load_model("abdomen-ct", "cpu").description)) == 3
