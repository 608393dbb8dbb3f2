"""What the panel remembers, in one typed parameter node that is saved with the scene."""

from enum import Enum
from typing import Annotated

from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

from .scene.merge_policy import MergePolicy
from .scene.overlay import OverlayKind


class Device(Enum):
    """Where the networks run. Saved scenes keep the name, so members are never renamed."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"

    def label(self) -> str:
        """The text in the panel."""
        return self.value


@parameterNodeWrapper
class Parameters:
    """Input, model, result, overlay and the settings under Advanced; 0 samples or steps take the model's own."""

    inputVolume: vtkMRMLScalarVolumeNode
    segmentation: vtkMRMLSegmentationNode
    model: str = "abdomen-ct"
    overlay: OverlayKind = OverlayKind.UNCERTAINTY
    opacity: Annotated[float, WithinRange(0.0, 1.0)] = 0.7
    threshold: Annotated[float, WithinRange(0.0, 1.0)] = 0.15
    samples: Annotated[int, WithinRange(0, 64)] = 0
    steps: Annotated[int, WithinRange(0, 100)] = 0
    seed: Annotated[int, WithinRange(0, 999999)] = 0
    device: Device = Device.AUTO
    bodypart: bool = False
    force: bool = False
    mergePolicy: MergePolicy = MergePolicy.REPLACE
    similarity: Annotated[float, WithinRange(0.0, 1.0)] = 0.6
    teachMinutes: Annotated[int, WithinRange(1, 60)] = 2
