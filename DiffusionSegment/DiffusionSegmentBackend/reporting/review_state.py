"""Reading of review.json."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import DiffusionSegmentError, ErrorCode
from ..schema.dataclass_json import from_json
from ..schema.review_state import ReviewState


def read_review(path: Path) -> ReviewState:
    """Read and check review.json.

    Raises:
        DiffusionSegmentError: INPUT_MISSING, INPUT_UNREADABLE for a file that is not a review.
    """
    if not path.is_file():
        raise DiffusionSegmentError(ErrorCode.INPUT_MISSING, f"{path} does not exist.", hint="Check the path.")
    try:
        return from_json(ReviewState, json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, OSError, RecursionError) as error:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_UNREADABLE,
            f"{path} is not a review ({type(error).__name__}: {error}).",
            hint="Save the review again.",
        ) from error
