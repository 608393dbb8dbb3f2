"""A phantom on disk."""

from __future__ import annotations

from pathlib import Path

from ..imaging.output_folder import check_replaceable, staged_folder
from ..imaging.volume import Volume
from ..imaging.volume_io import write_volume
from ..phantom.phantom import make_phantom
from ..schema.output_kinds import PHANTOM


def write_phantom(folder: Path, *, seed: int, overwrite: bool = False) -> None:
    """Write ct.nii.gz and labels.nii.gz of the phantom; into a folder that holds files only with `overwrite`.

    Raises:
        DiffusionSegmentError: OUTPUT_UNWRITABLE or DISK_FULL.
    """
    check_replaceable(folder, PHANTOM, overwrite=overwrite)
    phantom = make_phantom(seed=seed)
    with staged_folder(folder, PHANTOM) as staging:
        write_volume(Volume(phantom.image, phantom.index_to_lps), staging / "ct.nii.gz")
        write_volume(Volume(phantom.labels, phantom.index_to_lps), staging / "labels.nii.gz")
    print(f"Written to {folder}.")
