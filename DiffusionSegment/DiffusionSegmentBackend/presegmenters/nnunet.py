"""nnU-Net v2 model folders (Isensee et al. 2021), run by nnunetv2 with the reading of images that its plans name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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

_FILES = ("dataset.json", "plans.json")
_CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")


class NnUnet(Presegmenter):
    """A folder with dataset.json, plans.json and fold_N/checkpoint_final.pth, as nnUNetv2_train writes it.

    All folds that are there are averaged, as by nnUNetv2_predict. The scan is given in its own orientation.
    """

    kind = "nnunet"
    package = "nnunetv2"
    install = 'pip install "diffusion-segment[nnunet]"'

    def describe(self, folder: Path) -> PresegmenterModel:
        """As `Presegmenter.describe`."""
        for name in _FILES:
            if not (folder / name).is_file():
                raise DiffusionSegmentError(
                    ErrorCode.INPUT_MISSING,
                    f"{folder} is no model folder of nnU-Net v2: it has no {name}.",
                    hint="Name the folder with dataset.json, plans.json and fold_0, such as "
                    "nnUNetTrainer__nnUNetPlans__3d_fullres.",
                )
        _checkpoint(folder)
        dataset = read_json(folder / _FILES[0])
        channels = dataset.get("channel_names", dataset.get("modality"))
        names = [str(name) for name in channels.values()] if isinstance(channels, dict) else []
        one_image_only(len(names), ", ".join(names), folder)
        suffix = str(dataset.get("file_ending", ".nii.gz"))
        if suffix not in _SUFFIXES:
            raise DiffusionSegmentError(
                ErrorCode.INPUT_SHAPE,
                f"The model in {folder} segments files {suffix}, which hold no scan in patient coordinates.",
                hint=f"Choose a model of {', '.join(_SUFFIXES)}.",
            )
        return PresegmenterModel(
            kind=self.kind,
            folder=folder,
            names=labels_of_values(dataset.get("labels"), folder / _FILES[0]),
            modality=modality_named(names[0]),
            suffix=suffix,
        )

    def segment(self, model: PresegmenterModel, scan: Path, output: Path, *, device: str) -> None:
        """As `Presegmenter.segment`."""
        import torch
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        from ..imaging.volume_io import read_volume, write_volume

        predictor: Any = nnUNetPredictor(device=torch.device(torch_device(device)), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(model.folder), None, _checkpoint(model.folder))
        stem = output.parent / "nnunet"
        # Without processes of its own, which would outlive a run that is stopped.
        predictor.predict_from_files_sequential([[str(scan)]], [str(stem)])
        write_volume(read_volume(stem.with_name(stem.name + model.suffix)), output)


def _checkpoint(folder: Path) -> str:
    """The name of the checkpoints in the folds of a model.

    Raises:
        DiffusionSegmentError: WEIGHTS_MISSING where there is none.
    """
    for name in _CHECKPOINTS:
        if any(folder.glob(f"fold_*/{name}")):
            return name
    raise DiffusionSegmentError(
        ErrorCode.WEIGHTS_MISSING,
        f"{folder} has no fold with weights (fold_0/{_CHECKPOINTS[0]}).",
        hint="Copy the whole folder of the trained model.",
    )
