"""A scan and a model so small that a command of the command line takes a moment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from DiffusionSegmentBackend.volume_io import write_volume
from reliability.tiny_model import coarse_phantom, write_tiny_model


@dataclass(frozen=True)
class Desk:
    """A folder with scans in two folders, a damaged one, and a model."""

    folder: Path
    model: Path

    @property
    def scan(self) -> Path:
        return self.folder / "monday" / "ct.nii.gz"

    @property
    def other_scan(self) -> Path:
        return self.folder / "tuesday" / "ct.nii.gz"

    @property
    def damaged(self) -> Path:
        return self.folder / "damaged.nii.gz"

    def segment(self, *inputs: Path, output: Path, more: tuple[str, ...] = ()) -> list[str]:
        """The call that segments the inputs with the small model."""
        scans = [str(path) for path in inputs or (self.scan,)]
        return ["segment", *scans, "-o", str(output), "--model", str(self.model), "--force", "--device", "cpu", *more]


def make_desk(folder: Path) -> Desk:
    """Write the scans and the model."""
    desk = Desk(folder, write_tiny_model(folder / "models"))
    for seed, path in enumerate((desk.scan, desk.other_scan), start=3):
        path.parent.mkdir()
        write_volume(coarse_phantom(seed), path)
    desk.damaged.write_text("no image", encoding="utf-8")
    return desk
