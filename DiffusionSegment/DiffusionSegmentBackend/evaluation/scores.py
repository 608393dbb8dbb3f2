"""Scores by case and organ, and their means over cases."""

from __future__ import annotations

import numpy as np

# Case -> organ -> score 0..1, without organs that are absent from the case.
Scores = dict[str, dict[str, float]]


def case_means(scores: Scores) -> dict[str, float]:
    """Mean over the organs of each case, 0..1; cases without any organ are omitted."""
    return {case: float(np.mean(list(organs.values()))) for case, organs in scores.items() if organs}


def shared_case_means(scores: Scores, reference: Scores) -> list[tuple[float, float]]:
    """Pairs of case means over the cases and organs that are in both."""
    pairs = []
    for case in scores:
        organs = [organ for organ in scores[case] if organ in reference.get(case, {})]
        if organs:
            pairs.append(
                (
                    float(np.mean([scores[case][organ] for organ in organs])),
                    float(np.mean([reference[case][organ] for organ in organs])),
                )
            )
    return pairs
