"""Scans for the study of the anatomy check: patients in folders, and phantoms of water and of noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from DiffusionSegmentBackend.datasets.labelled_cases import find_cases, is_scan
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import read_volume
from numpy.typing import NDArray

_PHANTOM_VOXELS = 64
_PHANTOM_MM = 3.0
_RADIUS_MM = 85.0
_AIR_HU = -1000.0


@dataclass(frozen=True)
class Scan:
    """One scan of a group.

    Attributes:
        group: the folder and its part, or the kind of phantom.
        name: name of the scan.
        own: whether it shows the model's body part.
        sets_limits: whether it is a training case, by which limits are set.
        source: its file or DICOM folder, or a function that makes its values.
    """

    group: str
    name: str
    own: bool
    sets_limits: bool
    source: Path | Callable[[], NDArray[np.float32]]

    def read(self) -> Volume:
        """Read the scan."""
        if isinstance(self.source, Path):
            return read_volume(self.source)
        return Volume(self.source(), np.diag([_PHANTOM_MM, _PHANTOM_MM, _PHANTOM_MM, 1.0]))


def scans_of(folders: Sequence[Path], others: Sequence[Path]) -> list[Scan]:
    """All scans of the model's body part in `folders` and of other parts in `others`, and the phantoms.

    A folder holds images/ and labels/, of which the training cases set limits, or scans alone, which set none. A path
    in `others` may be a single scan; it is then excluded from its folder.
    """
    own = [scan for folder in folders for scan in _scans(folder, own=True, without=others)]
    return own + [scan for path in others for scan in _scans(path, own=False)] + list(phantoms())


def scans_in(paths: Sequence[Path]) -> list[Scan]:
    """All scans in `paths`, each a folder or a single scan."""
    return [scan for path in paths for scan in _scans(path, own=True)]


def _scans(source: Path, *, own: bool, without: Sequence[Path] = ()) -> Iterator[Scan]:
    if is_scan(source):
        yield Scan(_name(source), _name(source), own, False, source)
    elif not (source / "images").is_dir():
        for path in sorted(source.iterdir()):
            if (path.is_dir() or is_scan(path)) and path not in without:
                yield Scan(source.name, _name(path), own, False, path)
    else:
        training = {case.name for case in find_cases(source)}
        for path in sorted(path for path in (source / "images").iterdir() if is_scan(path)):
            known = _name(path) in training
            yield Scan(f"{source.name}, {'training' if known else 'validation'}", _name(path), own, known, path)


def _name(path: Path) -> str:
    return path.name.split(".")[0]


def phantoms() -> Iterator[Scan]:
    """Water in air with and without noise, water that fills the scan, and noise of three kinds, all in HU."""
    sources: dict[str, Callable[[], NDArray[np.float32]]] = {
        "water": lambda: _water(0.0),
        "noisy water": lambda: _water(20.0),
        "water everywhere": lambda: _noise(0.0, 10.0),
        "noise of 20 HU around 50": lambda: _noise(50.0, 20.0),
        "noise of 100 HU around 0": lambda: _noise(0.0, 100.0),
        "noise of 500 HU around -300": lambda: _noise(-300.0, 500.0),
    }
    for name, source in sources.items():
        yield Scan("phantoms of water and noise", name, False, False, source)


def _water(noise_hu: float) -> NDArray[np.float32]:
    steps = (np.arange(_PHANTOM_VOXELS) - (_PHANTOM_VOXELS - 1) / 2) * _PHANTOM_MM
    bottle = np.hypot(steps[:, None], steps[None]) < _RADIUS_MM
    noise = _noise(0.0, noise_hu)
    return np.where(bottle[None], noise, np.float32(_AIR_HU)).astype(np.float32)


def _noise(mean_hu: float, std_hu: float) -> NDArray[np.float32]:
    values = np.random.default_rng(0).normal(mean_hu, std_hu, (_PHANTOM_VOXELS,) * 3)
    return values.clip(-1024, 3071).astype(np.float32)
