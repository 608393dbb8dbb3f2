"""A segmentation from another source that is reviewed: its segments as organs of the model, on the grid of the scan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.schema.reviewed_segmentation import OtherSegment, ReviewedSegmentation
from DiffusionSegmentBackend.schema.segment_matching import SegmentMatch, SegmentName, match_segments, terms_of_entry
from numpy.typing import NDArray

from .layers import Layer, lookUp, valueTable
from .resampled_layers import readLayers
from .segmented_scan import SegmentedScan
from .terminology import LabelDefinition, modelLabels

_LARGEST = 255


@dataclass(frozen=True)
class GivenSegment:
    """A segment, and the label of the model that it is with the reason; None: it is left as it is."""

    segmentId: str
    name: str
    match: SegmentMatch | None


@dataclass(frozen=True)
class GivenSegmentation:
    """What a review is requested of.

    `labels`, uint8 (k, j, i) on the grid of the scan, has the label values of the model, and larger ones for other
    structures; `organs` are the names of the labels that the segmentation covers, in the order of their values;
    `record` is `reviewed` of the report; `resampled`: the voxels of the segmentation are not those of the scan.
    """

    node: slicer.vtkMRMLSegmentationNode
    segments: tuple[GivenSegment, ...]
    labels: NDArray[np.uint8]
    organs: tuple[str, ...]
    record: ReviewedSegmentation
    resampled: bool = False

    @property
    def resultName(self) -> str:
        """Name of the segmentation node of the review."""
        return f"{self.node.GetName()} (reviewed{', resampled' if self.resampled else ''})"

    def hideMatched(self) -> None:
        """Hide the segments whose voxels the review shows; the segments themselves do not change."""
        display = self.node.GetDisplayNode() if self.node.GetScene() is not None else None
        if display is not None:
            for segment in self.segments:
                if segment.match is not None:
                    display.SetSegmentVisibility(segment.segmentId, False)


def segmentNames(node: slicer.vtkMRMLSegmentationNode) -> tuple[tuple[str, SegmentName], ...]:
    """The id of every segment, and what states its anatomy: its name and the codes of its terminology entry."""
    segmentation, named = node.GetSegmentation(), []
    for segmentId in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(segmentId)
        entry = vtk.reference("")
        segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), entry)
        code, modifier = terms_of_entry(str(entry))
        named.append((segmentId, SegmentName(name=str(segment.GetName() or ""), code=code, modifier=modifier)))
    return tuple(named)


def matchGiven(
    node: slicer.vtkMRMLSegmentationNode, labels: Sequence[LabelDefinition], *, given: dict[str, str] | None = None
) -> tuple[GivenSegment, ...]:
    """Match the segments of a node with the labels of a model by code, then by name.

    `given` are names of segments with the organ that each is, which decides before; an empty text: none.

    Raises:
        DiffusionSegmentError: OPTION for a given segment or organ that does not exist.
    """
    named = segmentNames(node)
    matching = match_segments([name for _, name in named], modelLabels(labels), given=given)
    return tuple(
        GivenSegment(segmentId, name.name, match)
        for (segmentId, name), match in zip(named, matching.matches, strict=True)
    )


def readGiven(scan: SegmentedScan, segments: Sequence[GivenSegment]) -> GivenSegmentation:
    """Read the segmentation of `scan` with the label values of the model; nothing in the scene changes.

    A segmentation on other voxels, as that of another program, is resampled to those of the scan.

    A segment without a match is another structure, which is not judged, unless it overlaps a matched one: then it is no
    structure beside the organs, such as the body around them, and only the organs count.

    Raises:
        DiffusionSegmentError: INPUT_VALUES where no segment is an organ of the model, none of them has a voxel in the
            scan, or two organs overlap; INPUT_MISSING or GEOMETRY, see `readLayers`.
    """
    name = scan.segmentation.GetName()
    matched = {segment.segmentId: segment.match for segment in segments if segment.match is not None}
    if not matched:
        names = ", ".join(segment.name for segment in segments[:5])
        raise DiffusionSegmentError(
            ErrorCode.INPUT_VALUES,
            f"No segment of {name} is an organ of the model: {names}." if names else f"{name} has no segments.",
            hint="Choose the organs in the table, or another model." if names else "Choose another segmentation.",
        )
    others = {
        segment.segmentId: OtherSegment(name=segment.name, value=value)
        for segment, value in zip(
            (segment for segment in segments if segment.match is None), _valuesOfOthers(scan.labels), strict=False
        )
    }
    read = readLayers(scan)
    labels = np.zeros(scan.box.shape, np.uint8)
    for layer in read.layers:
        _drawOrgans(layer, scan, {key: match.value for key, match in matched.items()}, labels)
    if not labels.any():
        raise DiffusionSegmentError(
            ErrorCode.INPUT_VALUES,
            f"The organs of {name} have no voxel in {scan.input.GetName()}.",
            hint="Choose the segmentation of this scan.",
        )
    organs = labels > 0
    for layer in read.layers:
        _drawOthers(layer, scan, {key: other.value for key, other in others.items()}, labels, organs)
    record = ReviewedSegmentation(matches=tuple(matched.values()), unmatched=tuple(others.values()))
    values = {match.value for match in matched.values()}
    covered = tuple(label.name for label in sorted(scan.labels, key=lambda label: label.value) if label.value in values)
    return GivenSegmentation(scan.segmentation, tuple(segments), labels, covered, record, read.resampled)


def _valuesOfOthers(labels: Iterable[LabelDefinition]) -> Iterable[int]:
    """Values above those of the model, from 255 downwards; the last one stands for all further segments."""
    first = max(label.value for label in labels) + 1
    yield from range(_LARGEST, first, -1)
    while True:
        yield first


def _drawOrgans(layer: Layer, scan: SegmentedScan, values: dict[str, int], labels: NDArray[np.uint8]) -> None:
    drawn, view = _drawn(layer, scan, values, labels)
    if drawn is None:
        return
    shared = (view > 0) & (drawn > 0) & (view != drawn)
    if shared.any():
        k, j, i = (int(n) for n in np.argwhere(shared)[0])
        titles = {label.value: label.title for label in scan.labels}
        raise DiffusionSegmentError(
            ErrorCode.INPUT_VALUES,
            f"{titles[int(view[k, j, i])]} and {titles[int(drawn[k, j, i])]} of {scan.segmentation.GetName()} share "
            f"{np.count_nonzero(shared)} voxels.",
            hint="Leave one of them as it is in the table, or separate them in Segment Editor.",
        )
    np.copyto(view, drawn, where=drawn > 0)


def _drawOthers(
    layer: Layer, scan: SegmentedScan, values: dict[str, int], labels: NDArray[np.uint8], organs: NDArray[np.bool_]
) -> None:
    """Draw the segments of a layer that share no voxel with `organs`."""
    drawn, view = _drawn(layer, scan, values, labels)
    if drawn is None:
        return
    inside = layer.box.cut(scan.box)
    separate = np.ones(_LARGEST + 1, bool)
    separate[drawn[organs[inside.slices]]] = False
    separate[0] = False
    np.copyto(view, drawn, where=separate[drawn] & (view == 0))


def _drawn(
    layer: Layer, scan: SegmentedScan, values: dict[str, int], labels: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8] | None, NDArray[np.uint8]]:
    """The `values` of the segments in the voxels of a layer inside the scan, and the view of `labels` there."""
    inside = layer.box.cut(scan.box)
    view = labels[inside.slices]
    table = valueTable({layer.values[key]: value for key, value in values.items() if key in layer.values})
    if inside.empty or not table.any():
        return None, view
    return lookUp(table, layer.voxels()[inside.within(layer.box)]), view
