"""The samples of a run as label maps in its result folder: `alternatives/1.nii.gz` and so on, most frequent first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..imaging.label_changes import gained_and_lost
from ..imaging.volume import Volume
from ..imaging.volume_io import write_map
from ..models.manifest import ModelDescription
from ..pipeline.interactive.alternatives import Difference, alternative_map, differences, grid_alternatives
from ..pipeline.segment import keep_organs
from ..pipeline.session import Session
from ..schema.output_kinds import ALTERNATIVES
from ..schema.report import Alternative, OrganDifference, PieceDifference


def write_alternatives(
    session: Session,
    description: ModelDescription,
    labels: NDArray[np.uint8],
    index_to_lps: NDArray[np.float64],
    folder: Path,
    *,
    scribbles: NDArray[np.uint8] | None = None,
) -> tuple[Alternative, ...]:
    """Write each different sample, one at a time, and return what report.json says of it under `alternatives`.

    `labels` (k, j, i) is the segmentation, `scribbles` are those that all alternatives obey. An entry
    has the file, how many samples say so and their share, the mL in which it differs from the segmentation, how much
    each organ would gain and lose, and the largest pieces that differ, with a position in LPS mm.

    Raises:
        DiffusionSegmentError: OUT_OF_MEMORY, OUTPUT_UNWRITABLE or DISK_FULL.
    """
    (folder / ALTERNATIVES).mkdir()
    on_grid = keep_organs(session.maps.ensemble, session.wanted).argmax(dim=0).byte().numpy()
    entries = []
    for number, alternative in enumerate(grid_alternatives(session), start=1):
        name = f"{ALTERNATIVES}/{number}.nii.gz"
        whole = alternative_map(alternative, session)
        if scribbles is not None:
            whole[scribbles > 0] = scribbles[scribbles > 0] - 1
        write_map(Volume(whole, index_to_lps), folder / name)
        changed = whole != labels
        pieces = differences(alternative, on_grid, session)
        entries.append(
            Alternative(
                file=name,
                samples=alternative.samples,
                share=alternative.share,
                differs_ml=round(float(np.count_nonzero(changed)) * session.voxel_ml, 2),
                organs=_organs(labels[changed], whole[changed], description, session.voxel_ml),
                differences=tuple(_piece(piece, description) for piece in pieces),
            )
        )
    return tuple(entries)


def _organs(
    before: NDArray[np.uint8], after: NDArray[np.uint8], description: ModelDescription, voxel_ml: float
) -> tuple[OrganDifference, ...]:
    gained, lost = gained_and_lost(before, after)
    return tuple(
        OrganDifference(
            name=label.name,
            gained_ml=round(gained[label.value] * voxel_ml, 2),
            lost_ml=round(lost[label.value] * voxel_ml, 2),
        )
        for label in description.labels
        if gained[label.value] or lost[label.value]
    )


def _piece(piece: Difference, description: ModelDescription) -> PieceDifference:
    names = _names(description)
    title = f"{names[piece.label][1].capitalize()}, not {names[piece.instead][1]}: {piece.volume_ml:.1f} mL."
    return PieceDifference(
        label=names[piece.label][0],
        instead=names[piece.instead][0],
        volume_ml=piece.volume_ml,
        position_lps_mm=piece.position_lps_mm,
        sentence=title,
    )


def _names(description: ModelDescription) -> Sequence[tuple[str, str]]:
    """Name and title of each label value, the background's included."""
    return [("background", "background"), *((label.name, label.title.lower()) for label in description.labels)]
