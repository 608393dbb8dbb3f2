"""Models in memory and on disk: networks on a device, and their weights with checksums."""

from __future__ import annotations

import copy
import errno
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import DiffusionSegmentError, ErrorCode
from ..networks.backbone import Backbone
from ..networks.bodypart import BodyPartRegressor
from ..networks.precision import inference_dtype
from ..networks.probe import Probe
from ..networks.refiner import Refiner
from ..networks.segmenter import Segmenter
from ..schema.model_manifest import NETWORKS
from .manifest import DESCRIPTION_FILE, ModelDescription, find_model, is_installed, read_description
from .pre_segmenter import PreSegmenter, ProbedFeatures, WholeSegmenter
from .tile_shape import TileShape

_MAX_LEVELS = 16

_log = logging.getLogger(__name__)
_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "bodypart": BodyPartRegressor,
    "backbone": Backbone,
    "probe": Probe,
    "segmenter": Segmenter,
    "refiner": Refiner,
}


@dataclass(frozen=True)
class Model:
    """The networks of a model in evaluation mode on a device.

    Fine-tuned models and segmenters have no refiner. Weights are float32; all networks but the body-part network
    compute in `dtype`, float32 or bfloat16.
    """

    description: ModelDescription
    bodypart: BodyPartRegressor
    pre_segmenter: PreSegmenter
    refiner: Refiner | None
    device: torch.device
    dtype: torch.dtype = torch.float32

    @property
    def tile(self) -> TileShape:
        """The shape of the networks' input."""
        return self.description.tile

    @property
    def backbone(self) -> Backbone:
        """The backbone of a model of the first generation.

        Raises:
            DiffusionSegmentError: WEIGHTS_MISSING for a model without one.
        """
        return cast(Backbone, self._network("backbone"))

    @property
    def probe(self) -> Probe:
        """The probe of a model of the first generation, or of a fine-tuned one.

        Raises:
            DiffusionSegmentError: WEIGHTS_MISSING for a model without one.
        """
        return cast(Probe, self._network("probe"))

    def _network(self, name: str) -> nn.Module:
        if name not in self.pre_segmenter.networks:
            raise weights_missing(self.description, name)
        return self.pre_segmenter.networks[name]

    def on(self, device: str) -> Model:
        """A copy of the model on another device, in the best type for it."""
        target = choose_device(device)
        return replace(
            self,
            device=target,
            dtype=inference_dtype(target),
            bodypart=copy.deepcopy(self.bodypart).to(target),
            pre_segmenter=self.pre_segmenter.to(target),
            refiner=None if self.refiner is None else copy.deepcopy(self.refiner).to(target),
        )


def load_model(
    name_or_folder: str, device: str = "auto", *, precision: str = "auto", with_refiner: bool = True
) -> Model:
    """Load all networks of a model; the refiner only with `with_refiner`.

    `precision` is "auto", "float32" or "bfloat16".

    Raises:
        DiffusionSegmentError: MODEL_UNKNOWN, WEIGHTS_MISSING, WEIGHTS_CORRUPT, NO_DEVICE or OPTION.
    """
    description = read_description(find_model(name_or_folder))
    if is_installed(description.folder):
        # A folder may have another name than its model.json; reports state the name that can be looked up.
        description = replace(description, name=description.folder.name)
    target = choose_device(device)
    _log.info("model %s %s on %s", description.name, description.version, target)
    names = description.needed_networks
    if not with_refiner:
        names = tuple(name for name in names if name != "refiner")
    networks = {name: load_network(description, name).to(target) for name in names}
    for network in networks.values():
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    pre_segmenter = pre_segmenter_of(networks)
    check_geometry(description, pre_segmenter)
    return Model(
        description=description,
        device=target,
        dtype=inference_dtype(target, precision),
        bodypart=cast(BodyPartRegressor, networks["bodypart"]),
        pre_segmenter=pre_segmenter,
        refiner=cast(Refiner, networks["refiner"]) if "refiner" in networks else None,
    )


def pre_segmenter_of(networks: Mapping[str, nn.Module]) -> PreSegmenter:
    """Combine the networks of a model, by their names in model.json."""
    if "segmenter" not in networks:
        return ProbedFeatures(cast(Backbone, networks["backbone"]), cast(Probe, networks["probe"]))
    segmenter = cast(Segmenter, networks["segmenter"])
    if "probe" in networks:
        return ProbedFeatures(segmenter, cast(Probe, networks["probe"]))
    return WholeSegmenter(segmenter)


def check_geometry(description: ModelDescription, pre_segmenter: PreSegmenter) -> None:
    """Refuse a model.json whose grids, tile, channels or labels do not fit its networks.

    Raises:
        DiffusionSegmentError: WEIGHTS_CORRUPT.
    """
    tile, stride, multiples = description.tile, pre_segmenter.stride, pre_segmenter.multiples
    wrong = []
    if stride != tile.stride:
        wrong.append(f"spacings that make a stride of {_sides(tile.stride)}, its network one of {_sides(stride)}")
    elif any(n % m for n, m in zip(tile.voxels, multiples, strict=True)):
        wrong.append(f"a tile of {_sides(tile.voxels)}, its network needs multiples of {_sides(multiples)}")
    if isinstance(pre_segmenter, WholeSegmenter):
        if pre_segmenter.channels != description.channels:
            wrong.append(f"channels {list(description.channels)}, its network {list(pre_segmenter.channels)}")
        if pre_segmenter.trunk.classes != description.classes:
            wrong.append(f"{description.classes} classes, its network {pre_segmenter.trunk.classes}")
    if wrong:
        raise DiffusionSegmentError(
            ErrorCode.WEIGHTS_CORRUPT,
            f"{DESCRIPTION_FILE} of {description.name} does not fit its weights: it names {'; '.join(wrong)}.",
            hint="Install the model again.",
        )


def _sides(sides: tuple[int, int, int]) -> str:
    """Sides (z, y, x) as text along x, y, z, as in model.json."""
    return " x ".join(str(n) for n in reversed(sides))


def load_network(description: ModelDescription, name: str) -> nn.Module:
    """One network in evaluation mode on the CPU, weights as float32 after a check of their sha256.

    Raises:
        DiffusionSegmentError: WEIGHTS_MISSING or WEIGHTS_CORRUPT.
    """
    listed = description.networks.get(name)
    path = description.file_of(name)
    if listed is not None and listed.model is not None:
        check_base(description)
    if listed is None or path is None or not path.is_file():
        raise weights_missing(description, name)
    if sha256_of(path) != listed.sha256:
        raise DiffusionSegmentError(
            ErrorCode.WEIGHTS_CORRUPT,
            f"{path} is not the file that {DESCRIPTION_FILE} names (sha256 differs).",
            hint="Install the model again.",
        )
    try:
        weights = _checked_weights(load_file(path), name, listed.architecture)
        network = _BUILDERS[name](**listed.architecture)
        network.load_state_dict(weights)
    except (SafetensorError, RuntimeError, TypeError, ValueError, LookupError, ArithmeticError, OSError) as error:
        raise DiffusionSegmentError(
            ErrorCode.WEIGHTS_CORRUPT,
            f"{path} does not fit the {name} that {DESCRIPTION_FILE} describes.",
            hint="Install the model again.",
        ) from error
    return network.eval().requires_grad_(False)


def weights_missing(description: ModelDescription, name: str) -> DiffusionSegmentError:
    """The error of a model without weights of the network `name`."""
    return DiffusionSegmentError(
        ErrorCode.WEIGHTS_MISSING,
        f"The model {description.name} has no weights for its {name}.",
        hint="Import or install the model again, or train it to the end.",
    )


def _checked_weights(weights: dict[str, Tensor], name: str, architecture: dict[str, Any]) -> dict[str, Tensor]:
    """The weights as float32, after a check that they are finite and have the shapes of the network.

    The network is first built on the meta device, so that an untrusted description cannot exhaust the memory.

    Raises:
        ValueError: a weight is not finite, missing, or of another shape.
    """
    if any(isinstance(value, list) and len(value) > _MAX_LEVELS for value in architecture.values()):
        raise ValueError("no network has so many levels")
    with torch.device("meta"):
        expected = {key: value.shape for key, value in _BUILDERS[name](**architecture).state_dict().items()}
    if expected != {key: value.shape for key, value in weights.items()}:
        raise ValueError("the weights are those of another network")
    if not all(bool(torch.isfinite(value.float()).all()) for value in weights.values()):
        raise ValueError("the weights hold NaN or infinity")
    return {key: value.float() for key, value in weights.items()}


def check_base(description: ModelDescription) -> None:
    """Refuse a fine-tuned model whose shared networks differ from those with which it was trained.

    Raises:
        DiffusionSegmentError: WEIGHTS_MISSING.
    """
    if description.base is None:
        return
    trained_on = f"{description.name} was trained on {description.base.name} {description.base.version}"
    shared = {name: network for name, network in description.networks.items() if network.model is not None}
    paths = {name: description.file_of(name) for name in shared}
    if not all(path is not None and path.is_file() for path in paths.values()):
        raise DiffusionSegmentError(
            ErrorCode.WEIGHTS_MISSING,
            f"{trained_on}, which is not installed.",
            hint=f"Import {description.base.name} first.",
        )
    if any(path is not None and sha256_of(path) != shared[name].sha256 for name, path in paths.items()):
        here = read_description(find_model(description.base.name)).version
        installed = "other weights of that version" if here == description.base.version else here
        raise DiffusionSegmentError(
            ErrorCode.WEIGHTS_MISSING, f"{trained_on}; installed: {installed}.", hint="Train it again."
        )


def save_network(folder: Path, name: str, network: nn.Module, *, architecture: dict[str, Any]) -> None:
    """Write `name`.safetensors in half precision and add it to model.json; each file is replaced atomically.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    weights = {key: value.detach().cpu().half().contiguous() for key, value in network.state_dict().items()}
    path = folder / f"{name}.safetensors"
    partial = path.with_suffix(".partial")
    try:
        save_file(weights, partial)
    except SafetensorError as error:
        partial.unlink(missing_ok=True)
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else errno.EIO, str(error)) from error
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
    """Let the model in `folder` share the weights file of the network `name` of its sibling in `owner`."""
    entry = read_description(owner).raw["networks"][name]
    raw = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    raw.setdefault("networks", {})[name] = {**entry, "model": entry.get("model", owner.name)}
    write_description(folder, raw)


def write_description(folder: Path, raw: dict[str, Any]) -> None:
    """Replace `folder`/model.json atomically."""
    partial = folder / (DESCRIPTION_FILE + ".partial")
    partial.write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, folder / DESCRIPTION_FILE)


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_sha256(description: ModelDescription) -> str:
    """A checksum over the checksums of all networks, which identifies the model in the provenance."""
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
