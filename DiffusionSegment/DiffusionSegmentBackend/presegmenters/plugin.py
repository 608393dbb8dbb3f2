"""The interface of presegmenters: a folder is described without its package, and segments a scan in a child process."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..errors import DiffusionSegmentError, ErrorCode

# Minutes after which a presegmenter is stopped.
DEFAULT_LIMIT_MIN = 60.0
_MR_WORDS = ("mr", "t1", "t2", "flair", "adc", "dwi")


@dataclass(frozen=True, kw_only=True)
class PresegmenterModel:
    """A model of another program, as its folder states it.

    Attributes:
        kind: the plug-in, such as "nnunet".
        folder: the model's folder.
        names: names of the labels by value in its label maps, without background.
        modality: "CT" or "MR", of the scans that it segments; None where the folder does not state it.
        suffix: of the image files that it reads.
    """

    kind: str
    folder: Path
    names: dict[int, str]
    modality: str | None = None
    suffix: str = ".nii.gz"

    @property
    def title(self) -> str:
        """The plug-in and the folder, as on the command line."""
        return f"{self.kind}:{self.folder}"


class Presegmenter(ABC):
    """One kind of models of another program.

    Attributes:
        kind: the name on the command line, before the colon.
        package: the Python package that runs its models.
        install: the command that installs it.
    """

    kind: ClassVar[str]
    package: ClassVar[str]
    install: ClassVar[str]

    @abstractmethod
    def describe(self, folder: Path) -> PresegmenterModel:
        """Read what the files of a model's folder state; neither PyTorch nor the plug-in's package is needed.

        Raises:
            DiffusionSegmentError: INPUT_MISSING for another folder, WEIGHTS_MISSING, INPUT_UNREADABLE for a damaged
                file, INPUT_SHAPE for a model of several images, INPUT_VALUES for one without a label map.
        """

    @abstractmethod
    def segment(self, model: PresegmenterModel, scan: Path, output: Path, *, device: str) -> None:
        """Segment a scan; runs in a process of its own, which may fail in any way.

        Args:
            model: as from `describe`.
            scan: the image file, with the model's `suffix`.
            output: the label map to write (NIfTI), with the values of `names`; on any grid in patient coordinates.
            device: "cpu", "cuda", or "auto" for CUDA where there is one.
        """


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        DiffusionSegmentError: INPUT_UNREADABLE.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, type(error).__name__) from error
    if not isinstance(content, dict):
        raise _damaged(path, "no object")
    return content


def labels_of_values(raw: Any, path: Path) -> dict[int, str]:
    """Names by value of {"spleen": 1} or {"1": "spleen"}, without background.

    Raises:
        DiffusionSegmentError: INPUT_VALUES for anything else, such as regions of several labels.
    """
    try:
        pairs = [(key, name) if str(key).strip().isdecimal() else (name, key) for key, name in raw.items()]
        names = {int(str(value)): str(name) for value, name in pairs}
    except (AttributeError, TypeError, ValueError) as error:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_VALUES,
            f"The labels in {path} are no whole numbers with a name each; a review needs a label map.",
            hint="Choose a model with one label for each organ.",
        ) from error
    return {value: name for value, name in sorted(names.items()) if value > 0}


def modality_named(text: str) -> str | None:
    """ "CT" or "MR" of the name of a channel or modality, such as "MRI" or "T1"; None where it names neither."""
    name = text.strip().casefold()
    if name == "ct":
        return "CT"
    return "MR" if any(name.startswith(word) for word in _MR_WORDS) else None


def one_image_only(count: int, names: str, folder: Path) -> None:
    """Refuse a model of several images.

    Raises:
        DiffusionSegmentError: INPUT_SHAPE.
    """
    if count != 1:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_SHAPE,
            f"The model in {folder} needs {count} images of a patient ({names}); a review has one.",
            hint="Choose a model of one image.",
        )


def torch_device(device: str) -> str:
    """The device of PyTorch: CUDA where there is one, unless the device is "cpu"."""
    import torch

    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


def _damaged(path: Path, why: str) -> DiffusionSegmentError:
    return DiffusionSegmentError(
        ErrorCode.INPUT_UNREADABLE, f"{path} cannot be read ({why}).", hint="Copy the model's folder again."
    )
