"""Dense features of a scan on disk, for researchers who bring their own head."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from .. import __version__
from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.atomic_writes import check_writable
from ..imaging.output_folder import staged_folder
from ..imaging.volume_io import read_volume
from ..models.model import load_model, weights_sha256
from ..pipeline.dense_features import DenseFeatures, scan_features
from ..pipeline.memory import memory_errors
from ..pipeline.progress import Progress, silent
from ..schema.output_kinds import FEATURES

_TIMESTEPS = 1000


def write_features_of(
    source: str,
    folder: Path,
    *,
    model_name: str,
    timestep: int | None = None,
    device: str = "auto",
    seed: int = 0,
    series: str | None = None,
    progress: Progress = silent,
) -> tuple[str, ...]:
    """Write features.npz and features.json of one scan into `folder`, in which they replace earlier ones.

    features.npz holds level_0 (finest) to level_4, each (channels, z, y, x) in half precision, and coordinates_mm (3,
    z, y, x); features.json the geometry of each level, the t and the model. Returns lines for the user.

    Raises:
        DiffusionSegmentError: OPTION for a t outside 1..1000; whatever is wrong with scan, model or folder.
    """
    if timestep is not None and not 1 <= timestep <= _TIMESTEPS:
        raise DiffusionSegmentError(ErrorCode.OPTION, f"t is {timestep}.", hint=f"Choose 1 to {_TIMESTEPS}.")
    check_writable(folder)
    progress("read", 0, 1)
    volume = read_volume(source, series=series)
    progress("load", 0, 1)
    model = load_model(model_name, device, with_refiner=False)
    with memory_errors():
        features = scan_features(volume, model, timestep=timestep, seed=seed, progress=progress)
    progress("write", 0, 1)
    record = {
        "software": __version__,
        "model": model.description.name,
        "sha256": weights_sha256(model.description),
        "timestep": timestep if timestep is not None else 0,
        "network_timestep": timestep if timestep is not None else model.pre_segmenter.feature_timestep,
        "seed": seed,
        "levels": _levels(features),
    }
    with staged_folder(folder, FEATURES) as staging:
        arrays = {f"level_{n}": level.numpy() for n, level in enumerate(features.levels)}
        arrays["coordinates_mm"] = features.coordinates_mm.half().numpy()
        np.savez_compressed(staging / "features.npz", allow_pickle=False, **arrays)
        (staging / "features.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    notes = [f"Note: {note}" for note in volume.notes]
    return (*notes, f"Written to {folder}: {', '.join(str(tuple(level.shape)) for level in features.levels)}.")


def _levels(features: DenseFeatures) -> list[dict[str, object]]:
    """The geometry of each level of the pyramid."""
    grid, start = features.grid, np.array(features.offset)
    axes = grid.index_to_lps[:3, :3] / np.linalg.norm(grid.index_to_lps[:3, :3], axis=0)
    return [
        {
            "name": f"level_{n}",
            "spacing_mm": [float(s) * 2**n for s in grid.spacing],
            "first_voxel_lps_mm": [float(v) for v in grid.lps(start + (2**n - 1) / 2)],
            "axes_lps": axes.tolist(),
        }
        for n in range(len(features.levels))
    ]
