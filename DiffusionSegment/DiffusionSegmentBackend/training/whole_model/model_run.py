"""State shared by the stages of one-command training."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...datasets.patch_sampler import TrainingSet
from ...datasets.scans import ScanFiles, Volumes, read_volumes
from ...models.model import load_network
from ...networks.bodypart import BodyPartRegressor
from ...networks.segmenter import Segmenter
from ..loop import Budget
from ..session import store
from .model_folder import ModelFolder
from .networks import NetworkTraining
from .options import ModelTrainingOptions
from .stage_bar import StageBar
from .time_plan import TimePlan


@dataclass
class ModelRun:
    """State shared by the stages. Scans are read on first use."""

    folder: ModelFolder
    options: ModelTrainingOptions
    training: NetworkTraining
    plan: TimePlan
    scans: ScanFiles
    bar: StageBar
    _volumes: Volumes | None = field(default=None, repr=False)

    @property
    def regressor(self) -> BodyPartRegressor:
        """The trained body-part regressor.

        Raises:
            DiffusionSegmentError: WEIGHTS_MISSING before its stage.
        """
        regressor = load_network(self.folder.description, "bodypart")
        assert isinstance(regressor, BodyPartRegressor)
        return regressor

    @property
    def volumes(self) -> Volumes:
        """Training volumes of all scans."""
        if self._volumes is None:
            self._volumes = read_volumes(self.scans, self.folder.description, self.regressor, self.bar.note)
        return self._volumes

    def checkpoints(self, *parts: str) -> Path:
        """Folder of the checkpoints of a network."""
        return self.folder.training.joinpath(*parts)

    def load_segmenter(self) -> Segmenter:
        """The network of the model.

        Raises:
            DiffusionSegmentError: WEIGHTS_MISSING before its stage.
        """
        network = load_network(self.folder.description, "segmenter")
        assert isinstance(network, Segmenter)
        return network

    def store_segmenter(self, network: Segmenter, budget: Budget, checkpoints: Path, **options: Any) -> None:
        """Store the network of the model and the record of its training."""
        store(
            self.folder.path,
            "segmenter",
            network,
            architecture=network.architecture,
            budget=budget,
            cases=self.scans.names,
            options=options,
            checkpoints=checkpoints,
        )

    def sets(self, *, without: tuple[str, ...] = ()) -> list[TrainingSet]:
        """Training sets of all cases but `without`."""
        return self.volumes.sets(without=without, denoising=self.options.denoising_share > 0)
