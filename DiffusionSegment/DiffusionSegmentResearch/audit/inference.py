"""The audit network on a whole segmentation: organ by organ, where each is probably wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from DiffusionSegmentBackend.imaging.balls import Spacing
from DiffusionSegmentBackend.imaging.signed_distance import signed_distance
from DiffusionSegmentBackend.imaging.volume import Box
from numpy.typing import NDArray
from scipy import ndimage

from .network import AuditNetwork, audit_input

_MARGIN_MM = 30.0


@dataclass(frozen=True)
class OrganAudit:
    """The probability (z, y, x) in a box of the label map that the organ's label is wrong, and the distance there.

    `distance_mm` is that to the surface of the organ, positive inside.
    """

    box: Box
    probability: NDArray[np.float32]
    distance_mm: NDArray[np.float32]


@torch.inference_mode()
def audit_organ(
    network: AuditNetwork, image: NDArray[np.float32], labels: NDArray[np.uint8], value: int, *, spacing: Spacing
) -> OrganAudit | None:
    """Audit one organ in its bounding box with a margin of 30 mm; None if the map does not contain it.

    Args:
        network: in evaluation mode, on the CPU.
        image: (z, y, x) in -1..1.
        labels: the segmentation (z, y, x).
        value: the label of the organ.
        spacing: mm along z, y, x, about that of the network's training.
    """
    organ_box = ndimage.find_objects(labels, max_label=value)[value - 1]
    if organ_box is None:
        return None
    z, y, x = (
        slice(max(0, part.start - int(_MARGIN_MM / step)), min(size, part.stop + int(_MARGIN_MM / step)))
        for part, step, size in zip(organ_box, spacing, labels.shape, strict=True)
    )
    box: Box = (z, y, x)
    mask = labels[box] == value
    distance = signed_distance(mask, spacing)
    inputs = audit_input(
        torch.from_numpy(np.ascontiguousarray(image[box])),
        torch.from_numpy(distance),
        torch.from_numpy((labels[box] > 0) & ~mask),
    )
    padding = [amount for size in reversed(mask.shape) for amount in (0, -size % network.multiple)]
    padded = torch.nn.functional.pad(inputs[None], padding, mode="replicate")
    probability = network(padded).sigmoid()[0, 0, : mask.shape[0], : mask.shape[1], : mask.shape[2]]
    return OrganAudit(box, probability.numpy(), distance)
