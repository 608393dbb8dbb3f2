"""The settings of the panel, as a typed parameter node that is saved with the scene."""

from dataclasses import fields
from enum import Enum
from typing import Annotated, Any, get_args, get_type_hints

from DiffusionSegmentBackend.schema.run_options import DEFAULT_MODEL, RunOptions, option_info
from DiffusionSegmentBackend.schema.uncertainty_colours import UNCERTAINTY_LOW
from slicer import (
    vtkMRMLMarkupsROINode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLScriptedModuleNode,
    vtkMRMLSegmentationNode,
)
from slicer.i18n import tr as _
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


class Sampler(Enum):
    """How a denoising step is taken. Saved scenes keep the name, so members are never renamed."""

    MODEL = None
    DDIM = "ddim"
    DDPM = "ddpm"

    def label(self) -> str:
        """The text in the panel."""
        return self.value.upper() if self.value is not None else str(_("model default"))


# Run options that the scene stores under another name, or as a type of its own.
_PARAMETER_NAMES = {"memory_limit_gb": "memoryLimit"}
# The largest value of a spin box in the panel, for options that have no smaller bound.
_MAX_SHOWN = 999999
# The region is that of a markups node, and organs are a list of names.
_NOT_DERIVED = {"region", "organs"}
# Names of parameters in scenes of earlier versions, with the present names.
_EARLIER_NAMES = {"teachMinutes": "fineTuneMinutes"}


def withRunOptions(parameters: type) -> type:
    """Add a parameter for each field of `RunOptions` that the class does not declare itself.

    None, which a parameter node cannot store, is 0 or an empty text. Bounds are those of the option.
    """
    hints = get_type_hints(RunOptions)
    for field in fields(RunOptions):
        name = _PARAMETER_NAMES.get(field.name, field.name)
        if name not in parameters.__annotations__ and name not in _NOT_DERIVED:
            (kind,) = [part for part in get_args(hints[field.name]) or (hints[field.name],) if part is not type(None)]
            largest = option_info(field).maximum
            bounds = None if largest is None else WithinRange(0, min(int(largest), _MAX_SHOWN))
            parameters.__annotations__[name] = kind if bounds is None else Annotated[kind, bounds]
            setattr(parameters, name, kind() if field.default is None else field.default)
    return parameters


@parameterNodeWrapper
@withRunOptions
class Parameters:
    """Input, model, result, overlay and the settings under Advanced; run options follow from `RunOptions`.

    `reviewedSegmentation` is the one from another source that *Review this segmentation* reviews.

    0 samples or steps take the model's own; no organs are all of them; a memory limit (GB) of 0 is none; `anonymous`
    shows no patient data in the panel's header and in the report.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    regionOfInterest: vtkMRMLMarkupsROINode
    segmentation: vtkMRMLSegmentationNode
    reviewedSegmentation: vtkMRMLSegmentationNode
    model: str = DEFAULT_MODEL
    overlay: OverlayKind = OverlayKind.UNCERTAINTY
    opacity: Annotated[float, WithinRange(0.0, 1.0)] = 0.7
    threshold: Annotated[float, WithinRange(0.0, 1.0)] = UNCERTAINTY_LOW
    organs: list[str]
    preview: bool = True
    sampler: Sampler = Sampler.MODEL
    device: Device = Device.AUTO
    memoryLimit: Annotated[float, WithinRange(0.0, 4096.0)] = 0.0
    bodypart: bool = False
    force: bool = False
    allFrames: bool = False
    mergePolicy: MergePolicy = MergePolicy.REPLACE
    similarity: Annotated[float, WithinRange(0.0, 1.0)] = 0.6
    anonymous: bool = False
    fineTuneMinutes: Annotated[int, WithinRange(1, 60)] = 2


def runOptions(
    parameters: Any, *, organs: tuple[str, ...] | None = None, region: tuple[float, ...] | None = None
) -> RunOptions:
    """The run options that the parameters stand for; `organs` and `region` are None for all organs, the whole scan."""
    options: dict[str, Any] = {"organs": organs, "region": region}
    for field in fields(RunOptions):
        if field.name not in _NOT_DERIVED:
            value = getattr(parameters, _PARAMETER_NAMES.get(field.name, field.name))
            value = value.value if isinstance(value, Enum) else value
            options[field.name] = None if field.default is None and not value else value
    return RunOptions(**options)


_parametersByNode: dict[vtkMRMLScriptedModuleNode, Parameters] = {}


def _renameEarlier(node: vtkMRMLScriptedModuleNode) -> None:
    """Move values that are stored under an earlier name to the present name."""
    for earlier, name in _EARLIER_NAMES.items():
        if node.HasParameter(earlier):
            value = node.GetParameter(earlier)
            node.UnsetParameter(earlier)
            node.SetParameter(name, value)


def parametersOf(node: vtkMRMLScriptedModuleNode) -> Parameters:
    """The typed parameters of a node: one object for as long as the node is in a scene.

    It must live as long as its node: otherwise Python would collect it together with the observers that VTK still
    calls, and the application would crash at the next modification (seen with VTK 9.6).

    Parameters of a scene of an earlier version are renamed; to be called again after a scene was imported.
    """
    for removed in [known for known in _parametersByNode if known.GetScene() is None]:
        del _parametersByNode[removed]
    _renameEarlier(node)
    if node not in _parametersByNode:
        # The decorator gives the class its constructor.
        _parametersByNode[node] = Parameters(node)  # type: ignore[call-arg]
    return _parametersByNode[node]


def connectWidgets(parameters: Parameters, ui: Any) -> int:
    """Bind the widgets of a form that name a parameter in their property SlicerParameterName; returns the tag.

    The wrapper's own connectGui returns no tag: the widgets would go on writing into a node that was replaced.
    """
    named = {widget.property("SlicerParameterName"): widget for widget in vars(ui).values()}
    widgets = {name: widget for name, widget in named.items() if name}
    return int(parameters.connectParametersToGui(widgets))  # type: ignore[attr-defined]
