"""Arrays that a study computes once and keeps in a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def stored_array(path: Path, compute: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """The array in `path` (.npy), computed and written there, whole or not at all, if there is none."""
    if not path.is_file():
        partial = path.with_suffix(".partial.npy")
        np.save(partial, compute())
        partial.replace(path)
    result: NDArray[Any] = np.load(path, allow_pickle=False)
    return result
