"""What the organs of training cases have in common: the range of their volumes, and whether they are in one piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from ..datasets.labelled_cases import Case
from ..pipeline.islands import CONNECTIVITY_26
from ..pipeline.organ_alarms import is_cut

_MIN_CASES = 5


@dataclass(frozen=True)
class OrganStatistics:
    """Smallest and largest volume in mL of an organ, whether it is always connected, and in how many cases it is."""

    usual_ml: tuple[float, float]
    one_piece: bool
    cases: int

    def entries(self) -> dict[str, Any]:
        """The entries of a label in model.json."""
        return {"usual_ml": list(self.usual_ml), "one_piece": self.one_piece}


def organ_statistics(cases: Sequence[Case], values: Sequence[int]) -> dict[int, OrganStatistics]:
    """Statistics by label value, of organs that at least five cases show as a whole.

    Organs that end at the edge of a scan are left out, and so are those that a case did not annotate.
    """
    statistics = {}
    for value in values:
        volumes, single = [], []
        for case in cases:
            box = ndimage.find_objects(case.labels, max_label=value)[value - 1]
            if box is None or (case.drawn is not None and value not in case.drawn):
                continue
            mask = case.labels[box] == value
            if is_cut(mask, box, case.labels.shape):
                continue
            volumes.append(float(np.count_nonzero(mask)) * case.grid.voxel_ml)
            single.append(ndimage.label(mask, structure=CONNECTIVITY_26)[1] == 1)
        if len(volumes) >= _MIN_CASES:
            usual = (round(min(volumes), 1), round(max(volumes), 1))
            statistics[value] = OrganStatistics(usual, all(single), len(volumes))
    return statistics
