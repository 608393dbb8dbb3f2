"""Labelled scans of several folders, with unique names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import DiffusionSegmentError, ErrorCode
from .labelled_cases import CaseFiles, paired_cases, read_parts


@dataclass(frozen=True)
class LabelledFolder:
    """A folder of scans and a folder of label maps with the same file names."""

    images: Path
    labels: Path

    @classmethod
    def of_data(cls, folder: Path) -> LabelledFolder:
        """The folders images/ and labels/ of a data folder."""
        return cls(folder / "images", folder / "labels")

    @property
    def data(self) -> Path:
        """The resolved data folder, which distinguishes folders that are all named images/."""
        images = self.images.resolve()
        return images.parent if images.name == "images" else images


@dataclass(frozen=True)
class FolderCases:
    """The cases of one folder; `missing` are cases of splits.json without a scan in the folder."""

    folder: LabelledFolder
    cases: tuple[CaseFiles, ...]
    missing: tuple[str, ...] = ()


def labelled_cases(folders: Sequence[LabelledFolder], *, part: str | None = None) -> list[FolderCases]:
    """The cases of all folders, or of one `part` ("validation", for example) of the splits.json in or above each.

    A name that occurs in several folders becomes folder/name, with as many path components as make it unique.

    Raises:
        DiffusionSegmentError: OPTION for a duplicate folder or an unknown part, TRAINING_DATA for a missing or empty
            folder, and for a case without a label map.
    """
    twice = [str(f.images) for f, n in Counter(folders).items() if n > 1]
    if twice:
        raise DiffusionSegmentError(ErrorCode.OPTION, f"{twice[0]} is named twice.", hint="Name each folder once.")
    return _with_unique_names([_cases_of(folder, part) for folder in folders])


def _cases_of(folder: LabelledFolder, part: str | None) -> FolderCases:
    for path in (folder.images, folder.labels):
        if not path.is_dir():
            hint = "Name a folder with images/ and labels/ in it, or both by --images and --labels."
            raise DiffusionSegmentError(ErrorCode.TRAINING_DATA, f"{path} is not a folder.", hint=hint)
    names = None if part is None else _names_of(folder, part)
    cases = paired_cases(folder.images, folder.labels, names=names)
    if not cases:
        what = f"{folder.images} holds no scans" if part is None else f"{folder.images} holds no scan of part '{part}'"
        hint = "Put NIfTI, NRRD or MHA files there." if part is None else "Choose another part, or leave --part out."
        raise DiffusionSegmentError(ErrorCode.TRAINING_DATA, f"{what}.", hint=hint)
    twice = [name for name, n in Counter(case.name for case in cases).items() if n > 1]
    if twice:
        raise DiffusionSegmentError(
            ErrorCode.TRAINING_DATA,
            f"{folder.images} holds several scans named {twice[0]}.",
            hint="Keep one file of each name.",
        )
    missing = sorted(set(names or ()) - {case.name for case in cases})
    return FolderCases(folder, tuple(cases), tuple(missing))


def _names_of(folder: LabelledFolder, part: str) -> list[str]:
    parts = read_parts(folder.data)
    if part not in parts:
        known = f"It has {', '.join(sorted(parts))}." if parts else "Put a splits.json beside it, or leave --part out."
        where = "splits.json of" if parts else "no splits.json for"
        raise DiffusionSegmentError(ErrorCode.OPTION, f"There is no part '{part}': {where} {folder.data}.", hint=known)
    return parts[part]


def _with_unique_names(folders: Sequence[FolderCases]) -> list[FolderCases]:
    counts = Counter(case.name for one in folders for case in one.cases)
    prefixes = _short_paths([one.folder.data for one in folders])
    renamed = []
    for one, prefix in zip(folders, prefixes, strict=True):
        cases = (replace(c, name=f"{prefix}/{c.name}") if counts[c.name] > 1 else c for c in one.cases)
        renamed.append(replace(one, cases=tuple(cases)))
    return renamed


def _short_paths(paths: Sequence[Path]) -> list[str]:
    """The shortest unique suffix of each path; a number is added if whole paths are equal."""
    for length in range(1, max(len(path.parts) for path in paths) + 1):
        short = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(short)) == len(short):
            return short
    return [f"{path.name}-{number}" for number, path in enumerate(paths, start=1)]
