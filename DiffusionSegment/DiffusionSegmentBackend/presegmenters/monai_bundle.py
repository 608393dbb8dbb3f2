"""MONAI bundles: the transforms, network and inferer of configs/inference.json, without its evaluator and data loader.

Keys are those of MONAI's bundle specification: `preprocessing`, `network` or `network_def`, `inferer` and
`postprocessing`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DiffusionSegmentError, ErrorCode
from .plugin import (
    Presegmenter,
    PresegmenterModel,
    labels_of_values,
    modality_named,
    one_image_only,
    read_json,
    torch_device,
)

_METADATA = Path("configs", "metadata.json")
_CONFIGS = tuple(Path("configs", f"inference.{suffix}") for suffix in ("json", "yaml", "yml"))
_TORCHSCRIPT, _WEIGHTS = Path("models", "model.ts"), Path("models", "model.pt")
_WEIGHT_KEYS = ("model", "state_dict", "network")


class MonaiBundle(Presegmenter):
    """A folder with configs/metadata.json, configs/inference.json or .yaml, and models/model.pt or model.ts.

    A config may contain Python code ("$..."), which runs: use bundles of a source that you trust.
    """

    kind = "monai-bundle"
    package = "monai"
    install = "pip install monai"

    def describe(self, folder: Path) -> PresegmenterModel:
        """As `Presegmenter.describe`."""
        if not (folder / _METADATA).is_file() or _config(folder) is None:
            missing = _METADATA if not (folder / _METADATA).is_file() else _CONFIGS[0]
            raise DiffusionSegmentError(
                ErrorCode.INPUT_MISSING,
                f"{folder} is no MONAI bundle: it has no {missing.as_posix()}.",
                hint="Name the folder with configs and models.",
            )
        if not any((folder / name).is_file() for name in (_WEIGHTS, _TORCHSCRIPT)):
            raise DiffusionSegmentError(
                ErrorCode.WEIGHTS_MISSING,
                f"{folder} has no weights ({_WEIGHTS.as_posix()}).",
                hint="Download the whole bundle.",
            )
        image, prediction = _formats(folder)
        count = image.get("num_channels", 1)
        modality = str(image.get("modality", ""))
        one_image_only(count if isinstance(count, int) else 1, modality, folder)
        classes = prediction.get("channel_def")
        if isinstance(classes, dict) and not _has_background(classes):
            # Channel n is label n + 1.
            classes = {str(int(key) + 1): name for key, name in classes.items() if str(key).isdecimal()}
        return PresegmenterModel(
            kind=self.kind,
            folder=folder,
            names=labels_of_values(classes, folder / _METADATA),
            modality=modality_named(modality),
        )

    def segment(self, model: PresegmenterModel, scan: Path, output: Path, *, device: str) -> None:
        """As `Presegmenter.segment`."""
        import nibabel
        import torch

        target = torch.device(torch_device(device))
        parser = _parser(model.folder, output.parent, str(target))
        data = parser.get_parsed_content("preprocessing")({"image": str(scan)})
        image = data["image"]
        network = _network(parser, model.folder, target)
        with torch.inference_mode():
            data["pred"] = parser.get_parsed_content("inferer")(image[None].to(target), network)[0].cpu()
        data["image"] = image.cpu()
        data = _without_files(parser.get_parsed_content("postprocessing"))(data)
        prediction = data["pred"]
        affine = np.asarray(getattr(prediction, "affine", data["image"].affine), dtype=np.float64)
        background = _has_background(_formats(model.folder)[1].get("channel_def", {}))
        labels = labels_of_channels(np.asarray(prediction), background=background)
        nibabel.save(nibabel.Nifti1Image(labels, affine), output)


def labels_of_channels(channels: NDArray[Any], *, background: bool) -> NDArray[np.uint8]:
    """The label map (x, y, z) of a prediction (c, x, y, z): its only channel, else the channel of the largest value.

    Args:
        channels: labels, or probabilities or one-hot channels.
        background: whether the first of several channels is the background; otherwise channel n is label n + 1 where
            it reaches one half.
    """
    if len(channels) == 1:
        return np.asarray(np.rint(channels[0]), dtype=np.uint8)
    largest = channels.argmax(axis=0)
    if not background:
        largest = np.where(channels.max(axis=0) >= 0.5, largest + 1, 0)
    return np.asarray(largest, dtype=np.uint8)


def _config(folder: Path) -> Path | None:
    return next((folder / name for name in _CONFIGS if (folder / name).is_file()), None)


def _formats(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What metadata.json states of the image and of the prediction; empty where it does not."""
    formats: Any = read_json(folder / _METADATA).get("network_data_format")
    found: list[dict[str, Any]] = []
    for side in ("inputs", "outputs"):
        entries = formats.get(side) if isinstance(formats, dict) else None
        entry = next(iter(entries.values()), None) if isinstance(entries, dict) else None
        found.append(entry if isinstance(entry, dict) else {})
    return found[0], found[1]


def _has_background(classes: Any) -> bool:
    return isinstance(classes, dict) and str(classes.get("0", "")).strip().casefold() == "background"


def _parser(folder: Path, output: Path, device: str) -> Any:
    from monai.bundle import ConfigParser

    # Bundles may have modules of their own.
    sys.path.insert(0, str(folder))
    parser = ConfigParser()
    parser.read_meta(str(folder / _METADATA))
    parser.read_config(str(_config(folder)))
    parser["bundle_root"], parser["output_dir"] = str(folder), str(output)
    parser["device"] = f"$torch.device('{device}')"
    if "imports" not in parser:
        parser["imports"] = ["$import torch"]
    parser.parse()
    return parser


def _network(parser: Any, folder: Path, device: Any) -> Any:
    """The network with its weights, in evaluation mode."""
    import torch

    if not (folder / _WEIGHTS).is_file():
        return torch.jit.load(str(folder / _TORCHSCRIPT), map_location=device).eval()
    network = parser.get_parsed_content("network" if "network" in parser else "network_def")
    weights = torch.load(folder / _WEIGHTS, map_location="cpu", weights_only=True)
    for key in _WEIGHT_KEYS:
        if isinstance(weights.get(key), dict):
            weights = weights[key]
            break
    network.load_state_dict(weights)
    return network.to(device).eval()


def _without_files(transform: Any) -> Any:
    """A chain of transforms without those that write files."""
    from monai.transforms import Compose, SaveImage, SaveImaged

    if isinstance(transform, Compose):
        return Compose([step for step in transform.transforms if not isinstance(step, (SaveImage, SaveImaged))])
    return transform
