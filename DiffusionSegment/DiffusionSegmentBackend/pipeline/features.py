"""First stage of a run: body coordinates of the scan, features of each tile, and the pre-segmentation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..imaging.volume import Box
from ..models.model import Model
from ..models.tile_shape import Sides, TileShape
from ..networks.bodypart import normalised, whole_volume_coordinates
from ..networks.fine_path import upsampled
from ..networks.precision import autocast
from .prepare import BODY_THRESHOLD
from .progress import Progress
from .tiling import Tiling, tiling_of

_FINEST_LEVELS = 2
# Minimum fraction of tissue in a plane of the body, by axis (z, y, x). An axial slice may hold little more than a
# spinal cord, because planning CT is often masked to that at its ends; the others exclude couch and noise.
_MIN_TISSUE_FRACTION = (0.0005, 0.02, 0.02)


@dataclass(frozen=True)
class Stage1:
    """What all samples have in common.

    Attributes:
        coordinates: normalised body coordinates (3, z, y, x) on the model's grid.
        tiling: the tiles on the model's grid.
        features: by tile, the two finest levels on the trunk's grid, in a 16-bit type on the device; may be empty.
        pre: the pre-segmentation, probabilities (classes, z, y, x) on the model's grid.
    """

    coordinates: Tensor
    tiling: Tiling
    features: list[list[Tensor]]
    pre: Tensor


def body_box(image: Tensor, *, min_shape: Sides) -> Box:
    """Bounding box of the body in an image (z, y, x) in -1..1, enlarged to `min_shape` (z, y, x) inside the image."""
    tissue = image > BODY_THRESHOLD
    box = []
    for axis, n in enumerate(image.shape):
        others = [a for a in range(3) if a != axis]
        share = tissue.float().mean(dim=others)
        planes = (share > _MIN_TISSUE_FRACTION[axis]).nonzero().flatten()
        low, high = (int(planes[0]), int(planes[-1]) + 1) if len(planes) else (0, n)
        missing = max(0, min_shape[axis] - (high - low))
        low = max(0, low - (missing + 1) // 2)
        box.append(slice(low, min(n, max(high, low + min_shape[axis]))))
    return box[0], box[1], box[2]


def padded(tensor: Tensor, *, tile: TileShape, value: float) -> Tensor:
    """A tensor (channels, z, y, x) padded with `value` at the far end to a shape that tiles can cover."""
    sides = tile.covering(tensor.shape[1:])
    amounts = [amount for n, side in zip(tensor.shape[:0:-1], reversed(sides), strict=True) for amount in (0, side - n)]
    return F.pad(tensor, amounts, value=value)


def body_coordinates(image: Tensor, model: Model) -> Tensor:
    """Body coordinates in mm (3, z, y, x) of a scan (z, y, x) in -1..1, on the CPU.

    They are computed on the trunk's grid and interpolated to the model's.
    """
    stride = model.tile.stride
    amounts = [n for side, step in zip(reversed(image.shape), reversed(stride), strict=True) for n in (0, -side % step)]
    with torch.inference_mode():
        coarse = F.avg_pool3d(F.pad(image.to(model.device), amounts, value=-1.0)[None, None], stride)[0, 0]
        coordinates = upsampled(whole_volume_coordinates(model.bodypart, coarse)[None], stride)[0]
    z, y, x = image.shape
    return coordinates[:, :z, :y, :x].cpu()


def first_stage(
    image: Tensor, coordinates_mm: Tensor, model: Model, *, progress: Progress, keep_features: bool = True
) -> Stage1:
    """Features and pre-segmentation of `image` (z, y, x) in -1..1, padded as by `padded`.

    With `keep_features` False the features are discarded, for a model without a refiner.
    """
    tiling, network = tiling_of(image, model.tile), model.pre_segmenter
    coordinates = normalised(coordinates_mm)
    features: list[list[Tensor]] = []
    stored = torch.bfloat16 if model.dtype is torch.bfloat16 else torch.float16

    def predict(index: int, box: Box) -> Tensor:
        progress("features", index, len(tiling.tiles))
        tile = image[box][None, None].to(model.device, memory_format=torch.channels_last_3d)
        with autocast(model.device, model.dtype):
            pyramid = network.features(tile, coordinates[(slice(None), *box)][None].to(model.device))
            if keep_features:
                features.append([level.to(stored) for level in pyramid[:_FINEST_LEVELS]])
            return network.logits(tile, pyramid).float().softmax(dim=1)[0]

    pre = tiling.blend(predict, channels=model.description.classes)
    progress("features", len(tiling.tiles), len(tiling.tiles))
    return Stage1(coordinates, tiling, features, pre)
