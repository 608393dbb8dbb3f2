"""Result folders of both generations of models, with very small networks, and marks to correct them with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from DiffusionSegmentBackend.cli import main
from DiffusionSegmentBackend.volume import Volume
from DiffusionSegmentBackend.volume_io import read_volume, write_volume
from numpy.typing import NDArray
from reliability.tiny_model import NAME as REFINED
from reliability.tiny_model import coarse_phantom, write_tiny_model

from .segmenter_model import NAME as SEGMENTER
from .segmenter_model import write_segmenter_model

GENERATIONS = (REFINED, SEGMENTER)
BACKGROUND, SPLEEN, RIGHT_KIDNEY = 0, 1, 2


def write_models(models: Path) -> None:
    """Both models into a folder of models, the first with tiles as small as the phantom."""
    description = write_tiny_model(models) / "model.json"
    raw = json.loads(description.read_text(encoding="utf-8"))
    description.write_text(json.dumps({**raw, "tile_voxels": [32, 32, 32]}), encoding="utf-8")
    write_segmenter_model(models)


def write_scan(folder: Path) -> Path:
    """A phantom of 12 mm voxels."""
    write_volume(coarse_phantom(), folder / "ct.nii.gz")
    return folder / "ct.nii.gz"


def segment(scan: Path, folder: Path, model: str, *more: str) -> Path:
    """The result folder of `diffusion-segment segment`."""
    assert main(["segment", str(scan), "-o", str(folder), "--model", model, "--samples", "2", "--force", *more]) == 0
    return folder


def segment_by_each_model(folder: Path, *more: str) -> Path:
    """`folder`, now with models, a scan, and its result by each of them."""
    write_models(folder / "models")
    scan = write_scan(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFUSION_SEGMENT_MODELS", str(folder / "models"))
        for model in GENERATIONS:
            segment(scan, folder / model, model, *more)
    return folder


def correct(folder: Path, marks: Path, output: Path, *more: str) -> Path:
    """The result folder of `diffusion-segment correct`."""
    assert main(["correct", str(folder), "--corrections", str(marks), "-o", str(output), *more]) == 0
    return output


def labels_of(folder: Path) -> NDArray[Any]:
    return read_volume(folder / "segmentation.nii.gz").array


def report_of(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return report


def write_marks(folder: Path, path: Path, *, of: int, label: int, share: float = 0.5, count: int = 1) -> Path:
    """Marks that call `count` voxels of label `of`, from the middle (`share`) of the list of them on, `label`."""
    found = read_volume(folder / "segmentation.nii.gz")
    places = np.argwhere(found.array == of)
    first = int(share * len(places))
    marks = np.zeros(found.array.shape, dtype=np.uint8)
    marks[tuple(places[first : first + count].T)] = label + 1
    write_volume(Volume(marks, found.index_to_lps), path)
    return path
