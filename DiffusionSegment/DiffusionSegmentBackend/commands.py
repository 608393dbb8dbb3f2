"""What the commands do, with files at both ends of the pipeline."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from . import __version__
from .errors import DiffusionSegmentError, ErrorCode, one_line
from .imaging.dicom_scan import check_hounsfield
from .imaging.label_maps import read_label_map
from .imaging.shear import notes_of
from .pipeline.model import list_models, load_model
from .pipeline.options import SegmentOptions
from .pipeline.segment import delivered, open_session
from .result_extras import NOTHING_MORE, Extras, RunInput, write_run
from .result_folder import check_writable, staged_folder, write_text
from .volume import Volume
from .volume_io import read_scan, write_volume


class ProgressBar:
    """The stages of a run as one bar on stderr, which is gone when the block ends."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._stage = ""

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show `done` of `total` of `stage`."""
        if stage != self._stage:
            self.close()
            self._stage = stage
            self._bar = tqdm(total=total, desc=f"{stage:>9}", file=sys.stderr, leave=False, disable=None)
        self._bar.n = done
        self._bar.refresh()

    def close(self) -> None:
        """Clear the line."""
        if self._bar is not None:
            self._bar.close()


def segment_file(
    source: str,
    folder: Path,
    *,
    model_name: str,
    device: str,
    precision: str = "auto",
    options: SegmentOptions,
    presegmentation: Path | None = None,
    series: str | None = None,
    extras: Extras = NOTHING_MORE,
) -> dict[str, Any]:
    """Segment one scan on disk into `folder` and print a summary; returns the report.

    `series` names one of several DICOM series, as in `read_volume`; `extras` says what else to write.

    Raises:
        DiffusionSegmentError: whatever is wrong with the scan, the options, the model or the folder.
    """
    check_writable(folder)
    scan = read_scan(source, series=series)
    volume = scan.volume
    if scan.dicom is not None and not options.force:
        check_hounsfield(scan.dicom)
    options = replace(options, modality=scan.modality)
    if presegmentation is not None:
        options = replace(options, presegmentation=read_label_map(presegmentation, volume))
    model = load_model(model_name, device, precision=precision)
    with ProgressBar() as bar:
        session = open_session(volume, model, options, progress=bar)
        result = delivered(session, model, bodypart=options.bodypart, progress=bar, folder=folder.parent)
    named = {"input": str(Path(source).resolve())}
    if presegmentation is not None:
        named["presegmentation"] = str(presegmentation.resolve())
    if scan.dicom is not None:
        named |= {"series": scan.dicom.series.title, "series_uid": scan.dicom.series.key}
    result.report["provenance"] |= named
    result.report["warnings"] = [*notes_of(volume), *result.report["warnings"]]
    write_run(result, session, RunInput(volume, model, options), folder, extras)
    summarise(result.report, folder)
    return result.report


def summarise(report: dict[str, Any], folder: Path) -> None:
    """Print what was read, volumes, warnings and where to look first."""
    if "series" in report["provenance"]:
        print(f"Read {one_line(str(report['provenance']['series']))}.")
    for organ in report["organs"]:
        low, high = organ["volume_interval_ml"]
        print(f"{organ['title']:<26}{organ['volume_ml']:>9.1f} mL   {low:.1f} to {high:.1f}")
    for warning in report["warnings"]:
        print(f"Note: {one_line(warning)}")
    if report["review"]:
        print(f"Look first at: {report['review'][0]['sentence']}")
    print(f"Written to {folder} in {report['timings_s']['total']:.1f} s.")


def evaluate_folders(
    images: Path,
    labels: Path,
    output: Path,
    *,
    part: str | None,
    model_name: str,
    device: str,
    precision: str = "auto",
    options: SegmentOptions,
) -> None:
    """Evaluate on the scans of `images` whose label maps lie in `labels`, and write the tables to `output`.

    Raises:
        DiffusionSegmentError: TRAINING_DATA without cases, OUTPUT_UNWRITABLE.
    """
    from .evaluation.evaluate import evaluate
    from .training.data import find_cases

    if images.resolve().parent != labels.resolve().parent or (images.name, labels.name) != ("images", "labels"):
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            "Images and labels must be folders 'images' and 'labels' side by side.",
            hint="Arrange them so.",
        )
    check_writable(output.parent)
    scans = find_cases(images.resolve().parent, part=part or "")
    result = evaluate(load_model(model_name, device, precision=precision), scans, options)
    write_text(output, json.dumps(result, indent=2) + "\n")
    print(json.dumps(result["mean_dice"]))


def write_phantom(folder: Path, *, seed: int) -> None:
    """Write ct.nii.gz and labels.nii.gz of the phantom.

    Raises:
        DiffusionSegmentError: OUTPUT_UNWRITABLE or DISK_FULL.
    """
    from .phantom import make_phantom

    check_writable(folder)
    phantom = make_phantom(seed=seed)
    with staged_folder(folder) as staging:
        write_volume(Volume(phantom.image, phantom.index_to_lps), staging / "ct.nii.gz")
        write_volume(Volume(phantom.labels, phantom.index_to_lps), staging / "labels.nii.gz")
    print(f"Written to {folder}.")


def check_installation() -> dict[str, Any]:
    """Versions, devices, models, and whether their weights are whole."""
    state = {}
    for name in list_models():
        try:
            load_model(name, "cpu")
            state[name] = "ok"
        except DiffusionSegmentError as error:
            state[name] = str(error)
    return {
        "software": __version__,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "cpu_cores": os.cpu_count(),
        "models": state,
    }
