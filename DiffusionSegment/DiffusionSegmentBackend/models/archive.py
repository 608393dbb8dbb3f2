"""Model archives: the files of a model in a zip file or a folder, with checks of their names, sizes and sha256.

manifest.json states the model's name and the sha256 of every other file. Format 1 contains a fine-tuned model:
model.json and probe.safetensors. Format 2 contains a whole model: model.json, the weights of each of its networks, and
an optional MODEL_CARD.md.
"""

from __future__ import annotations

import hashlib
import json
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .. import __version__
from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.atomic_writes import staged_file
from ..schema.model_manifest import NETWORKS
from .manifest import CARD_FILE, DESCRIPTION_FILE
from .model import sha256_of

MANIFEST_FILE = "manifest.json"
FINE_TUNED, WHOLE = 1, 2
_FORMATS = (FINE_TUNED, WHOLE)
_MAX_WEIGHTS_BYTES = 512_000_000
_CHUNK_BYTES = 1 << 20
_DAMAGED_ZIP = (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError, ValueError, zlib.error)
_Opened = dict[str, Callable[[], IO[bytes]]]


def weights_file(network: str) -> str:
    """The file of a network's weights in an archive."""
    return f"{network}.safetensors"


_PROBE_FILE = weights_file("probe")
MAX_BYTES = {
    MANIFEST_FILE: 64_000,
    DESCRIPTION_FILE: 1_000_000,
    CARD_FILE: 1_000_000,
    **{weights_file(network): _MAX_WEIGHTS_BYTES for network in NETWORKS},
}


@dataclass(frozen=True)
class ArchiveManifest:
    """The content of manifest.json: the model's name, the format, and the sha256 of every other file."""

    name: str
    format: int
    sha256: Mapping[str, str]

    @classmethod
    def of_folder(cls, folder: Path, *, name: str, format: int) -> ArchiveManifest:
        """The manifest of the model files in a folder."""
        parts = sorted(part for part in MAX_BYTES if part != MANIFEST_FILE and (folder / part).is_file())
        return cls(name, format, {part: sha256_of(folder / part) for part in parts})

    def write(self, folder: Path) -> None:
        """Write manifest.json."""
        raw = {"format": self.format, "software": __version__, "name": self.name, "sha256": dict(self.sha256)}
        (folder / MANIFEST_FILE).write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")


def write_archive(folder: Path, zip_path: Path) -> None:
    """Write the files listed in the folder's manifest.json to a zip file.

    Raises:
        DiffusionSegmentError: INPUT_UNREADABLE or WEIGHTS_CORRUPT for files that differ from the manifest,
            DISK_FULL or OUTPUT_UNWRITABLE.
    """
    # Zip files cannot hold dates before 1980.
    with (
        staged_file(zip_path) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as file,
    ):
        for part in (MANIFEST_FILE, *_checked_sums(folder)):
            file.write(folder / part, part)


def _checked_sums(folder: Path) -> Mapping[str, str]:
    with _opened_folder(folder) as files:
        manifest = _manifest(files, folder)
        for part, expected in manifest.sha256.items():
            digest = hashlib.sha256()
            for data in _chunks(files[part], part, folder):
                digest.update(data)
            _compare(digest.hexdigest(), expected, part, folder)
    return manifest.sha256


def read_archive(source: Path, folder: Path) -> ArchiveManifest:
    """Copy the model files of a zip file, or of a folder with a manifest.json, to `folder` and check each.

    The unpacked size of each file is limited, whatever the zip header says. Other files are refused in a zip file, and
    ignored in a folder.

    Raises:
        DiffusionSegmentError: INPUT_UNREADABLE for anything else, WEIGHTS_CORRUPT for a file that was changed.
    """
    with _opened_folder(source) if source.is_dir() else _opened_zip(source) as files:
        manifest = _manifest(files, source)
        for part, expected in manifest.sha256.items():
            digest = hashlib.sha256()
            with (folder / part).open("wb") as copy:
                for data in _chunks(files[part], part, source):
                    digest.update(data)
                    copy.write(data)
            _compare(digest.hexdigest(), expected, part, source)
    manifest.write(folder)
    return manifest


@contextmanager
def _opened_folder(folder: Path) -> Iterator[_Opened]:
    """The model files in a folder; symbolic links are ignored."""

    def opener(path: Path) -> Callable[[], IO[bytes]]:
        return lambda: path.open("rb")

    paths = [folder / part for part in MAX_BYTES]
    yield {path.name: opener(path) for path in paths if path.is_file() and not path.is_symlink()}


@contextmanager
def _opened_zip(path: Path) -> Iterator[_Opened]:
    """The model files in a zip file, which must contain no others and no duplicates."""
    try:
        file = zipfile.ZipFile(path)
    except _DAMAGED_ZIP as error:
        raise refusal(path, "it is not a zip file, or is damaged") from error
    with file:
        entries = file.infolist()
        for entry in entries:
            if entry.filename not in MAX_BYTES:
                raise refusal(path, f"it holds '{entry.filename[:60]}', which no model has")
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise refusal(path, f"{entry.filename} is a link")
        names = [entry.filename for entry in entries]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise refusal(path, f"it should hold {', '.join(twice)} once each")

        def opener(entry: zipfile.ZipInfo) -> Callable[[], IO[bytes]]:
            return lambda: file.open(entry)

        yield {entry.filename: opener(entry) for entry in entries}


def _manifest(files: _Opened, source: Path) -> ArchiveManifest:
    """The manifest, after a check that it lists the other files, and only those of its format."""
    if MANIFEST_FILE not in files:
        raise refusal(source, f"{MANIFEST_FILE} is missing")
    try:
        raw: Any = json.loads(b"".join(_chunks(files[MANIFEST_FILE], MANIFEST_FILE, source)))
        version, name, sums = raw["format"], raw["name"], dict(raw["sha256"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise refusal(source, f"{MANIFEST_FILE} is damaged") from error
    if version not in _FORMATS or isinstance(version, bool):
        read = " and ".join(map(str, _FORMATS))
        raise refusal(source, f"it has the format {version!r:.40}, this program reads {read}; update the extension")
    known = set(MAX_BYTES) - {MANIFEST_FILE} if version == WHOLE else {DESCRIPTION_FILE, _PROBE_FILE}
    complete = DESCRIPTION_FILE in sums and (version == WHOLE or _PROBE_FILE in sums)
    if not isinstance(name, str) or not complete or not known.issuperset(sums):
        raise refusal(source, f"{MANIFEST_FILE} is damaged")
    present = set(files) - {MANIFEST_FILE}
    if not present.issuperset(sums):
        raise refusal(source, f"it should hold {', '.join(sorted(set(sums) - present))} once each")
    if not source.is_dir() and present != set(sums):
        raise refusal(source, f"{MANIFEST_FILE} does not name {', '.join(sorted(present - set(sums)))}")
    return ArchiveManifest(name, version, sums)


def _chunks(opener: Callable[[], IO[bytes]], part: str, source: Path) -> Iterator[bytes]:
    """The bytes of a file, up to its maximum size."""
    left = MAX_BYTES[part]
    try:
        with opener() as stream:
            while data := stream.read(_CHUNK_BYTES):
                left -= len(data)
                if left < 0:
                    raise refusal(source, f"{part} is larger than {MAX_BYTES[part] / 1e6:g} MB")
                yield data
    except _DAMAGED_ZIP as error:
        raise refusal(source, f"{part} cannot be read, it is damaged") from error


def _compare(digest: str, expected: str, part: str, source: Path) -> None:
    if digest != expected:
        raise DiffusionSegmentError(
            ErrorCode.WEIGHTS_CORRUPT,
            f"{part} in {source} was changed (sha256 differs).",
            hint="Export the model again.",
        )


def refusal(source: Path, why: str) -> DiffusionSegmentError:
    """The error (INPUT_UNREADABLE) of files that cannot be imported."""
    return DiffusionSegmentError(
        ErrorCode.INPUT_UNREADABLE,
        f"{source} cannot be imported: {why}.",
        hint="Give a file of `export-model`, or the folder that `train` wrote.",
    )
