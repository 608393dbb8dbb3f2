"""Variants of the segmentation of one run, by name."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..errors import DiffusionSegmentError, ErrorCode
from ..models.model import Model
from ..pipeline.session import ENSEMBLE_WEIGHT, Prediction

PROBE, REFINER, ENSEMBLE, SEGMENTER = "probe", "refiner", "ensemble", "segmenter"


def variants_of(model: Model) -> tuple[str, ...]:
    """Names of a model's variants; the last is the one that `segment` outputs."""
    if model.refiner is not None:
        return PROBE, REFINER, ENSEMBLE
    return (PROBE,) if PROBE in model.description.needed_networks else (SEGMENTER,)


def chosen_variants(model: Model, names: Sequence[str] | None) -> tuple[str, ...]:
    """The named variants in the order of `variants_of`; all for None.

    Raises:
        DiffusionSegmentError: OPTION for an unknown name.
    """
    known = variants_of(model)
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"The model {model.description.name} has no variant '{unknown[0]}'.",
            hint=f"It has: {', '.join(known)}.",
        )
    return tuple(name for name in known if names is None or name in names)


def variant_probabilities(prediction: Prediction, name: str) -> Tensor:
    """Probabilities (classes, z, y, x) of a variant as a new float32 tensor.

    The mean of the refiner's samples is recovered from the ensemble (Fu et al. 2023), its weighted mean with the probe.
    """
    if name == ENSEMBLE:
        return prediction.ensemble.float().clone()
    pre = prediction.pre.float()
    if name == REFINER:
        return (prediction.ensemble.float() - (1 - ENSEMBLE_WEIGHT) * pre) / ENSEMBLE_WEIGHT
    return pre.clone()
