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
    return _checked(PRESEGMENTERS[kind], Path(folder).expanduser().resolve())


def model_in(folder: Path) -> PresegmenterModel:
    """The model in a folder of any kind, after a check of the folder and of its package.

    Raises:
        DiffusionSegmentError: INPUT_MISSING for a folder of none, PACKAGE_MISSING, and as `Presegmenter.describe`.
    """
    for plugin in PRESEGMENTERS.values():
        try:
            return _checked(plugin, folder)
        except DiffusionSegmentError as error:
            if error.code is not ErrorCode.INPUT_MISSING:
                raise
    raise DiffusionSegmentError(
        ErrorCode.INPUT_MISSING,
        f"{folder} is no model folder of nnU-Net v2 and no MONAI bundle.",
        hint="Choose the folder with dataset.json, plans.json and fold_0, or that with configs and models.",
    )


def _checked(plugin: Presegmenter, folder: Path) -> PresegmenterModel:
    model = plugin.describe(folder)
    if find_spec(plugin.package) is None:
        raise DiffusionSegmentError(
            ErrorCode.PACKAGE_MISSING,
            f"The Python package {plugin.package}, which runs {plugin.kind} models, is missing.",
            hint=f"Install it: {plugin.install}.",
        )
    return model
