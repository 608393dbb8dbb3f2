"""Review of expert label maps, as they are and with implanted errors, by a network that has not seen the case."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from DiffusionSegmentBackend.datasets.label_errors import delete_organ, leak, lose_slab, swap_sides
from DiffusionSegmentBackend.metrics.calibration import rank_correlation
from DiffusionSegmentBackend.metrics.looks import gross_errors, look
from DiffusionSegmentBackend.models.manifest import ModelDescription
from DiffusionSegmentBackend.pipeline.organ_alarms import LabelMapOnGrid, organ_alarms
from DiffusionSegmentBackend.pipeline.review import ReviewList, expected_errors, review_list
from DiffusionSegmentBackend.pipeline.reviewed import mix_with_given
from DiffusionSegmentBackend.pipeline.session import GIVEN_WEIGHT
from DiffusionSegmentBackend.schema.report import ReviewRegion
from numpy.typing import NDArray

from .out_of_fold_maps import OutOfFoldMap
from .result_file import StudyRow

Labels = NDArray[np.uint8]
# From the liver towards the heart: superior, anterior, left (z, y, x).
_TO_THE_HEART = (1.0, -1.0, 1.0)


def reviewed_rows(maps: Sequence[OutOfFoldMap], description: ModelDescription) -> list[StudyRow]:
    """A row for our own results, one for the expert maps as they are, and one per kind of error."""
    predicted = [item.probabilities.argmax(axis=0).astype(np.uint8) for item in maps]
    own = [
        expected_errors(item.probabilities, item.grid, description).expected_wrong_ml(item.grid.voxel_ml)
        for item in maps
    ]
    wrong = [
        float(np.count_nonzero(labels != item.truth)) * item.grid.voxel_ml
        for item, labels in zip(maps, predicted, strict=True)
    ]
    expert = [_review(item, item.truth, description) for item in maps]
    listed = [len(review.regions) for review in expert]
    correlation = rank_correlation(np.array(own), np.array(wrong))
    known = {} if np.isnan(correlation) else {"rank correlation of the two": round(correlation, 3)}
    means = {"expected wrong, mL": round(float(np.mean(own))), "wrong, mL": round(float(np.mean(wrong)))}
    rows = [
        StudyRow("own results", numbers={"label maps": len(maps), **means, **known}),
        StudyRow(
            "expert label maps",
            numbers={
                "label maps": len(maps),
                "expected wrong, mL": round(float(np.mean([review.expected_wrong_ml for review in expert]))),
                "without a region": sum(count == 0 for count in listed),
                "regions of a label map": round(float(np.mean(listed)), 1),
            },
        ),
    ]
    results: dict[str, list[tuple[bool, bool]]] = {}
    for item in maps:
        for name, altered, organs in _alterations(item, description):
            results.setdefault(name, []).append(_is_listed(item, altered, organs, description))
    return rows + [
        StudyRow(
            name,
            numbers={
                "label maps": len(hits),
                "error in a region": round(float(np.mean([region for region, _ in hits])), 3),
                "error in a region or an alarm": round(float(np.mean([region or alarm for region, alarm in hits])), 3),
            },
        )
        for name, hits in results.items()
    ]


def _alterations(item: OutOfFoldMap, description: ModelDescription) -> Iterator[tuple[str, Labels, set[str]]]:
    """Name, label map and altered organs of every error that the case can have."""
    values = {label.name: label.value for label in description.labels if (item.truth == label.value).any()}
    rng = np.random.default_rng(0)
    truth, spacing = item.truth, item.spacing
    if {"right_kidney", "left_kidney"} <= values.keys():
        pair = (values["right_kidney"], values["left_kidney"])
        swapped = swap_sides(truth, spacing, rng, pairs=[pair])
        yield "kidneys swapped", swapped, {"right_kidney", "left_kidney"}
    if "liver" in values:
        heart = leak(truth, spacing, rng, value=values["liver"], direction=_TO_THE_HEART, depth_mm=(25.0, 25.0))
        yield "liver leaked towards the heart", heart, {"liver"}
    for name, value in values.items():
        yield "a third of an organ cut off", lose_slab(truth, spacing, rng, value=value, share=(1 / 3, 1 / 3)), {name}
        yield "an organ deleted", delete_organ(truth, spacing, rng, value=value), {name}


def _is_listed(
    item: OutOfFoldMap, altered: Labels, organs: set[str], description: ModelDescription
) -> tuple[bool, bool]:
    """Whether a region holds a part of the error, and whether an alarm names its organ."""
    positions = item.voxels_of(reviewed_regions(item, altered, description))
    errors = gross_errors(altered, item.truth, spacing=item.spacing, min_ml=0.0)
    seen = look(errors, positions, spacing=item.spacing)
    covered = {int(value) for value in np.unique(item.truth) if value}
    alarms = organ_alarms(LabelMapOnGrid(altered, item.grid, item.offset, covered), description.labels)
    return any(seen.holds), any(alarm.organ in organs for alarm in alarms)


def reviewed_regions(item: OutOfFoldMap, labels: Labels, description: ModelDescription) -> list[ReviewRegion]:
    """The regions to review of a given label map, as `review` lists them."""
    return _review(item, labels, description).regions


def _review(item: OutOfFoldMap, labels: Labels, description: ModelDescription) -> ReviewList:
    given = torch.from_numpy(labels)
    mixed = mix_with_given(torch.from_numpy(item.probabilities.copy()), given, torch.ones_like(given, dtype=torch.bool))
    return review_list(mixed.numpy(), item.grid, item.offset, description, given_weight=GIVEN_WEIGHT)
