"""The probe's probabilities on training cases, as the refiner's training recycles them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ..networks.backbone import Backbone
from ..networks.bodypart import normalised
from ..networks.probe import Probe
from ..pipeline.features import padded
from ..pipeline.tiling import Tiling
from .data import Case


def presegment(
    cases: Sequence[Case],
    backbone: Backbone,
    probe: Probe,
    *,
    device: str = "cpu",
    bf16: bool = False,
    side: int = 64,
    overlap: float = 0.25,
) -> list[NDArray[np.float16]]:
    """Probabilities (classes, z, y, x) in half precision for each case, which must have its coordinates."""
    backbone, probe = backbone.to(device), probe.to(device)
    results = []
    for case in tqdm(cases, desc="pre-segmentations"):
        if case.coordinates is None:
            raise ValueError(f"case {case.name} has no body coordinates")
        image = padded(torch.from_numpy(case.image)[None], least=side, value=-1.0)
        coordinates = padded(normalised(torch.from_numpy(case.coordinates)), least=side, value=0.0)
        tiling = Tiling((image.shape[1], image.shape[2], image.shape[3]), side, overlap)

        def predict(
            _: int,
            place: tuple[slice, slice, slice],
            image: torch.Tensor = image,
            coordinates: torch.Tensor = coordinates,
        ) -> torch.Tensor:
            crop = (slice(None), *place)
            with torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=bf16):
                tile = image[crop][None].to(device, memory_format=torch.channels_last_3d)
                logits = probe(backbone.features(tile, coordinates[crop][None].to(device)))
            return logits[0].float().softmax(dim=0)

        with torch.inference_mode():
            z, y, x = case.image.shape
            results.append(tiling.blend(predict, channels=probe.classes)[:, :z, :y, :x].numpy().astype(np.float16))
    return results
