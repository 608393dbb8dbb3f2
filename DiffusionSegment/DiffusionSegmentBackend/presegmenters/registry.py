"""The presegmenters by their kind, and the models that the command line names as KIND:FOLDER."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ..errors import DiffusionSegmentError, ErrorCode, unknown_name
from .monai_bundle import MonaiBundle
from .nnunet import NnUnet
from .plugin import Presegmenter, PresegmenterModel

PRESEGMENTERS: dict[str, Presegmenter] = {plugin.kind: plugin for plugin in (NnUnet(), MonaiBundle())}


def model_named(text: str) -> PresegmenterModel:
    """The model of "nnunet:FOLDER" or "monai-bundle:FOLDER", after a check of its folder and its package.

    Raises:
        DiffusionSegmentError: OPTION for another text, PACKAGE_MISSING, and as `Presegmenter.describe`.
    """
    kind, sign, folder = text.partition(":")
    if not sign or not folder:
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"'{text}' names no model of another program.",
            hint=f"Write {' or '.join(f'{name}:FOLDER' for name in PRESEGMENTERS)}.",
        )
    if kind not in PRESEGMENTERS:
        raise unknown_name("presegmenter", kind, tuple(PRESEGMENTERS))
    plugin = PRESEGMENTERS[kind]
    model = plugin.describe(Path(folder).expanduser().resolve())
    if find_spec(plugin.package) is None:
        raise DiffusionSegmentError(
            ErrorCode.PACKAGE_MISSING,
            f"The Python package {plugin.package}, which runs {kind} models, is missing.",
            hint=f"Install it: {plugin.install}.",
        )
    return model
