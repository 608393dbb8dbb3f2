"""Models that a user taught: stored outside the extension's folder, given away as a zip file, taken in after checks.

A user model's folder holds model.json, probe.safetensors and manifest.json with the sha256 of both. Body-part network
and the network that its features come from are those of its base model; it has no refiner.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
import zipfile
import zlib
from pathlib import Path
from typing import Any

from . import __version__
from .errors import DiffusionSegmentError, ErrorCode
from .model_folders import bundled_models_folder, model_folders, user_models_folder
from .networks.probe import Probe
from .pipeline.description import DESCRIPTION_FILE, ModelDescription, read_description
from .pipeline.model import check_base, find_model, load_network, save_network, weights_sha256
from .result_folder import replaced_folder, staged_file

MANIFEST_FILE = "manifest.json"
FORMAT = 1
_PROBE_FILE = "probe.safetensors"
_LIMITS = {MANIFEST_FILE: 64_000, DESCRIPTION_FILE: 1_000_000, _PROBE_FILE: 64_000_000}
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_WINDOWS_DEVICE = re.compile(r"con|prn|aux|nul|com\d|lpt\d")
_FROM_BASE = ("modality", "spacing_mm", "trunk_spacing_mm", "tile_voxels", "window", "window_unit")
_INSTALLED = "Give it another name, or replace it."


def check_free_name(name: str, *, replace: bool = False) -> None:
    """Refuse a name that cannot be a model's, that a bundled model has, or that is taken unless `replace`.

    Raises:
        DiffusionSegmentError: OPTION.
    """
    if not _NAME.fullmatch(name) or _WINDOWS_DEVICE.fullmatch(name):
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"'{name}' cannot be the name of a model.",
            hint="Use up to 40 small letters, digits and hyphens, such as my-model.",
        )
    if (bundled_models_folder() / name).exists():
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"'{name}' is a model of the extension itself.", hint="Give it another name."
        )
    if (user_models_folder() / name).exists() and not replace:
        raise DiffusionSegmentError(ErrorCode.OPTION, f"A model named '{name}' already exists.", hint=_INSTALLED)


def save_user_model(
    name: str,
    probe: Probe,
    *,
    base: ModelDescription,
    labels: list[dict[str, Any]],
    anatomy: dict[str, Any],
    title: str | None = None,
    training: str = "",
    replace: bool = False,
) -> Path:
    """Store a taught probe and return its folder; `labels` and `anatomy` as in model.json.

    Raises:
        DiffusionSegmentError: OPTION for the name or a base that is not installed, DISK_FULL, OUTPUT_UNWRITABLE.
    """
    check_free_name(name, replace=replace)
    if base.folder.resolve().parent not in {folder.resolve() for folder in model_folders()}:
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"The base model in {base.folder} is not installed.",
            hint="Choose one of the installed models.",
        )
    raw: dict[str, Any] = {key: base.raw[key] for key in _FROM_BASE if key in base.raw}
    raw = {"name": name, "title": title or name, "version": "1", **raw}
    raw["orientation"] = base.raw.get("orientation", "LPS")
    raw["labels"], raw["anatomy"] = labels, anatomy
    # What a reader teaches may lie in many pieces: metastases, lymph nodes.
    raw["defaults"] = {key: value for key, value in base.raw.get("defaults", {}).items() if key != "smallest_piece"}
    raw["channels"], raw["training_data"] = list(base.channels), training
    raw["base"] = {"name": base.name, "version": base.version, "weights_sha256": weights_sha256(base)}
    raw["networks"] = {
        network: {**entry, "model": entry.get("model", base.folder.name)}
        for network, entry in base.raw["networks"].items()
        if network in shared_networks(base)
    }
    folder = user_models_folder() / name
    with replaced_folder(folder) as staging:
        (staging / DESCRIPTION_FILE).write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")
        save_network(staging, "probe", probe, architecture=_probe_architecture(base, probe.classes))
        _write_manifest(staging, name)
    return folder


def shared_networks(base: ModelDescription) -> set[str]:
    """What a model taught on `base` shares with it: all but heads and refiner."""
    return set(base.needed_networks) - {"probe", "refiner"}


def _probe_architecture(base: ModelDescription, classes: int) -> dict[str, Any]:
    """Of a probe taught on `base`: as its own one, or on the features of its segmenter."""
    if "probe" in base.networks:
        return {**base.networks["probe"].architecture, "classes": classes}
    return {"channels": list(base.channels), "classes": classes}


def export_model(name: str, zip_path: Path) -> None:
    """Write a user model into one zip file.

    Raises:
        DiffusionSegmentError: MODEL_UNKNOWN, WEIGHTS_CORRUPT when it was changed, DISK_FULL or OUTPUT_UNWRITABLE.
    """
    folder = user_models_folder() / name
    if not _NAME.fullmatch(name) or not (folder / DESCRIPTION_FILE).is_file():
        raise DiffusionSegmentError(
            ErrorCode.MODEL_UNKNOWN,
            f"You have no model of your own named '{name}'.",
            hint="Models of the extension need not be exported.",
        )
    content = _checked(_folder_content(folder), folder)
    with staged_file(zip_path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as file:
        for part, data in content.items():
            file.writestr(part, data)


def import_model(source: Path, *, replace: bool = False) -> str:
    """Install a model from a zip file of `export_model`, or from a folder with the same files; returns its name.

    Nothing is installed before every file's size and sha256, the description, the weights and the base were checked.

    Raises:
        DiffusionSegmentError: INPUT_MISSING, INPUT_UNREADABLE for what is no model, WEIGHTS_CORRUPT for a changed one,
            OPTION for a name that is taken, WEIGHTS_MISSING when its base is not installed or differs.
    """
    if not source.exists():
        raise DiffusionSegmentError(ErrorCode.INPUT_MISSING, f"{source} does not exist.", hint="Check the path.")
    content = _checked(_folder_content(source) if source.is_dir() else _zip_content(source), source)
    name = str(json.loads(content[MANIFEST_FILE])["name"])
    check_free_name(name, replace=replace)
    with replaced_folder(user_models_folder() / name) as staging:
        for part, data in content.items():
            (staging / part).write_bytes(data)
        _check_installed(read_description(staging), name, source)
    return name


def _check_installed(description: ModelDescription, name: str, source: Path) -> None:
    shared = {network for network, entry in description.networks.items() if entry.model is not None}
    own = set(description.networks) - shared
    if description.base is None or description.name != name or own != {"probe"} or "bodypart" not in shared:
        raise _no_model(source, "it is not a taught model")
    check_base(description)
    base = read_description(find_model(description.base.name))
    if shared != shared_networks(base):
        raise _no_model(source, "it is not a taught model")
    # A foreign description must not choose sizes: a grid or a network could be larger than any memory.
    expected = _probe_architecture(base, description.classes)
    alike = all(description.raw.get(key) == base.raw.get(key) for key in _FROM_BASE) and all(
        description.networks[name].architecture == base.networks[name].architecture for name in shared
    )
    if not alike or description.networks["probe"].architecture != expected:
        raise _no_model(source, f"it does not fit {base.name}, its base")
    load_network(description, "probe")


def _write_manifest(folder: Path, name: str) -> None:
    files = {part: _sha256((folder / part).read_bytes()) for part in (DESCRIPTION_FILE, _PROBE_FILE)}
    manifest = {"format": FORMAT, "software": __version__, "name": name, "sha256": files}
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _folder_content(folder: Path) -> dict[str, bytes]:
    """The model's files in a folder; others in it are left alone."""
    content = {}
    for part, limit in _LIMITS.items():
        path = folder / part
        if not path.is_file() or path.is_symlink():
            raise _no_model(folder, f"{part} is missing")
        if path.stat().st_size > limit:
            raise _no_model(folder, f"{part} is larger than {limit / 1e6:g} MB")
        content[part] = path.read_bytes()
    return content


def _zip_content(path: Path) -> dict[str, bytes]:
    """The model's files in a zip: exactly those, under exactly these names, and no larger than they may be."""
    try:
        with zipfile.ZipFile(path) as file:
            entries = file.infolist()
            for entry in entries:
                if entry.filename not in _LIMITS:
                    raise _no_model(path, f"it holds '{entry.filename[:60]}', which no model has")
                if stat.S_ISLNK(entry.external_attr >> 16):
                    raise _no_model(path, f"{entry.filename} is a link")
            if len(entries) != len(_LIMITS) or len({entry.filename for entry in entries}) != len(_LIMITS):
                raise _no_model(path, f"it should hold {', '.join(_LIMITS)} once each")
            return {entry.filename: _limited(file, entry, path) for entry in entries}
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError, ValueError, zlib.error) as error:
        raise _no_model(path, "it is not a zip file, or is damaged") from error


def _limited(file: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> bytes:
    """An entry's bytes, of which no more are unpacked than it may have, whatever its header says."""
    limit = _LIMITS[entry.filename]
    with file.open(entry) as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise _no_model(path, f"{entry.filename} is larger than {limit / 1e6:g} MB")
    return data


def _checked(content: dict[str, bytes], source: Path) -> dict[str, bytes]:
    """The content, after its manifest was understood and every sum was found right."""
    try:
        manifest = json.loads(content[MANIFEST_FILE])
        version, sums = manifest["format"], dict(manifest["sha256"])
        named = isinstance(manifest["name"], str)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _no_model(source, f"{MANIFEST_FILE} is damaged") from error
    if version != FORMAT:
        raise _no_model(source, f"it has the format {version!r}, this program reads {FORMAT}; update the extension")
    if not named or set(sums) != set(_LIMITS) - {MANIFEST_FILE}:
        raise _no_model(source, f"{MANIFEST_FILE} is damaged")
    for part, expected in sums.items():
        if _sha256(content[part]) != expected:
            raise DiffusionSegmentError(
                ErrorCode.WEIGHTS_CORRUPT,
                f"{part} in {source} was changed (sha256 differs).",
                hint="Export the model again.",
            )
    return content


def _no_model(source: Path, why: str) -> DiffusionSegmentError:
    return DiffusionSegmentError(
        ErrorCode.INPUT_UNREADABLE,
        f"{source} cannot be imported: {why}.",
        hint="Choose a file that export-model wrote.",
    )
