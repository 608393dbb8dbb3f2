"""Similar voxels of a scan on disk: the map of likeness to a point, and the region around it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .imaging.shear import notes_of
from .pipeline.memory import memory_errors
from .pipeline.model import load_model
from .pipeline.progress import Progress, silent
from .pipeline.similarity import describe_scan, similar_region, similarity_map, voxel_at
from .result_folder import check_writable, staged_folder, write_map
from .volume import Volume
from .volume_io import read_volume

SIMILARITY = "similarity.nii.gz"
REGION = "region.nii.gz"


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
) -> None:
    """Write similarity.nii.gz (float32, -1..1) and region.nii.gz (uint8) of one scan in its geometry into `folder`.

    Raises:
        DiffusionSegmentError: OPTION for a point outside the scan or a threshold outside -1..1; whatever is wrong with
            scan, model or folder.
    """
    check_writable(folder)
    volume = read_volume(source, series=series)
    voxel_at(volume, point_lps)
    model = load_model(model_name, device, with_refiner=False)
    with memory_errors():
        found = Volume(similarity_map(describe_scan(volume, model, progress=progress), point_lps), volume.index_to_lps)
        region = similar_region(found, point_lps, threshold)
    with staged_folder(folder) as staging:
        write_map(found, staging / SIMILARITY)
        write_map(Volume(region.astype(np.uint8), volume.index_to_lps), staging / REGION)
    for note in notes_of(volume):
        print(f"Note: {note}")
    print(f"Similar region: {np.count_nonzero(region) * volume.voxel_ml:.1f} mL. Written to {folder}.")
