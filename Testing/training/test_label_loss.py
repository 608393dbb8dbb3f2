"""The loss without one-hot tensors: MONAI's value and gradient, soft labels, and classes without annotation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from DiffusionSegmentBackend.networks.space_to_depth import space_to_depth
from DiffusionSegmentBackend.training.label_loss import IGNORED, label_loss
from DiffusionSegmentBackend.training.losses import SegmentationLoss
from monai.losses import DiceLoss

CLASSES = 5
SIDES = (6, 8, 10)


@pytest.fixture
def sample() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn((2, CLASSES, *SIDES), generator=generator)
    return logits.requires_grad_(), torch.randint(CLASSES, (2, 1, *SIDES), generator=generator)


def value_and_gradient(loss: torch.Tensor, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    (gradient,) = torch.autograd.grad(loss, logits)
    return loss.detach(), gradient


@pytest.mark.parametrize("missing", [None, 3])
def test_value_and_gradient_equal_those_of_monai(
    sample: tuple[torch.Tensor, torch.Tensor], missing: int | None
) -> None:
    logits, labels = sample
    if missing is not None:
        labels = labels.masked_fill(labels == missing, 0)
    result = value_and_gradient(label_loss(logits, labels), logits)
    expected = value_and_gradient(SegmentationLoss()(logits, labels), logits)
    torch.testing.assert_close(result[0], expected[0], rtol=1e-4, atol=0)
    assert float((result[1] - expected[1]).norm() / expected[1].norm()) < 1e-4


def test_the_gradient_is_scaled_by_the_upstream_gradient(sample: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, labels = sample
    (once,) = torch.autograd.grad(label_loss(logits, labels), logits)
    (half,) = torch.autograd.grad(0.5 * label_loss(logits, labels), logits)
    torch.testing.assert_close(half, once / 2)


def test_labels_of_sub_voxels_are_averaged_to_soft_labels(sample: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, _ = sample
    fine = torch.randint(CLASSES, (2, 1, 6, 16, 20), generator=torch.Generator().manual_seed(1))
    result = value_and_gradient(label_loss(logits, space_to_depth(fine, (1, 2, 2))), logits)
    soft = F.avg_pool3d(F.one_hot(fine[:, 0], CLASSES).movedim(-1, 1).float(), (1, 2, 2))
    dice = DiceLoss(include_background=False, softmax=True, batch=True)
    expected = value_and_gradient(dice(logits, soft) + F.cross_entropy(logits, soft), logits)
    torch.testing.assert_close(result[0], expected[0], rtol=1e-4, atol=0)
    assert float((result[1] - expected[1]).norm() / expected[1].norm()) < 1e-4


def test_class_weights_are_those_of_cross_entropy_and_a_weighted_dice_mean(
    sample: tuple[torch.Tensor, torch.Tensor],
) -> None:
    logits, labels = sample
    plain = value_and_gradient(label_loss(logits, labels), logits)
    equal = value_and_gradient(label_loss(logits, labels, class_weights=torch.ones(CLASSES)), logits)
    torch.testing.assert_close(plain, equal)
    weights = torch.tensor([1.0, 1.0, 1.0, 1.0, 4.0])
    cross_entropy = F.cross_entropy(logits, labels[:, 0], weight=weights)
    dice = torch.stack([_dice_loss(logits, labels, value) for value in range(1, CLASSES)])
    expected = value_and_gradient(cross_entropy + (dice * weights[1:]).sum() / weights[1:].sum(), logits)
    result = value_and_gradient(label_loss(logits, labels, class_weights=weights), logits)
    torch.testing.assert_close(result[0], expected[0], rtol=1e-4, atol=0)
    assert float((result[1] - expected[1]).norm() / expected[1].norm()) < 1e-4


def _dice_loss(logits: torch.Tensor, labels: torch.Tensor, value: int) -> torch.Tensor:
    p, q = logits.softmax(dim=1)[:, value], (labels[:, 0] == value).float()
    return 1 - (2 * (p * q).sum() + 1e-5) / (p.sum() + q.sum() + 1e-5)


def test_classes_without_annotation_are_merged_with_the_background() -> None:
    annotated = torch.tensor([[True, True, False, False, False]] * 2)
    labels = torch.zeros((2, 1, *SIDES), dtype=torch.long)
    labels[:, :, :2] = 1
    organ_as_annotated = torch.full((2, CLASSES, *SIDES), -20.0)
    organ_as_annotated[:, 1, :2] = 20
    background, unannotated = organ_as_annotated.clone(), organ_as_annotated.clone()
    background[:, 0, 2:] = 20
    unannotated[:, 3, 2:] = 20
    losses = [float(label_loss(logits, labels, annotated)) for logits in (background, unannotated)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert losses[0] < 1e-3
    missed = organ_as_annotated.clone()
    missed[:, 3] = 40
    assert float(label_loss(missed, labels, annotated)) > 1


def test_classes_without_annotation_are_not_separated_from_the_background(
    sample: tuple[torch.Tensor, torch.Tensor],
) -> None:
    logits, labels = sample
    annotated = torch.tensor([[True, True, False, False, False], [True] * 5])
    labels = labels.clone()
    labels[0][labels[0] > 1] = 0
    (gradient,) = torch.autograd.grad(label_loss(logits, labels, annotated), logits)
    # Within background + unannotated only their sum matters: the gradient is shared in proportion to probability.
    p = logits.detach().softmax(dim=1)[0]
    ratio = gradient[0, 3] / p[3]
    torch.testing.assert_close(ratio * p[0], gradient[0, 0], rtol=1e-3, atol=1e-7)


def test_scans_without_labels_give_no_gradient(sample: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, labels = sample
    annotated = torch.tensor([[True, False, False, False, False]] * 2)
    loss, gradient = value_and_gradient(label_loss(logits, torch.zeros_like(labels), annotated), logits)
    assert float(loss) == pytest.approx(0, abs=1e-5)
    assert float(gradient.abs().max()) < 1e-6


def test_ignored_voxels_do_not_contribute(sample: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, labels = sample
    ignored = torch.zeros_like(labels, dtype=torch.bool)
    ignored[:, :, 4:] = True
    result, gradient = value_and_gradient(label_loss(logits, labels.masked_fill(ignored, IGNORED)), logits)
    part = logits[:, :, :4]
    expected, of_part = value_and_gradient(SegmentationLoss()(part, labels[:, :, :4]), part)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=0)
    assert float((gradient[:, :, :4] - of_part).norm() / of_part.norm()) < 1e-4
    assert float(gradient[:, :, 4:].abs().max()) == 0


def test_in_a_partly_ignored_voxel_only_known_sub_voxels_contribute(sample: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, labels = sample
    pairs = torch.cat([labels, torch.full_like(labels, IGNORED)], dim=1)
    # Half of every voxel is known, so that each sum is halved and ratios are unchanged.
    torch.testing.assert_close(label_loss(logits, pairs), label_loss(logits, labels), rtol=1e-4, atol=0)


def test_ignored_labels_give_no_gradient(sample: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, labels = sample
    loss, gradient = value_and_gradient(label_loss(logits, torch.full_like(labels, IGNORED)), logits)
    assert float(loss) == pytest.approx(0, abs=1e-5)
    assert float(gradient.abs().max()) == 0
