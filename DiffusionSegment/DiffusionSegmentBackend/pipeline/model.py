"""A model on disk and in memory: model.json, its networks' weights with their checksums, the device they run on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ..errors import DiffusionSegmentError, ErrorCode
from ..networks.backbone import Backbone
from ..networks.bodypart import BodyPartRegressor
from ..networks.probe import Probe
from ..networks.refiner import Refiner
from .description import DESCRIPTION_FILE, NETWORKS, ModelDescription, read_description

_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "bodypart": BodyPartRegressor,
    "backbone": Backbone,
    "probe": Probe,
    "refiner": Refiner,
}


@dataclass(frozen=True)
class Model:
    """The four networks in evaluation mode on one device, float32."""

    description: ModelDescription
    bodypart: BodyPartRegressor
    backbone: Backbone
    probe: Probe
    refiner: Refiner
    device: torch.device


def models_folder() -> Path:
    """Where the bundled models lie."""
    return Path(__file__).resolve().parents[2] / "Resources" / "Models"


def list_models() -> tuple[str, ...]:
    """Names of the bundled models, sorted."""
    return tuple(sorted(p.parent.name for p in models_folder().glob(f"*/{DESCRIPTION_FILE}")))


def find_model(name_or_folder: str) -> Path:
    """The folder of a bundled model, or of any folder with a model.json.

    Raises:
        DiffusionSegmentError: MODEL_UNKNOWN.
    """
    for folder in (models_folder() / name_or_folder, Path(name_or_folder)):
        if (folder / DESCRIPTION_FILE).is_file():
            return folder
    raise DiffusionSegmentError(
        ErrorCode.MODEL_UNKNOWN,
        f"There is no model '{name_or_folder}'.",
        hint=f"Installed: {', '.join(list_models()) or 'none'}.",
    )


def load_model(name_or_folder: str, device: str = "auto") -> Model:
    """Load all four networks.

    Raises:
        DiffusionSegmentError: MODEL_UNKNOWN, WEIGHTS_MISSING, WEIGHTS_CORRUPT or NO_DEVICE.
    """
    description = read_description(find_model(name_or_folder))
    place = choose_device(device)
    networks = {name: load_network(description, name).to(place) for name in NETWORKS}
    for network in networks.values():
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return Model(
        description=description,
        device=place,
        bodypart=cast(BodyPartRegressor, networks["bodypart"]),
        backbone=cast(Backbone, networks["backbone"]),
        probe=cast(Probe, networks["probe"]),
        refiner=cast(Refiner, networks["refiner"]),
    )


def load_network(description: ModelDescription, name: str) -> nn.Module:
    """One network in evaluation mode on the CPU, weights as float32 after a check of their sha256.

    Raises:
        DiffusionSegmentError: WEIGHTS_MISSING or WEIGHTS_CORRUPT.
    """
    listed = description.networks.get(name)
    path = description.file_of(name)
    if listed is None or path is None or not path.is_file():
        raise DiffusionSegmentError(
            ErrorCode.WEIGHTS_MISSING,
            f"The model {description.name} has no weights for its {name}.",
            hint="Install the model again, or train it.",
        )
    if sha256_of(path) != listed.sha256:
        raise DiffusionSegmentError(
            ErrorCode.WEIGHTS_CORRUPT,
            f"{path} is not the file that {DESCRIPTION_FILE} names (sha256 differs).",
            hint="Install the model again.",
        )
    try:
        network = _BUILDERS[name](**listed.architecture)
        network.load_state_dict({key: value.float() for key, value in load_file(path).items()})
    except (SafetensorError, RuntimeError, TypeError, ValueError) as error:
        raise DiffusionSegmentError(
            ErrorCode.WEIGHTS_CORRUPT,
            f"{path} does not fit the {name} that {DESCRIPTION_FILE} describes.",
            hint="Install the model again.",
        ) from error
    return network.eval().requires_grad_(False)


def save_network(folder: Path, name: str, network: nn.Module, *, architecture: dict[str, Any]) -> None:
    """Write `name`.safetensors in half precision and enter it into model.json; each file is replaced in one move."""
    weights = {key: value.detach().cpu().half().contiguous() for key, value in network.state_dict().items()}
    path = folder / f"{name}.safetensors"
    partial = path.with_suffix(".partial")
    save_file(weights, partial)
    partial.chmod(0o644)
    os.replace(partial, path)
    raw = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    raw.setdefault("networks", {})[name] = {
        "file": path.name,
        "sha256": sha256_of(path),
        "architecture": architecture,
    }
    write_description(folder, raw)


def share_network(folder: Path, name: str, owner: Path) -> None:
    """Let the model in `folder` use the network `name` of its sibling in `owner`: one file for both."""
    entry = read_description(owner).raw["networks"][name]
    raw = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    raw.setdefault("networks", {})[name] = {**entry, "model": entry.get("model", owner.name)}
    write_description(folder, raw)


def write_description(folder: Path, raw: dict[str, Any]) -> None:
    """Replace `folder`/model.json in one move."""
    partial = folder / (DESCRIPTION_FILE + ".partial")
    partial.write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, folder / DESCRIPTION_FILE)


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_sha256(description: ModelDescription) -> str:
    """One checksum over the checksums of all networks: the model's identity in provenance."""
    joined = "".join(description.networks[name].sha256 for name in NETWORKS if name in description.networks)
    return hashlib.sha256(joined.encode()).hexdigest()


def choose_device(device: str) -> torch.device:
    """ "auto" takes CUDA where it works, else the CPU.

    Raises:
        DiffusionSegmentError: NO_DEVICE when CUDA is asked for and absent; OPTION for an unknown name.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"There is no device '{device}'.", hint="Choose auto, cpu or cuda."
        )
    if device == "cuda" and not torch.cuda.is_available():
        raise DiffusionSegmentError(
            ErrorCode.NO_DEVICE, "PyTorch finds no CUDA device.", hint="Choose the device cpu, or install a CUDA build."
        )
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
