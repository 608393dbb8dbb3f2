"""`diffusion-segment fine-tune`: fine-tune a model on scans and label maps read from files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.dicom_scan import check_hounsfield
from ..imaging.label_maps import read_label_map
from ..imaging.volume_io import read_scan
from ..models.manifest import find_model, read_description
from ..models.model import load_model
from ..models.user_models import check_base_is_installed, check_free_name
from ..pipeline.memory import memory_errors
from ..pipeline.progress import Progress, silent
from ..schema.fine_tuning_report import FineTuningReport
from ..training.fine_tuned_model import fine_tune_user_model, fine_tuning_budget, scans_modality
from ..training.fine_tuning import LabelledVolume


@dataclass(frozen=True, kw_only=True)
class FineTuneOptions:
    """Options of `fine-tune`.

    Attributes:
        base: Name or folder of the model whose features are used.
        name: Name of the new model.
        minutes: Training time, including the computation of features.
        device: "auto", "cpu" or "cuda".
        replace: Overwrite an existing model of that name.
        force: Accept scans of another modality than that of the base.
    """

    base: str
    name: str
    minutes: float
    device: str = "auto"
    replace: bool = False
    force: bool = False


def fine_tune_files(
    scans: Sequence[Path],
    labels: Sequence[Path],
    names: Mapping[int, str],
    options: FineTuneOptions,
    *,
    progress: Progress = silent,
) -> FineTuningReport:
    """Fine-tune a model on scans and their label maps, given in the same order.

    Args:
        scans: DICOM folders or image files.
        labels: One label map per scan.
        names: Names of the segments by label value.
        options: Base model, name of the new model, training time.
        progress: Called with stage, done and total.

    Returns:
        The report of `fine_tune_user_model`.

    Raises:
        DiffusionSegmentError: GEOMETRY for a label map in another geometry than its scan, MODEL_UNKNOWN for the base,
            MODALITY for a base of another modality unless `force`, OPTION, TRAINING_DATA.
    """
    check_free_name(options.name, replace=options.replace)
    if len(scans) != len(labels):
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"There are {len(scans)} scans and {len(labels)} label maps.", hint="Give one for each."
        )
    fine_tuning_budget(options.minutes)
    description = read_description(find_model(options.base))
    check_base_is_installed(description)
    cases = [_case(scan, label, force=options.force) for scan, label in zip(scans, labels, strict=True)]
    scans_modality(cases, description, force=options.force)
    base = load_model(options.base, options.device, with_refiner=False)
    with memory_errors():
        return fine_tune_user_model(
            cases,
            names,
            base=base,
            name=options.name,
            minutes=options.minutes,
            replace=options.replace,
            force=options.force,
            progress=progress,
        )


def _case(path: Path, label: Path, *, force: bool) -> LabelledVolume:
    scan = read_scan(path)
    if scan.dicom is not None and not force:
        check_hounsfield(scan.dicom)
    return LabelledVolume(scan.volume, read_label_map(label, scan.volume), scan.modality)
