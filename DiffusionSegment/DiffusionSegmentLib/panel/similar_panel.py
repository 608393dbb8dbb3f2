"""Similar voxels: a point in the scan, the voxels with similar features, a segment of those around the point."""

from collections.abc import Callable
from typing import Any

import qt
import slicer
from DiffusionSegmentBackend.protocol.messages import Similar, Similarity
from numpy.typing import NDArray

from ..scene.history import Snapshot, StepName, snapshot
from ..scene.segmented_scan import SegmentedScan
from ..scene.similar_point import findSimilarPoint, placeSimilarPoint, similarPointLPS
from ..scene.similarity import findSimilarity, makeSimilarSegment, putSimilarity, segmentationFor, showSimilarity
from ..scene.volumes import scanVersion, volumeBuffer
from ..worker.client import WorkerClient
from . import wording
from .panel_context import PanelContext, offer

Point = tuple[float, float, float]


class SimilarPanel:
    """Connects the section "Similar voxels" to the input volume; a result is not needed.

    While the point is dragged there is one request at a time; afterwards only the last position is requested.
    """

    def __init__(
        self, ui: Any, client: WorkerClient, context: PanelContext, recorded: Callable[[StepName, Snapshot], None]
    ) -> None:
        self._ui = ui
        self._client = client
        self._context = context
        self._recorded = recorded
        self._point: slicer.vtkMRMLMarkupsFiducialNode | None = None
        self._tags: list[int] = []
        self._requestedPoint: Point | None = None
        self._sent: tuple[slicer.vtkMRMLScalarVolumeNode, NDArray[Any]] | None = None
        # Sends the request after the event that moved the point or ended another run.
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self.onTimer)
        ui.similarPointButton.clicked.connect(self.onPlacePoint)
        ui.similarSegmentButton.clicked.connect(self.onMakeSegment)
        ui.similarSlider.valueChanged.connect(self.onThreshold)
        self.update()

    @property
    def _input(self) -> slicer.vtkMRMLScalarVolumeNode | None:
        node = self._context.parameters.inputVolume if self._context.parameters is not None else None
        return node if node is not None and node.GetScene() is not None else None

    @property
    def _map(self) -> slicer.vtkMRMLScalarVolumeNode | None:
        return findSimilarity(self._input) if self._input is not None else None

    def close(self) -> None:
        """The scene is about to close: stop observing its points."""
        self._observe(None)
        self.forgetRequest()
        self._timer.stop()

    def update(self) -> None:
        """Observe the point of the input volume, and update the buttons and the label."""
        ui, missing = self._ui, "" if self._input is not None else wording.NO_INPUT
        self._observe(findSimilarPoint(self._input) if self._input is not None else None)
        point = similarPointLPS(self._point) if self._point is not None else None
        shown = self._map is not None and point is not None
        make = missing or (wording.BUSY if self._client.running else "" if shown else wording.NO_SIMILARITY)
        for button, reason, tip in (
            (ui.similarPointButton, missing, wording.PLACE_POINT_TIP),
            (ui.similarSegmentButton, make, wording.SIMILAR_SEGMENT_TIP),
        ):
            offer(button, reason, tip)
        instruction = wording.SIMILAR_FIRST if self._point is None else wording.SIMILAR_CLICK
        ui.similarLabel.text = wording.SIMILAR_SHOWN.format(threshold=self._threshold) if shown else instruction
        if self._point is not None and point not in (None, self._requestedPoint) and not self._client.running:
            self._timer.start(0)

    @property
    def _threshold(self) -> float:
        return self._context.parameters.similarity if self._context.parameters is not None else 0.0

    def _observe(self, node: slicer.vtkMRMLMarkupsFiducialNode | None) -> None:
        """Observe only this point. An existing point is requested when it moves."""
        if node is self._point:
            return
        if self._point is not None:
            for tag in self._tags:
                self._point.RemoveObserver(tag)
        self._point = node
        self._tags = []
        self._requestedPoint = similarPointLPS(node) if node is not None else None
        if node is not None:
            events = (node.PointPositionDefinedEvent, node.PointModifiedEvent)
            self._tags = [node.AddObserver(event, self.onPointMoved) for event in events]

    def onPlacePoint(self) -> None:
        """Start placing the point with the next click in a slice view."""
        self._context.guard(self._startPlacing)
        self.update()

    def _startPlacing(self) -> None:
        if self._input is not None:
            placeSimilarPoint(self._input)
            self._requestedPoint = None

    def onPointMoved(self, caller: Any, event: str) -> None:
        """The point was placed, or is dragged."""
        self._timer.start(0)

    def onTimer(self) -> None:
        """Request the current position of the point, unless it was requested or the worker is busy."""
        if not self._client.running:
            self._context.guard(self._request)

    def _request(self) -> None:
        node, parameters = self._input, self._context.parameters
        point = similarPointLPS(self._point) if self._point is not None else None
        if node is None or parameters is None or point is None or point == self._requestedPoint:
            return
        # Set before the request, so that a request that fails is not repeated.
        self._requestedPoint = point
        array, geometry = volumeBuffer(node)
        self._context.begin(wording.STARTING)
        self._client.request(
            Similar,
            array,
            geometry,
            version=scanVersion(node),
            model=parameters.model,
            device=parameters.device.value,
            point_lps=point,
        )
        self._sent = (node, geometry)
        self._context.update()

    def onAnswer(self, answer: Similarity) -> None:
        """Show the map of the worker.

        Raises:
            DiffusionSegmentError: what `putSimilarity` raises.
        """
        sent, parameters = self._sent, self._context.parameters
        self._sent = None
        if sent is None or parameters is None:
            return
        node, geometry = sent
        similarity = putSimilarity(node, answer, geometry)
        if node is self._input:
            showSimilarity(node, similarity, threshold=parameters.similarity, opacity=parameters.opacity)
        self.update()

    def forgetRequest(self) -> None:
        """The request was cancelled or has failed; the point is requested again when it moves."""
        self._sent = None
        self._requestedPoint = similarPointLPS(self._point) if self._point is not None else None

    def onThreshold(self, value: float) -> None:
        """Follow the slider."""
        similarity = self._map
        if similarity is not None and self._input is not None and self._context.parameters is not None:
            opacity = self._context.parameters.opacity
            showSimilarity(self._input, similarity, threshold=value, opacity=opacity)
            self.update()

    def onMakeSegment(self) -> None:
        """Make a segment of the region around the point."""
        self._context.guard(self._make)
        self._context.update()

    def _make(self) -> None:
        node, similarity, parameters = self._input, self._map, self._context.parameters
        point = similarPointLPS(self._point) if self._point is not None else None
        if node is None or similarity is None or parameters is None or point is None or self._client.running:
            return
        scan = self._context.scan
        if scan is not None and scan.input is node:
            before = snapshot(scan)
            created = makeSimilarSegment(scan, similarity, point, parameters.similarity)
            self._recorded(StepName.SIMILAR_REGION, before)
        else:
            segmentation = segmentationFor(node, parameters.segmentation)
            created = makeSimilarSegment(
                SegmentedScan(node, segmentation, ()), similarity, point, parameters.similarity
            )
            parameters.segmentation = segmentation
        self._context.say(wording.SIMILAR_MADE.format(name=created.name, volume=created.volumeMl))
