"""Teaching from files: scans and label maps on disk become a model of the user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.dicom_scan import check_hounsfield
from ..imaging.label_maps import read_label_map
from ..imaging.volume_io import read_scan
from ..models.manifest import read_description
from ..models.model import find_model, load_model
from ..models.user_models import check_base_is_installed, check_free_name
from ..pipeline.memory import memory_errors
from ..pipeline.progress import Progress, silent
from ..training.taught_model import scans_modality, teach_user_model, teaching_budget
from ..training.teaching import TaughtCase


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
    force: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Fine-tune the model `name` on scans and their label maps, in the same order; the report of `teach_user_model`.

    Raises:
        DiffusionSegmentError: GEOMETRY for labels that lie elsewhere than their scan, MODEL_UNKNOWN for the base,
            MODALITY for a base of another modality unless `force`, OPTION, TRAINING_DATA.
    """
    check_free_name(name, replace=replace)
    if len(scans) != len(labels):
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"There are {len(scans)} scans and {len(labels)} label maps.", hint="Give one for each."
        )
    teaching_budget(minutes)
    described = read_description(find_model(base))
    check_base_is_installed(described)
    cases = [_case(scan, label, force=force) for scan, label in zip(scans, labels, strict=True)]
    scans_modality(cases, described, force=force)
    model = load_model(base, device, with_refiner=False)
    with memory_errors():
        return teach_user_model(
            cases, names, base=model, name=name, minutes=minutes, replace=replace, force=force, progress=progress
        )


def _case(path: Path, label: Path, *, force: bool) -> TaughtCase:
    scan = read_scan(path)
    if scan.dicom is not None and not force:
        check_hounsfield(scan.dicom)
    return TaughtCase(scan.volume, read_label_map(label, scan.volume), scan.modality)
