"""Choice of the scan in a DICOM file or folder: scans are listed, all other files excluded by their kind."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DiffusionSegmentError, ErrorCode
from .dicom_grid import Stack, stack_frames, unit_axes
from .dicom_headers import STACK_TAGS, DicomFile, Frame, read_header
from .dicom_pixels import same_pixels
from .dicom_values import lenient
from .image_files import READABLE

SUFFIXES = (".dcm", ".dicom", ".ima")
_DIRECTORY = "DICOMDIR"
_MAX_SCOUT_SLICES = 5
_SAME_DIRECTION = 0.97  # cosine; between stacks of a series the angle is far larger, noise far smaller
_MAX_STACKS = 1000


@dataclass(frozen=True, eq=False)
class Candidate:
    """A stack of slices that can be chosen. `key` identifies it: the series UID, with #n for one of several stacks."""

    key: str
    uid: str
    number: str
    description: str
    modality: str
    stack_value: str
    rank: int
    copies: int
    frames: tuple[Frame, ...]
    stack: Stack | None
    problem: DiffusionSegmentError | None

    @property
    def title(self) -> str:
        """For messages, such as: series 2 "venous" (CT, 41 slices)."""
        words = ["series", self.number or "without number", f'"{self.description}"' if self.description else ""]
        inside = [self.modality or "no modality", self.stack_value, f"{len(self.frames)} slices"]
        return f"{' '.join(word for word in words if word)} ({', '.join(word for word in inside if word)})"


@dataclass(frozen=True)
class Chosen:
    """The chosen scan, and notes on the excluded files."""

    candidate: Candidate
    stack: Stack
    notes: tuple[str, ...]


@dataclass(frozen=True)
class SeriesList:
    """All stacks of slices in some files, and the files that are none, with their kind in `excluded` or `damage`."""

    candidates: tuple[Candidate, ...]
    others: tuple[DicomFile, ...]

    def damage_of(self, candidate: Candidate) -> DicomFile | None:
        """A damaged file that belongs, or may belong, to a stack, which would lack a slice without it."""
        return _damage(self.others, candidate)


def list_series(paths: Sequence[Path], *, what: Path) -> SeriesList:
    """List the stacks of slices in the DICOM files among `paths`; `what` names them in the errors of a stack."""
    with lenient():
        files = _read_headers(paths)
        kept, _ = _without_duplicates([file for file in files if not file.excluded])
        candidates = _sorted_stacks(kept, what)
    return SeriesList(tuple(candidates), tuple(file for file in files if not file.frames or file.excluded))


def choose_series(path: Path, series: str | None = None, *, files: Sequence[Path] | None = None) -> Chosen:
    """Choose the scan in a DICOM file or folder (with its sub-folders); `series` is a UID, a series number or an index.

    `files` are those to read where they are not all of `path`, which errors then name.

    Raises:
        DiffusionSegmentError: INPUT_UNREADABLE without a scan or with a damaged slice, INPUT_SHAPE for a single slice,
            OPTION for several scans or none that matches `series`, GEOMETRY.
    """
    with lenient():
        headers = _read_headers(dicom_paths(path) if files is None else files)
        scans = [file for file in headers if not file.excluded]
        if not headers or not scans:
            raise _no_scan(path, headers)
        kept, duplicates = _without_duplicates(scans)
        candidates, scouts = _candidates(kept, path)
    excluded = Counter(file.excluded for file in headers if file.excluded)
    if not candidates and (damaged := next((file for file in kept if file.damage), None)):
        raise _damaged(damaged)
    chosen = _choice(candidates, series, path)
    excluded.update(scouts)
    _check_damage(kept, chosen, path)
    if chosen.problem is not None:
        raise chosen.problem
    if chosen.stack is None:
        raise _one_slice(path)
    notes = []
    excluded.update(_others(candidates, chosen) if series is None else {})
    if excluded:
        notes.append(f"Set aside: {', '.join(f'{count} {name}' for name, count in sorted(excluded.items()))}.")
    if copies := duplicates + chosen.copies:
        notes.append(f"{copies} files are copies of others and were not counted twice.")
    return Chosen(chosen, chosen.stack, tuple(notes))


def dicom_paths(path: Path) -> list[Path]:
    """All files below a folder except hidden ones; for a DICOMDIR those of its folder; else the file itself."""
    if path.is_file() and path.name.upper() != _DIRECTORY:
        return [path]
    paths = []
    for folder, folders, names in os.walk(path if path.is_dir() else path.parent):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files = sorted(name for name in names if not name.startswith(".") and name.upper() != _DIRECTORY)
        paths += [Path(folder, name) for name in files]
    return paths


def _read_headers(files_or_links: Sequence[Path]) -> list[DicomFile]:
    """The headers of all DICOM files, with damage noted for those that cannot be read."""
    paths = [file for file in files_or_links if file.is_file()]
    with ThreadPoolExecutor(max_workers=2) as pool:
        headers = list(pool.map(read_header, paths, chunksize=16))
    files = [header for header in headers if header is not None]
    siblings = {(file.path.parent, file.path.suffix.lower()) for file in files if not file.excluded}
    for file, header in zip(paths, headers, strict=True):
        if header is None and _should_be_dicom(file, siblings):
            damage = "is empty" if file.stat().st_size == 0 else "is damaged or no DICOM file"
            files.append(DicomFile(file, "", "", "", "", 0, "", damage, ()))
    return files


def _should_be_dicom(file: Path, siblings: set[tuple[Path, str]]) -> bool:
    """Whether an unreadable file should be a DICOM file, by its name or those of its neighbours."""
    suffix = file.suffix.lower()
    if suffix in SUFFIXES:
        return True
    if (file.parent, suffix) not in siblings:
        return False
    try:
        with open(file, "rb") as opened:
            head = opened.read(128)
    except OSError:
        return True
    return not any(head)


def _without_duplicates(files: Sequence[DicomFile]) -> tuple[list[DicomFile], int]:
    """One file per SOPInstanceUID; files with the same UID but other positions are different images."""
    seen: set[object] = set()
    kept = []
    for file in files:
        frames = tuple((frame.sop_uid, frame.position, frame.stack_values) for frame in file.frames)
        if not frames or not frames[0][0] or (file.series_uid, frames) not in seen:
            seen.add((file.series_uid, frames))
            kept.append(file)
    return kept, len(files) - len(kept)


def _candidates(files: Sequence[DicomFile], path: Path) -> tuple[list[Candidate], Counter[str]]:
    """The stacks of all series by series number, and the number of excluded scout slices by kind."""
    candidates = _sorted_stacks(files, path)
    longest = max((len(c.frames) for c in candidates), default=0)
    scouts = [c for c in candidates if len(c.frames) <= _MAX_SCOUT_SLICES < longest]
    names: Counter[str] = Counter()
    for scout in scouts:
        names[f"{scout.modality} slices of series {scout.number or 'without number'}"] += len(scout.frames)
    kept = [c for c in candidates if c not in scouts]
    localizers = sum(frame.localizer for file in files for frame in file.frames)
    if localizers:
        names["localizer"] += localizers
    return kept, names


def _sorted_stacks(files: Sequence[DicomFile], path: Path) -> list[Candidate]:
    """The stacks of all series by series number."""
    groups: dict[tuple[str, str], list[DicomFile]] = defaultdict(list)
    for file in files:
        if file.frames:
            groups[file.series_uid, file.modality].append(file)
    candidates: list[Candidate] = []
    for members in groups.values():
        candidates += _stacks_of(members, path)
    return sorted(candidates, key=lambda c: (c.rank, _sort_number(c.number), c.uid))


def _sort_number(number: str) -> tuple[float, str]:
    try:
        return float(number), ""
    except ValueError:
        return float("inf"), number


def _stacks_of(files: Sequence[DicomFile], path: Path) -> Iterator[Candidate]:
    first = files[0]
    frames = [frame for file in files for frame in file.frames if not frame.localizer]
    parts: list[tuple[str, list[Frame], int]] = []
    for group in _by_orientation(frames):
        single = group if _stacked(group, path)[0] is not None else _without_copies(group)
        parts += [(value, part, len(group) - len(single)) for value, part in _by_stack_tag(single, path)]
    for n, (value, part, copies) in enumerate(parts[:_MAX_STACKS], start=1):
        stack, problem = _stacked(part, path)
        yield Candidate(
            key=first.series_uid if len(parts) == 1 else f"{first.series_uid}#{n}",
            uid=first.series_uid,
            number=first.series_number,
            description=first.description,
            modality=first.modality,
            stack_value=value,
            rank=min(file.rank for file in files),
            copies=copies,
            frames=tuple(part),
            stack=stack,
            problem=problem,
        )


def _by_orientation(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Frames grouped by size and orientation; frames without orientation belong to the first group."""
    groups: list[tuple[tuple[int, int], np.ndarray, list[Frame]]] = []
    for frame in frames:
        size = (frame.pixels.rows, frame.pixels.columns)
        axes = unit_axes(frame) if frame.orientation is not None else None
        for other, direction, members in groups:
            same = axes is None or bool(np.all((axes * direction).sum(axis=1) > _SAME_DIRECTION))
            if other == size and same:
                members.append(frame)
                break
        else:
            groups.append((size, np.zeros((2, 3)) if axes is None else axes, [frame]))
    return [members for _, _, members in groups]


def _without_copies(frames: Sequence[Frame]) -> list[Frame]:
    """Frames without copies: the same position and pixels under another UID."""
    seen: dict[object, list[Frame]] = defaultdict(list)
    kept = []
    for frame in frames:
        others = seen[frame.position, frame.slope, frame.intercept, frame.stack_values]
        if not any(same_pixels(frame, other) for other in others):
            others.append(frame)
            kept.append(frame)
    return kept


def _by_stack_tag(frames: list[Frame], path: Path) -> list[tuple[str, list[Frame]]]:
    """The frames as one stack if possible, else grouped by the first tag whose values each give a stack."""
    if len(frames) < 2 or _stacked(frames, path)[0] is not None:
        return [("", frames)]
    for n, (_, name) in enumerate(STACK_TAGS):
        parts: dict[str, list[Frame]] = defaultdict(list)
        for frame in frames:
            parts[frame.stack_values[n]].append(frame)
        if 1 < len(parts) <= len(frames) // 2 and all(_stacked(part, path)[0] for part in parts.values()):
            return [(f"{name} {value}".strip(), part) for value, part in sorted(parts.items(), key=_by_value)]
    return [("", frames)]


def _by_value(item: tuple[str, list[Frame]]) -> tuple[float, str]:
    return _sort_number(item[0])


def _stacked(frames: Sequence[Frame], path: Path) -> tuple[Stack | None, DiffusionSegmentError | None]:
    if len(frames) < 2:
        return None, None
    try:
        return stack_frames(frames, what=str(path)), None
    except DiffusionSegmentError as error:
        return None, error


def _choice(candidates: list[Candidate], series: str | None, path: Path) -> Candidate:
    if series is None:
        first = [c for c in candidates if c.rank == candidates[0].rank] if candidates else []
        if len(first) > 1:
            raise _several(path, first, "holds")
        if not first:
            raise _one_slice(path)
        return first[0]
    wanted = series.strip()
    for match in (
        [c for c in candidates if wanted in (c.key, c.uid)],
        [c for c in candidates if wanted == c.number],
        candidates[int(wanted) - 1 : int(wanted)] if wanted.isdecimal() and int(wanted) else [],
    ):
        if len(match) == 1:
            return match[0]
    raise _several(path, candidates, f"holds not one series '{wanted}', but")


def _several(path: Path, candidates: Sequence[Candidate], verb: str) -> DiffusionSegmentError:
    listed = "; ".join(f"[{n}] {candidate.title}" for n, candidate in enumerate(candidates, start=1))
    return DiffusionSegmentError(
        ErrorCode.OPTION,
        f"{path} {verb} {len(candidates)} scans: {listed}.",
        hint="Name one (option series): its UID, series number or index in this list; or give its folder alone.",
    )


def _others(candidates: Sequence[Candidate], chosen: Candidate) -> Counter[str]:
    names: Counter[str] = Counter()
    for other in candidates:
        if other is not chosen:
            names[f"{other.modality} slices of series {other.number or 'without number'}"] += len(other.frames)
    return names


def _check_damage(files: Sequence[DicomFile], chosen: Candidate, path: Path) -> None:
    """Refuse a damaged file that belongs, or may belong, to the chosen series, which would lack a slice.

    Raises:
        DiffusionSegmentError: INPUT_UNREADABLE, with the file's name.
    """
    if (file := _damage(files, chosen)) is not None:
        raise _damaged(file)


def _damage(files: Sequence[DicomFile], chosen: Candidate) -> DicomFile | None:
    folders = {frame.pixels.path.parent for frame in chosen.frames}
    for file in files:
        unknown = not file.series_uid and (file.path.parent in folders)
        if file.damage and (file.series_uid == chosen.uid or unknown):
            return file
    return None


def _damaged(file: DicomFile) -> DiffusionSegmentError:
    return DiffusionSegmentError(
        ErrorCode.INPUT_UNREADABLE,
        f"{file.path} {file.damage}.",
        hint="Copy or export the series again: without it slices would be missing.",
    )


def _no_scan(path: Path, files: Sequence[DicomFile]) -> DiffusionSegmentError:
    if not files and path.is_file():
        return DiffusionSegmentError(
            ErrorCode.INPUT_UNREADABLE, f"{path} is not a readable image, or is damaged.", hint=f"Give a {READABLE}."
        )
    if not files:
        return DiffusionSegmentError(
            ErrorCode.INPUT_UNREADABLE, f"{path} holds no DICOM images.", hint=f"Give a {READABLE}."
        )
    names = Counter(file.excluded for file in files)
    listed = ", ".join(f"{count} {name}" for name, count in sorted(names.items()))
    return DiffusionSegmentError(
        ErrorCode.INPUT_UNREADABLE,
        f"{path} holds no DICOM images of a CT or MR series, only: {listed}.",
        hint="Give the folder of the original series.",
    )


def _one_slice(path: Path) -> DiffusionSegmentError:
    return DiffusionSegmentError(
        ErrorCode.INPUT_SHAPE,
        f"{path} is a 2D image; a 3D scan is needed.",
        hint="Give the folder of the whole series.",
    )
