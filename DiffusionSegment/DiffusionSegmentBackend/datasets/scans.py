"""The scans of one-command training: found, checked against the manifest, and split into sets and folds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.volume_io import read_scan
from ..models.manifest import ModelDescription
from ..networks.bodypart import BodyPartRegressor
from ..pipeline.checks import check_modality
from .case_folds import CaseFold, stratified_folds
from .labelled_cases import Case, CaseFiles, drawn_values, find_cases, load_case, load_scan, scan_paths
from .patch_sampler import TrainingSet
from .volumes import TrainingVolume, training_volume

_Item = TypeVar("_Item")
_Read = TypeVar("_Read")
Note = Callable[[str], None]


@dataclass(frozen=True)
class ScanFiles:
    """Labelled cases, and scans that nobody labelled."""

    cases: tuple[CaseFiles, ...]
    unlabelled: tuple[Path, ...]

    @property
    def names(self) -> list[str]:
        """Of all."""
        return [case.name for case in self.cases] + [path.name for path in self.unlabelled]

    @property
    def sets(self) -> dict[str, int]:
        """Number of the labelled cases by the name of their folder."""
        counts: dict[str, int] = {}
        for case in self.cases:
            name = case.image.resolve().parent.parent.name
            counts[name] = counts.get(name, 0) + 1
        return counts


def find_scans(data: Sequence[Path], unlabelled: Sequence[Path], description: ModelDescription) -> ScanFiles:
    """Find the scans and make sure that they suit the manifest; of each folder one image is read.

    Raises:
        DiffusionSegmentError: TRAINING_DATA for a folder without cases or of another modality, names that two folders
            share, an organ that nobody drew, fewer than two cases with all organs.
    """
    cases: list[CaseFiles] = []
    firsts: list[tuple[str, Path]] = []
    for folder in data:
        found = find_cases(folder)
        firsts.append((f"{folder}: case {found[0].name}", found[0].image))
        if not any(drawn_values(case, description) for case in found):
            raise _unfit(f"In {folder} no organ is drawn.", "List the organs in annotated.json, or leave the set out.")
        cases += found
    names = [case.name for case in cases]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise _unfit(f"There are two cases named {twice[0]}.", "Rename one: each scan counts once.")
    drawn = {value for case in cases for value in drawn_values(case, description)}
    missing = [label.title for label in description.labels if label.value not in drawn]
    if missing:
        raise _unfit(f"Nobody drew: {', '.join(missing)}.", "Add labelled cases, or take it out of the manifest.")
    if len(complete_cases(cases, description)) < 2:
        raise _unfit("Fewer than two cases have all organs drawn.", "Give at least two; they are held out in turn.")
    free = scan_paths(unlabelled)
    for name, path in [*firsts, *((str(path), path) for path in free[:1])]:
        refuse_other_modality(name, path, description)
    return ScanFiles(tuple(cases), tuple(free))


def refuse_other_modality(name: str, path: Path, description: ModelDescription) -> None:
    """Refuse a scan that is not of the modality that model.json has, by its header, else by its values.

    Raises:
        DiffusionSegmentError: TRAINING_DATA.
    """
    scan = read_scan(path)
    try:
        check_modality(scan.volume.array, expected=description.modality, stated=scan.modality)
    except DiffusionSegmentError as error:
        raise _unfit(f"{name}: {error.message}", error.hint) from error


def complete_cases(cases: Sequence[CaseFiles], description: ModelDescription) -> list[CaseFiles]:
    """Those in which all organs of the manifest were drawn."""
    return [case for case in cases if len(drawn_values(case, description)) == len(description.labels)]


def read_cases(scans: ScanFiles, description: ModelDescription, note: Note) -> tuple[list[Case], list[Case]]:
    """Labelled and other scans at the trunk's spacing, as the body-part network's training takes them."""
    coarse = replace(description, spacing_mm=description.trunk_spacing_mm)
    labelled = _each(scans.cases, lambda case: load_case(case, coarse), note)
    return labelled, _each(scans.unlabelled, lambda path: load_scan(path, coarse), note)


@dataclass(frozen=True)
class Volumes:
    """All scans as networks train on them, by name; `files` are those of the labelled ones."""

    labelled: dict[str, TrainingVolume]
    unlabelled: dict[str, TrainingVolume]
    files: dict[str, CaseFiles]

    def sets(self, *, without: Sequence[str] = (), denoising: bool) -> list[TrainingSet]:
        """Sets of scans with the same organs drawn; a set's share of the patches goes by scans times organs.

        Scans that nobody labelled count as if one organ were drawn; they are there for denoising alone.
        """
        volumes = [v for name, v in self.labelled.items() if name not in without]
        volumes += [v for v in self.unlabelled.values() if denoising or bool(v.drawn[1:].any())]
        groups: dict[tuple[bool, ...], list[TrainingVolume]] = {}
        for volume in volumes:
            groups.setdefault(tuple(volume.drawn.tolist()), []).append(volume)
        return [TrainingSet(members, float(len(members) * max(1, sum(drawn[1:])))) for drawn, members in groups.items()]

    def folds(self, count: int) -> list[CaseFold]:
        """Folds over the labelled cases with all organs drawn."""
        slices = {name: v.grid.native_spacing[2] for name, v in self.labelled.items() if bool(v.drawn.all())}
        return stratified_folds(slices, count=min(count, len(slices)))


def read_volumes(scans: ScanFiles, description: ModelDescription, regressor: BodyPartRegressor, note: Note) -> Volumes:
    """All scans on the model's grid.

    Raises:
        DiffusionSegmentError: TRAINING_DATA, naming the case.
    """
    stride, classes = description.tile.stride, description.classes

    def volume(case: Case) -> TrainingVolume:
        return training_volume(case, regressor, classes, trunk_stride=stride)

    labelled = _each(scans.cases, lambda case: volume(load_case(case, description)), note)
    unlabelled = _each(scans.unlabelled, lambda path: volume(load_scan(path, description)), note)
    return Volumes(
        labelled={v.name: v for v in labelled},
        unlabelled={v.name: v for v in unlabelled},
        files={case.name: case for case in scans.cases},
    )


def _each(items: Sequence[_Item], read: Callable[[_Item], _Read], note: Note) -> list[_Read]:
    found = []
    for number, item in enumerate(items):
        note(f"reading scan {number + 1} of {len(items)}")
        found.append(read(item))
    return found


def _unfit(message: str, hint: str) -> DiffusionSegmentError:
    return DiffusionSegmentError(ErrorCode.TRAINING_DATA, message, hint=hint)
