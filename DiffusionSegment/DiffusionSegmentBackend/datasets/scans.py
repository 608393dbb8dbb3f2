"""The scans of one-command training: listing, checks against the manifest, reading, sets and folds."""

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
    """Files of labelled cases and of scans without labels."""

    cases: tuple[CaseFiles, ...]
    unlabelled: tuple[Path, ...]

    @property
    def names(self) -> list[str]:
        """Names of all scans."""
        return [case.name for case in self.cases] + [path.name for path in self.unlabelled]

    @property
    def sets(self) -> dict[str, int]:
        """Number of labelled cases by the name of their folder."""
        counts: dict[str, int] = {}
        for case in self.cases:
            name = case.image.resolve().parent.parent.name
            counts[name] = counts.get(name, 0) + 1
        return counts


def find_scans(data: Sequence[Path], unlabelled: Sequence[Path], description: ModelDescription) -> ScanFiles:
    """List the scans and check them against the manifest; one image of each folder is read.

    Raises:
        DiffusionSegmentError: TRAINING_DATA for a folder without cases or of another modality, duplicate names, an
            organ without annotation, fewer than two cases with all organs.
    """
    cases: list[CaseFiles] = []
    firsts: list[tuple[str, Path]] = []
    for folder in data:
        folder_cases = find_cases(folder)
        firsts.append((f"{folder}: case {folder_cases[0].name}", folder_cases[0].image))
        if not any(drawn_values(case, description) for case in folder_cases):
            raise _invalid(
                f"In {folder} no organ is drawn.", "List the organs in annotated.json, or leave the set out."
            )
        cases += folder_cases
    names = [case.name for case in cases]
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise _invalid(f"There are two cases named {duplicates[0]}.", "Rename one: each scan counts once.")
    drawn = {value for case in cases for value in drawn_values(case, description)}
    missing = [label.title for label in description.labels if label.value not in drawn]
    if missing:
        raise _invalid(f"Nobody drew: {', '.join(missing)}.", "Add labelled cases, or take it out of the manifest.")
    if len(complete_cases(cases, description)) < 2:
        raise _invalid("Fewer than two cases have all organs drawn.", "Give at least two; they are held out in turn.")
    unlabelled_paths = scan_paths(unlabelled)
    for name, path in [*firsts, *((str(path), path) for path in unlabelled_paths[:1])]:
        refuse_other_modality(name, path, description)
    return ScanFiles(tuple(cases), tuple(unlabelled_paths))


def refuse_other_modality(name: str, path: Path, description: ModelDescription) -> None:
    """Check the modality of a scan, from its header, else from its voxel values.

    Raises:
        DiffusionSegmentError: TRAINING_DATA.
    """
    scan = read_scan(path)
    try:
        check_modality(scan.volume.array, expected=description.modality, stated=scan.modality)
    except DiffusionSegmentError as error:
        raise _invalid(f"{name}: {error.message}", error.hint) from error


def complete_cases(cases: Sequence[CaseFiles], description: ModelDescription) -> list[CaseFiles]:
    """The cases in which all organs of the manifest are annotated."""
    return [case for case in cases if len(drawn_values(case, description)) == len(description.labels)]


def read_cases(scans: ScanFiles, description: ModelDescription, note: Note) -> tuple[list[Case], list[Case]]:
    """Labelled and unlabelled scans at the spacing of the trunk, for the training of the body-part network."""
    coarse = replace(description, spacing_mm=description.trunk_spacing_mm)
    labelled = _each(scans.cases, lambda case: load_case(case, coarse), note)
    return labelled, _each(scans.unlabelled, lambda path: load_scan(path, coarse), note)


@dataclass(frozen=True)
class Volumes:
    """Training volumes of all scans by name; `files` are those of the labelled ones."""

    labelled: dict[str, TrainingVolume]
    unlabelled: dict[str, TrainingVolume]
    files: dict[str, CaseFiles]

    def sets(self, *, without: Sequence[str] = (), denoising: bool) -> list[TrainingSet]:
        """Group the volumes by annotated organs; the share of a set is proportional to scans times organs.

        Scans without labels count as if one organ were annotated; they are used for denoising only.
        """
        volumes = [v for name, v in self.labelled.items() if name not in without]
        volumes += [v for v in self.unlabelled.values() if denoising or bool(v.drawn[1:].any())]
        groups: dict[tuple[bool, ...], list[TrainingVolume]] = {}
        for volume in volumes:
            groups.setdefault(tuple(volume.drawn.tolist()), []).append(volume)
        return [TrainingSet(members, float(len(members) * max(1, sum(drawn[1:])))) for drawn, members in groups.items()]

    def folds(self, count: int) -> list[CaseFold]:
        """Folds over the cases with all organs annotated."""
        slices = {name: v.grid.native_spacing[2] for name, v in self.labelled.items() if bool(v.drawn.all())}
        return stratified_folds(slices, count=min(count, len(slices)))


def read_volumes(scans: ScanFiles, description: ModelDescription, regressor: BodyPartRegressor, note: Note) -> Volumes:
    """Read all scans onto the model's grid.

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
    results = []
    for number, item in enumerate(items):
        note(f"reading scan {number + 1} of {len(items)}")
        results.append(read(item))
    return results


def _invalid(message: str, hint: str) -> DiffusionSegmentError:
    return DiffusionSegmentError(ErrorCode.TRAINING_DATA, message, hint=hint)
