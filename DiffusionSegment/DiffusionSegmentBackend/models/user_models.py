"""The user's own models: stored outside the extension's folder, exported as zip files, imported after checks.

A fine-tuned model's folder holds model.json, probe.safetensors and manifest.json with the sha256 of both. Body-part
network and the network that its features come from are those of its base model; it has no refiner. A whole model, as
`train` writes it, has all its networks beside model.json.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DiffusionSegmentError, ErrorCode, from_os_error
from ..imaging.atomic_writes import replaced_folder
from ..networks.probe import Probe
from .archive import (
    FINE_TUNED,
    MANIFEST_FILE,
    MAX_BYTES,
    WHOLE,
    ArchiveManifest,
    read_archive,
    refusal,
    weights_file,
    write_archive,
)
from .folders import bundled_models_folder, user_models_folder
from .manifest import CARD_FILE, DESCRIPTION_FILE, ModelDescription, is_installed, read_description
from .model import check_base, save_network, sha256_of, weights_sha256
from .model_check import INHERITED_FIELDS, check_model, probe_architecture, shared_networks

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_WINDOWS_DEVICE = re.compile(r"con|prn|aux|nul|com\d|lpt\d")
_INSTALLED = "Give it another name, or replace it."


def is_model_name(name: str) -> bool:
    """Whether a model of the user's own can have this name: up to 40 small letters, digits and hyphens."""
    return bool(_NAME.fullmatch(name)) and not _WINDOWS_DEVICE.fullmatch(name)


def check_free_name(name: str, *, replace: bool = False) -> None:
    """Refuse an invalid name, that of a bundled model, or an existing one unless `replace`.

    Raises:
        DiffusionSegmentError: OPTION.
    """
    if not is_model_name(name):
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


@dataclass(frozen=True, kw_only=True)
class UserModelFacts:
    """What model.json states of the training: the modality of the scans, where it is not the base's, and the data."""

    modality: str | None = None
    training_data: str = ""


def save_user_model(
    name: str,
    probe: Probe,
    *,
    base: ModelDescription,
    labels: list[dict[str, Any]],
    anatomy: dict[str, Any],
    facts: UserModelFacts | None = None,
    replace: bool = False,
) -> Path:
    """Store a fine-tuned probe and return its folder; `labels` and `anatomy` as in model.json.

    Raises:
        DiffusionSegmentError: OPTION for the name or a base that is not installed, DISK_FULL, OUTPUT_UNWRITABLE.
    """
    check_free_name(name, replace=replace)
    check_base_is_installed(base)
    facts = facts or UserModelFacts()
    raw: dict[str, Any] = {key: base.raw[key] for key in INHERITED_FIELDS if key in base.raw}
    raw = {"name": name, "title": name, "version": "1", **raw}
    if facts.modality is not None and facts.modality != base.modality:
        # HU are for CT alone; the networks go on seeing the same values.
        unit = "percentile" if base.window_unit == "percentile" else "HU" if facts.modality == "CT" else "value"
        raw |= {"modality": facts.modality, "window_unit": unit}
    raw["orientation"] = base.raw.get("orientation", "LPS")
    raw["labels"], raw["anatomy"] = labels, anatomy
    # Fine-tuned labels may consist of many pieces, such as metastases or lymph nodes.
    raw["defaults"] = {key: value for key, value in base.raw.get("defaults", {}).items() if key != "smallest_piece"}
    raw["channels"], raw["training_data"] = list(base.channels), facts.training_data
    raw["licence"] = _licence_on(base)
    # The name of its folder, by which it is looked up; that in its model.json may differ.
    raw["base"] = {"name": base.folder.name, "version": base.version, "weights_sha256": weights_sha256(base)}
    raw["networks"] = {
        network: {**entry, "model": entry.get("model", base.folder.name)}
        for network, entry in base.raw["networks"].items()
        if network in shared_networks(base)
    }
    folder = user_models_folder() / name
    with replaced_folder(folder) as staging:
        (staging / DESCRIPTION_FILE).write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")
        save_network(staging, "probe", probe, architecture=probe_architecture(base, probe.classes))
        ArchiveManifest.of_folder(staging, name=name, format=FINE_TUNED).write(staging)
    return folder


def _licence_on(base: ModelDescription) -> str:
    """The licence, unknown for the scans, with that of the base, whose networks are shared."""
    of_base = str(base.raw.get("licence") or "not stated")
    return f"not stated; its features are those of {base.folder.name} ({of_base})"


def check_base_is_installed(base: ModelDescription) -> None:
    """Refuse a base outside the folders of models, which a fine-tuned model could not reference.

    Raises:
        DiffusionSegmentError: OPTION.
    """
    if not is_installed(base.folder):
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"The base model in {base.folder} is not installed.",
            hint=f"Install it with `import-model {base.folder}`, then name it by its name.",
        )


def export_model(name_or_folder: str, zip_path: Path, *, name: str | None = None) -> str:
    """Write a model of the user's own, or the one in a folder that `train` wrote, into one zip file; returns its name.

    A whole model carries all its networks along, also those that it shares with another folder. `name` is another name
    for it; without one an installed model keeps its folder's name, and any other that in its model.json.

    Raises:
        DiffusionSegmentError: MODEL_UNKNOWN, OPTION for a name that a model cannot have, WEIGHTS_MISSING for one that
            is not trained to the end, WEIGHTS_CORRUPT when it was changed, DISK_FULL or OUTPUT_UNWRITABLE.
    """
    folder = _own_folder(name_or_folder)
    description = read_description(folder)
    chosen = name or _name_to_export(description)
    with _temporary_folder() as staging:
        manifest = _packed(description, chosen, staging)
        check_model(staging, manifest, folder)
        write_archive(staging, zip_path)
    return chosen


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A temporary folder; an OSError is converted."""
    try:
        with tempfile.TemporaryDirectory(prefix="diffusion-segment-") as folder:
            yield Path(folder)
    except OSError as error:
        raise from_os_error(error, Path(tempfile.gettempdir())) from error


def _own_folder(name_or_folder: str) -> Path:
    installed = user_models_folder() / name_or_folder
    is_name = Path(name_or_folder).name == name_or_folder
    bundled = is_name and (bundled_models_folder() / name_or_folder).exists()
    for folder in (*([installed] if is_name else []), Path(name_or_folder)):
        of_extension = bundled or folder.resolve().parent == bundled_models_folder()
        if (folder / DESCRIPTION_FILE).is_file() and not of_extension:
            return folder
    raise DiffusionSegmentError(
        ErrorCode.MODEL_UNKNOWN,
        f"You have no model of your own named '{name_or_folder}'.",
        hint="Models of the extension need not be exported."
        if bundled
        else "Give the name of one that `models` lists, or the folder that `train` wrote.",
    )


def _name_to_export(description: ModelDescription) -> str:
    """The folder's name for an installed model, else that in model.json unless the extension has it, else the folder's.

    Raises:
        DiffusionSegmentError: OPTION when none of them can be a model's name.
    """
    folder = description.folder.resolve()
    names = [description.name, folder.name]
    if folder.parent == user_models_folder().resolve():
        names.reverse()
    for name in names:
        if is_model_name(name) and not (bundled_models_folder() / name).exists():
            return name
    raise DiffusionSegmentError(
        ErrorCode.OPTION, f"'{names[0]}' cannot be the name of a model of your own.", hint="Choose one with --name."
    )


def _packed(description: ModelDescription, name: str, folder: Path) -> ArchiveManifest:
    """Copy a model to `folder` for export: under `name`, with its weights and a manifest.

    Raises:
        DiffusionSegmentError: WEIGHTS_MISSING, WEIGHTS_CORRUPT, INPUT_UNREADABLE for a file that is too large.
    """
    check_base(description)
    networks = dict(description.raw["networks"])
    for network in description.needed_networks:
        listed, path = description.networks.get(network), description.file_of(network)
        if listed is None or path is None or not path.is_file():
            raise DiffusionSegmentError(
                ErrorCode.WEIGHTS_MISSING,
                f"The model in {description.folder} has no weights for its {network}.",
                hint="Train it to the end, with --resume where it was stopped.",
            )
        if description.base is None or listed.model is None:
            _copy(path, folder / weights_file(network), description.folder, sha256=listed.sha256)
            networks[network] = {
                "file": weights_file(network),
                "sha256": listed.sha256,
                "architecture": listed.architecture,
            }
    raw = {**description.raw, "name": name, "networks": networks}
    (folder / DESCRIPTION_FILE).write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")
    whole = description.base is None
    if whole and (description.folder / CARD_FILE).is_file():
        _copy(description.folder / CARD_FILE, folder / CARD_FILE, description.folder)
    manifest = ArchiveManifest.of_folder(folder, name=name, format=WHOLE if whole else FINE_TUNED)
    manifest.write(folder)
    return manifest


def _copy(path: Path, target: Path, source: Path, *, sha256: str | None = None) -> None:
    if path.stat().st_size > MAX_BYTES[target.name]:
        raise refusal(source, f"{path.name} is larger than {MAX_BYTES[target.name] / 1e6:g} MB")
    shutil.copyfile(path, target)
    if sha256 is not None and sha256_of(target) != sha256:
        raise DiffusionSegmentError(
            ErrorCode.WEIGHTS_CORRUPT,
            f"{path.name} in {source} was changed (sha256 differs from that in {DESCRIPTION_FILE}).",
            hint="Take the model from where it was trained.",
        )


def import_model(source: Path, *, replace: bool = False, name: str | None = None) -> str:
    """Install a model from a zip file of `export_model`, or from a folder that holds one; returns its name.

    A folder is one with the same files, or one that `train` wrote. Nothing is installed before every file's size and
    sha256, the description, the weights and the base were checked. `name` is another name for the model.

    Raises:
        DiffusionSegmentError: INPUT_MISSING, INPUT_UNREADABLE for what is no model, WEIGHTS_CORRUPT for a changed one,
            OPTION for an existing name, WEIGHTS_MISSING when its base is not installed or differs.
    """
    if not source.exists():
        raise DiffusionSegmentError(ErrorCode.INPUT_MISSING, f"{source} does not exist.", hint="Check the path.")
    with _temporary_folder() as unpacked:
        manifest = _unpacked(source, unpacked)
        chosen = name or manifest.name
        check_free_name(chosen, replace=replace)
        with replaced_folder(user_models_folder() / chosen) as staging:
            for path in unpacked.iterdir():
                shutil.move(path, staging / path.name)
            check_model(staging, manifest, source)
            if chosen != manifest.name:
                _rename(staging, chosen, manifest.format)
    return chosen


def _unpacked(source: Path, folder: Path) -> ArchiveManifest:
    """The model's files in `folder`, with their manifest."""
    if source.is_dir() and not (source / MANIFEST_FILE).exists():
        path = source / DESCRIPTION_FILE
        if not path.is_file() or path.is_symlink():
            raise refusal(source, f"{DESCRIPTION_FILE} is missing")
        if path.stat().st_size > MAX_BYTES[DESCRIPTION_FILE]:
            raise refusal(source, f"{DESCRIPTION_FILE} is larger than {MAX_BYTES[DESCRIPTION_FILE] / 1e6:g} MB")
        description = read_description(source)
        return _packed(description, _name_to_export(description), folder)
    return read_archive(source, folder)


def _rename(folder: Path, name: str, format: int) -> None:
    raw = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    (folder / DESCRIPTION_FILE).write_text(json.dumps({**raw, "name": name}, indent=2) + "\n", encoding="utf-8")
    ArchiveManifest.of_folder(folder, name=name, format=format).write(folder)
