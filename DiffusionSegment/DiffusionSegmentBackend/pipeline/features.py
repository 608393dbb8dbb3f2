"""Stage one: body coordinates of the whole scan, backbone features of each tile computed once, the pre-segmentation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.model import Model
from ..models.tile_shape import Sides, TileShape
from ..networks.bodypart import normalised, whole_volume_coordinates
from ..networks.fine_path import upsampled
from ..networks.precision import autocast
from .prepare import BODY_THRESHOLD
from .progress import Progress
from .tiling import Tiling, tiling_of

_FINEST_LEVELS = 2
# Share of a slice, and of a plane across the slices, from which on it is part of the body.
_LEAST_TISSUE = (0.0005, 0.02, 0.02)


@dataclass(frozen=True)
class Stage1:
    """What all samples share. `features[n]` are tile n's two finest levels in two bytes a number, on the device.

    Coordinates are normalised; they, the tiling and `pre` lie on the model's grid, the features on the trunk's.
    """

    coordinates: Tensor
    tiling: Tiling
    features: list[list[Tensor]]
    pre: Tensor


def body_box(image: Tensor, *, least: Sides) -> tuple[slice, slice, slice]:
    """Box (z, y, x) around what is not air in an image -1..1, with sides of at least `least` (z, y, x) if possible.

    A slice belongs to the body with hardly more in it than a spinal cord, because planning CT is often masked to that
    at its ends; to the sides the box ends where there is as little as couch and noise.
    """
    tissue = image > BODY_THRESHOLD
    box = []
    for axis, n in enumerate(image.shape):
        others = [a for a in range(3) if a != axis]
        share = tissue.float().mean(dim=others)
        found = (share > _LEAST_TISSUE[axis]).nonzero().flatten()
        low, high = (int(found[0]), int(found[-1]) + 1) if len(found) else (0, n)
        missing = max(0, least[axis] - (high - low))
        low = max(0, low - (missing + 1) // 2)
        box.append(slice(low, min(n, max(high, low + least[axis]))))
    return box[0], box[1], box[2]


def padded(tensor: Tensor, *, tile: TileShape, value: float) -> Tensor:
    """(channels, z, y, x) with the sides that tiles need, grown at the far end."""
    sides = tile.covering(tensor.shape[1:])
    amounts = [amount for n, side in zip(tensor.shape[:0:-1], reversed(sides), strict=True) for amount in (0, side - n)]
    return F.pad(tensor, amounts, value=value)


def body_coordinates(image: Tensor, model: Model) -> Tensor:
    """Body coordinates in mm (3, z, y, x) of a scan (z, y, x) in -1..1, on the CPU.

    They are computed at the trunk's spacing and interpolated to the model's grid.
    """
    stride = model.tile.stride
    amounts = [n for side, step in zip(reversed(image.shape), reversed(stride), strict=True) for n in (0, -side % step)]
    with torch.inference_mode():
        coarse = F.avg_pool3d(F.pad(image.to(model.device), amounts, value=-1.0)[None, None], stride)[0, 0]
        found = upsampled(whole_volume_coordinates(model.bodypart, coarse)[None], stride)[0]
    z, y, x = image.shape
    return found[:, :z, :y, :x].cpu()


def first_stage(
    image: Tensor, coordinates_mm: Tensor, model: Model, *, progress: Progress, keep_features: bool = True
) -> Stage1:
    """Features and pre-segmentation of `image` (z, y, x) in -1..1, sides as of `padded`.

    Features that nobody will read need not be kept.
    """
    tiling, network = tiling_of(image, model.tile), model.pre_segmenter
    coordinates = normalised(coordinates_mm)
    features: list[list[Tensor]] = []
    stored = torch.bfloat16 if model.dtype is torch.bfloat16 else torch.float16

    def predict(index: int, place: tuple[slice, slice, slice]) -> Tensor:
        progress("features", index, len(tiling.tiles))
        tile = image[place][None, None].to(model.device, memory_format=torch.channels_last_3d)
        with autocast(model.device, model.dtype):
            pyramid = network.features(tile, coordinates[(slice(None), *place)][None].to(model.device))
            if keep_features:
                features.append([level.to(stored) for level in pyramid[:_FINEST_LEVELS]])
            return network.logits(tile, pyramid).float().softmax(dim=1)[0]

    pre = tiling.blend(predict, channels=model.description.classes)
    progress("features", len(tiling.tiles), len(tiling.tiles))
    return Stage1(coordinates, tiling, features, pre)
