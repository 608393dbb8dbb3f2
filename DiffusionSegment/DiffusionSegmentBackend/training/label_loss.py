"""Dice and cross-entropy on label maps without one-hot tensors: the memory-efficient loss of `Segmenter`.

Equals MONAI's `DiceCELoss` (no background, batch Dice, smoothing 1e-5; `losses.SegmentationLoss`), but gathers the
probabilities at the true class and sums per class by `bincount`, with a closed-form gradient. In addition it supports
soft labels of sub-voxels, class weights, and voxels labelled `IGNORED`, for example where pseudo-labels disagree.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .losses import marginalised

IGNORED = 255
_SMOOTH = 1e-5


def label_loss(
    logits: Tensor, labels: Tensor, drawn: Tensor | None = None, class_weights: Tensor | None = None
) -> Tensor:
    """Soft Dice over the organs of the batch plus cross-entropy, a scalar in float32.

    Args:
        logits: (B, classes, z, y, x).
        labels: (B, S, z, y, x), integers, classes or `IGNORED`. With S above 1 they are the labels of the S
            sub-voxels of each voxel (`space_to_depth`), and the target is their mean: soft labels averaged over it.
        drawn: (B, classes) bool, the annotated classes; others are merged with the background (the marginal loss of
            Shi et al. 2021, Medical Image Analysis 70, eq. 4) and ignored in the Dice. None for all.
        class_weights: (classes,) float32, of the cross-entropy by true class and of the Dice. None for equal weights.
    """
    logits = logits.float()
    if drawn is not None and not bool(drawn.all()):
        logits = marginalised(logits, drawn)
    weights = torch.ones(logits.shape[1], device=logits.device) if class_weights is None else class_weights
    loss: Tensor = _DiceCrossEntropy.apply(logits, labels, weights)  # type: ignore[no-untyped-call]
    return loss


class _DiceCrossEntropy(torch.autograd.Function):
    """The loss with a closed-form gradient, which keeps only the softmax in memory."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        classes, subs = logits.shape[1], labels.shape[1]
        log_p = logits.contiguous().log_softmax(dim=1).flatten(2)
        index = labels.long().flatten(2)
        known = index != IGNORED
        index = index.masked_fill(~known, 0)
        picked = log_p.gather(1, index)
        weight_at = weights[index] * known
        total_weight = weight_at.sum().clamp(min=_SMOOTH)
        cross_entropy = -(weight_at * picked).sum() / total_weight

        p, share = log_p.exp_(), known.float().mean(dim=1)
        flat, counted = index.flatten(), known.double().flatten() / subs
        # Sum in float64: float32 is not accurate for a million voxels.
        overlap = torch.bincount(flat, weights=picked.exp().double().flatten() * counted, minlength=classes).float()
        truth = torch.bincount(flat, weights=counted, minlength=classes).float()
        size = torch.einsum("bcn,bn->c", p, share) + truth + _SMOOTH
        organs = weights[1:] / weights[1:].sum()
        dice = 1 - (2 * overlap + _SMOOTH) / size
        ctx.save_for_backward(p, index, known, weights, overlap, size, total_weight)
        ctx.shape = logits.shape
        ctx.channels_last = logits.is_contiguous(memory_format=torch.channels_last_3d)
        return cross_entropy + (organs * dice[1:]).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """With dL/dp_c = a_c + b_c q_c of the Dice, dL/dlogit_c = p_c (dL/dp_c - sum_k p_k dL/dp_k) + cross-entropy."""
        (gradient,) = gradients
        p, index, known, weights, overlap, size, total_weight = ctx.saved_tensors
        subs, share = index.shape[1], known.float().mean(dim=1)
        organs = weights / weights[1:].sum()
        organs[0] = 0
        everywhere = organs * (2 * overlap + _SMOOTH) / size**2
        at_truth = -2 * organs / size / subs
        change = (p.gather(1, index) * at_truth[index] - weights[index] / total_weight) * known
        common = torch.einsum("bcn,c->bn", p, everywhere) * share + change.sum(dim=1)
        result = torch.einsum("c,bn->bcn", everywhere, share).sub_(common[:, None]).mul_(p)
        result.scatter_add_(1, index, change)
        result = result.mul_(gradient).view(ctx.shape)
        # Keep the memory format of the logits; mixed formats would slow down the backward pass of the network.
        layout = torch.channels_last_3d if ctx.channels_last else torch.contiguous_format
        return result.contiguous(memory_format=layout), None, None
