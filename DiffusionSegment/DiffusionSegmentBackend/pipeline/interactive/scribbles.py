"""A reader's marks: how far a stroke reaches, and what it tells about voxels that nobody marked.

A mark says two things: this voxel is k, and the label j that the model gave it is wrong here. So inside the mark's
reach the probability of j moves to k, the more so the nearer a voxel lies and the more its features resemble those of
the marked one, less what other marks there say for j. The refiner starts from there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.tile_shape import Sides
from ..constraints import clamped

# In voxels of the trunk, so that a mark reaches as far in mm on whatever grid it is drawn.
REACH_VOXELS = 12
_SIGMA_VOXELS = 5.0
_FADE_VOXELS = 4
_LEAST_SIMILARITY = 0.3
_MAX_MARKS_OF_A_KIND = 256
_CHUNK = 16384


@dataclass(frozen=True)
class Descriptors:
    """What tells voxels from each other: features (channels, z, y, x) on the trunk's grid, the image on the model's.

    A voxel of the trunk covers `stride` voxels of the model's grid. Where it covers several, their values in the image
    (Z, Y, X) in -1..1 tell them apart.
    """

    features: Tensor
    image: Tensor | None = None
    stride: Sides = (1, 1, 1)

    def at(self, voxels: Tensor) -> Tensor:
        """Descriptors (N, channels) of length 1 of voxels (N, 3) of the model's grid."""
        z, y, x = (voxels // voxels.new_tensor(self.stride)).unbind(dim=1)
        found = self.features[:, z, y, x].T.float()
        if self.image is not None:
            # As much as all of the features, were each of them as far from 0 as the value.
            values = self.image[tuple(voxels.unbind(dim=1))].float()[:, None] * len(self.features) ** 0.5
            found = torch.cat([found, values], dim=1)
        return F.normalize(found, dim=1)


def spread(pre: Tensor, marks: Tensor, descriptors: Descriptors) -> Tensor:
    """The pre-segmentation (classes, z, y, x) after the marks, one-hot of that shape, were heard.

    Voxels farther than REACH_VOXELS of the trunk from every mark keep what they had. A mark for a label, also one that
    confirms what was predicted, holds that label in its surroundings against marks that call it wrong.
    """
    places = marks.sum(dim=0).nonzero()
    if not len(places):
        return pre
    told, wrong = _labels_at(marks, places), _labels_at(pre, places)
    result = clamped(pre, marks)
    if bool((told == wrong).all()):
        return result
    kept = _some_of_each_kind(told * pre.shape[0] + wrong)
    places, told, wrong = places[kept], told[kept], wrong[kept]
    voxels = _near(places[told != wrong], pre.shape[1:], descriptors.stride)
    voxels = voxels[_labels_at(marks.sum(dim=0, keepdim=True), voxels, values=True) == 0]
    for part in voxels.split(_CHUNK):
        z, y, x = part.unbind(dim=1)
        result[:, z, y, x] = _moved(pre[:, z, y, x], _weights(descriptors, part, places), told, wrong)
    return result


def _some_of_each_kind(kinds: Tensor) -> Tensor:
    """Indices of marks, evenly spaced among those of each kind; a kind has the same label before and after."""
    some = []
    for kind in kinds.unique():
        own = (kinds == kind).nonzero().flatten()
        some.append(own[:: max(1, len(own) // _MAX_MARKS_OF_A_KIND)])
    return torch.cat(some)


def reach(marked: Tensor, stride: Sides = (1, 1, 1), *, voxels: int = REACH_VOXELS) -> Tensor:
    """Bool (z, y, x): within `voxels` of the trunk, along each axis, of a voxel that is True in `marked`.

    A voxel of the trunk covers `stride` of those.
    """
    result = marked.float()[None, None]
    for axis in range(3):
        # One axis after the other: a cube of 25 voxels a side has too many to look at each.
        side, padding = [1, 1, 1], [0, 0, 0]
        padding[axis] = voxels * stride[axis]
        side[axis] = 2 * padding[axis] + 1
        result = F.max_pool3d(result, side, stride=1, padding=padding)
    return result[0, 0] > 0


def fading(marked: Tensor, stride: Sides = (1, 1, 1)) -> Tensor:
    """How much a new answer counts around marks, float (z, y, x): 1 near them, 0 beyond their reach, steps between."""
    radii = range(REACH_VOXELS - _FADE_VOXELS + 1, REACH_VOXELS + 1)
    return torch.stack([reach(marked, stride, voxels=radius).float() for radius in radii]).mean(dim=0)


def _labels_at(maps: Tensor, places: Tensor, *, values: bool = False) -> Tensor:
    z, y, x = places.unbind(dim=1)
    found = maps[:, z, y, x]
    return found[0] if values else found.argmax(dim=0)


def _near(places: Tensor, shape: torch.Size, stride: Sides) -> Tensor:
    marked = torch.zeros(tuple(shape), dtype=torch.bool, device=places.device)
    marked[tuple(places.unbind(dim=1))] = True
    return reach(marked, stride).nonzero()


def _weights(descriptors: Descriptors, voxels: Tensor, places: Tensor) -> Tensor:
    """How much each mark says about each voxel, 0..1, (voxels, marks)."""
    steps = voxels.new_tensor(descriptors.stride)
    distance = torch.cdist(voxels / steps, places / steps)
    near = torch.exp(-(distance**2) / (2 * _SIGMA_VOXELS**2)) * (distance <= REACH_VOXELS)
    cosine = descriptors.at(voxels) @ descriptors.at(places).T
    alike = ((cosine - _LEAST_SIMILARITY) / (1 - _LEAST_SIMILARITY)).clamp(min=0)
    return near * alike


def _moved(pre: Tensor, weights: Tensor, told: Tensor, wrong: Tensor) -> Tensor:
    """Probabilities (classes, voxels) of which each wrong label has lost to the labels told in its place.

    What marks say for the wrong label counts against what others say against it: where both sides of a surface were
    corrected, neither side spreads over the other.
    """
    result = pre.clone()
    for j in wrong[told != wrong].unique().tolist():
        labels = told[(wrong == j) & (told != j)].unique()
        claims = torch.stack([weights[:, (wrong == j) & (told == k)].amax(dim=1) for k in labels])
        if bool((told == j).any()):
            claims = (claims - weights[:, told == j].amax(dim=1)).clamp(min=0)
        moved = claims / claims.sum(dim=0).clamp(min=1) * pre[j]
        result[labels] += moved
        result[j] -= moved.sum(dim=0)
    return result.clamp(min=0)
