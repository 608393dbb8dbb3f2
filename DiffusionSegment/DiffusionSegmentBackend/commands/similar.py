"""Similar voxels of a scan on disk: the map of likeness to a point, and the region around it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from .. import __version__
from ..imaging.atomic_writes import check_writable
from ..imaging.output_folder import staged_folder
from ..imaging.shear import notes_of
from ..imaging.volume import Volume
from ..imaging.volume_io import read_volume, write_map
from ..models.model import load_model, weights_sha256
from ..pipeline.interactive.similarity import describe_scan, similar_region, similarity_map, voxel_at
from ..pipeline.memory import memory_errors
from ..pipeline.progress import Progress, silent
from ..schema.output_kinds import SIMILARITY


def write_similarity_of(
    source: str,
    folder: Path,
    *,
    point_lps: tuple[float, float, float],
    threshold: float,
    model_name: str,
    device: str = "auto",
    series: str | None = None,
    progress: Progress = silent,
) -> tuple[str, ...]:
    """Write similarity.nii.gz (float32, -1..1) and region.nii.gz (uint8) of one scan in its geometry into `folder`.

    similarity.json beside them holds the scan, the point, the threshold, the region's mL and the model. Together they
    replace earlier ones. Returns lines for the user.

    Raises:
        DiffusionSegmentError: OPTION for a point outside the scan or a threshold outside -1..1; whatever is wrong with
            scan, model or folder.
    """
    check_writable(folder)
    progress("read", 0, 1)
    volume = read_volume(source, series=series)
    voxel_at(volume, point_lps)
    progress("load", 0, 1)
    model = load_model(model_name, device, with_refiner=False)
    with memory_errors():
        similarity = Volume(
            similarity_map(describe_scan(volume, model, progress=progress), point_lps), volume.index_to_lps
        )
        region = similar_region(similarity, point_lps, threshold)
    progress("write", 0, 1)
    volume_ml = float(np.count_nonzero(region) * volume.voxel_ml)
    record = {
        "software": __version__,
        "model": model.description.name,
        "sha256": weights_sha256(model.description),
        "input": str(Path(source).resolve()),
        "point_lps_mm": list(point_lps),
        "threshold": threshold,
        "volume_ml": round(volume_ml, 2),
    }
    with staged_folder(folder, SIMILARITY) as staging:
        write_map(similarity, staging / "similarity.nii.gz")
        write_map(Volume(region.astype(np.uint8), volume.index_to_lps), staging / "region.nii.gz")
        (staging / "similarity.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    notes = [f"Note: {note}" for note in notes_of(volume)]
    return (*notes, f"Similar region: {volume_ml:.1f} mL. Written to {folder}.")
