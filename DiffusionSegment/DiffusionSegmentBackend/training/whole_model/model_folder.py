"""The folder of a model in training: manifest, options of the run, and records of finished stages."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...datasets.scans import ScanFiles
from ...errors import DiffusionSegmentError, ErrorCode
from ...imaging.atomic_writes import write_text
from ...models.folders import bundled_models_folder
from ...models.manifest import DESCRIPTION_FILE, ModelDescription, label_without_terms, read_description, read_manifest
from ...models.model import write_description
from ..new_model import data_text, new_description
from ..session import TRAINING_FOLDER
from .options import ModelTrainingOptions
from .time_plan import NO_PREPARATION, Preparation

MANIFESTS = bundled_models_folder().parent / "Manifests"
PREPARATION = "preparation"
_PLAN_FILE = "plan.json"


class ModelFolder:
    """A model folder: model.json, weights, and `training` with checkpoints and a record of each finished stage."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.training = path / TRAINING_FOLDER

    @property
    def description(self) -> ModelDescription:
        """The present content of model.json."""
        return read_description(self.path)

    def change(self, **values: Any) -> None:
        """Replace entries of model.json atomically."""
        raw = json.loads((self.path / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        write_description(self.path, {**raw, **values})

    def record(self, stage: str) -> dict[str, Any] | None:
        """The record of a finished stage, None if it is not finished."""
        path = self._record_file(stage)
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def finish(self, stage: str, **values: Any) -> None:
        """Write the record of a finished stage."""
        self.training.mkdir(parents=True, exist_ok=True)
        write_text(self._record_file(stage), json.dumps(values, indent=1) + "\n")

    def needed_record(self, stage: str) -> dict[str, Any]:
        """The record of a stage that another depends on.

        Raises:
            DiffusionSegmentError: WEIGHTS_MISSING if the stage is not finished.
        """
        record = self.record(stage)
        if record is None:
            raise DiffusionSegmentError(
                ErrorCode.WEIGHTS_MISSING, f"The stage '{stage}' is not finished.", hint=f"Run it: --stage {stage}."
            )
        return record

    def _record_file(self, stage: str) -> Path:
        return self.training / f"stage-{stage}.json"

    @property
    def begun(self) -> bool:
        """Whether a training was started in this folder."""
        return (self.training / _PLAN_FILE).is_file()

    @property
    def preparation(self) -> Preparation | None:
        """Times measured at the start of the training; None before, and zeros for one started by an earlier version."""
        record = self.record(PREPARATION)
        return Preparation(**record) if record is not None else NO_PREPARATION if self.begun else None

    def check(self, options: ModelTrainingOptions) -> None:
        """Check that the folder is new, or that its training can be resumed with these options.

        Raises:
            DiffusionSegmentError: OPTION for a folder with a model, or a training that was started with other options.
        """
        if self.begun:
            begun = json.loads((self.training / _PLAN_FILE).read_text(encoding="utf-8"))
            self._compare(begun, options.as_json(), resume=options.resume)
        elif self._has_weights():
            raise DiffusionSegmentError(
                ErrorCode.OPTION, f"{self.path} holds a model already.", hint="Choose another folder with -o."
            )

    def begin(self, options: ModelTrainingOptions, scans: ScanFiles, preparation: Preparation) -> None:
        """Create model.json from the manifest, unless a training was started in this folder.

        Raises:
            DiffusionSegmentError: MODEL_UNKNOWN without a manifest; WEIGHTS_CORRUPT for an invalid one.
        """
        if self.begun:
            return
        raw = new_description(
            self.manifest(options.manifest),
            folder_name=self.path.resolve().name,
            own=options.manifest not in manifest_names(),
            licence=options.licence,
        )
        raw["training_data"] = data_text(scans.sets, unlabelled=len(scans.unlabelled), source=options.data_source)
        self.finish(PREPARATION, **asdict(preparation))
        write_description(self.path, raw)
        write_text(self.training / _PLAN_FILE, json.dumps(options.as_json(), indent=1) + "\n")

    def _compare(self, begun: dict[str, Any], requested: dict[str, Any], *, resume: bool) -> None:
        if not resume:
            raise DiffusionSegmentError(
                ErrorCode.OPTION,
                f"A training was begun in {self.path}.",
                hint="Go on with it by --resume, or choose another folder with -o.",
            )
        other = [name for name, value in requested.items() if begun.get(name) != value]
        if other:
            raise DiffusionSegmentError(
                ErrorCode.OPTION,
                f"The training in {self.path} was begun with another {', '.join(other)}.",
                hint=f"Give what {TRAINING_FOLDER}/{_PLAN_FILE} there says, or choose another folder with -o.",
            )

    def _has_weights(self) -> bool:
        return (self.path / DESCRIPTION_FILE).is_file() and bool(self.description.networks)

    def manifest(self, manifest: str | None) -> ModelDescription:
        """The model.json of a training in this folder, else the manifest, by the name of a bundled one or its path.

        Raises:
            DiffusionSegmentError: MODEL_UNKNOWN without a manifest; WEIGHTS_CORRUPT for an invalid one.
        """
        if manifest is None or self.begun:
            if not (self.path / DESCRIPTION_FILE).is_file():
                raise DiffusionSegmentError(
                    ErrorCode.MODEL_UNKNOWN,
                    f"{self.path} has no {DESCRIPTION_FILE} that says what the labels mean.",
                    hint="Write one with `train --init NAME --labels labels.csv`, and name it with --manifest; or "
                    f"name {' or '.join(manifest_names())}.",
                )
            return self.description
        bundled = MANIFESTS / f"{manifest}.json"
        path = bundled if bundled.is_file() else Path(manifest)
        description = read_manifest(path / DESCRIPTION_FILE if path.is_dir() else path)
        incomplete = label_without_terms(description.raw)
        if incomplete is not None:
            raise DiffusionSegmentError(
                ErrorCode.WEIGHTS_CORRUPT,
                f"{path}: the label '{incomplete}' has no category, code or colour.",
                hint="Add them as docs/MODELS.md says, or write the manifest with `train --init`.",
            )
        return description


def manifest_names() -> list[str]:
    """Names of the bundled manifests."""
    return sorted(path.stem for path in MANIFESTS.glob("*.json"))
