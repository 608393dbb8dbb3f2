"""Teaching from files: scans and label maps on disk become a model of the user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import DiffusionSegmentError, ErrorCode
from .imaging.label_maps import read_label_map
from .pipeline.memory import memory_errors
from .pipeline.model import load_model
from .pipeline.progress import Progress, silent
from .training.taught_model import teach_user_model, teaching_budget
from .training.teaching import TaughtCase
from .user_models import check_free_name
from .volume_io import read_volume


def teach_files(
    scans: Sequence[Path],
    labels: Sequence[Path],
    names: Mapping[int, str],
    *,
    base: str,
    name: str,
    minutes: float,
    device: str = "auto",
    replace: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Teach the model `name` from scans and their label maps, in the same order; the report of `teach_user_model`.

    Raises:
        DiffusionSegmentError: GEOMETRY for labels that lie elsewhere than their scan, MODEL_UNKNOWN for the base,
            OPTION, TRAINING_DATA.
    """
    check_free_name(name, replace=replace)
    if len(scans) != len(labels):
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"There are {len(scans)} scans and {len(labels)} label maps.", hint="Give one for each."
        )
    teaching_budget(minutes)
    model = load_model(base, device, with_refiner=False)
    cases = [_case(scan, label) for scan, label in zip(scans, labels, strict=True)]
    with memory_errors():
        return teach_user_model(
            cases, names, base=model, name=name, minutes=minutes, replace=replace, progress=progress
        )


def _case(scan: Path, label: Path) -> TaughtCase:
    volume = read_volume(scan)
    return TaughtCase(volume, read_label_map(label, volume))
