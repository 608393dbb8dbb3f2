"""Similar voxels: a point in the scan, the voxels that look alike to the model, a segment of those around the point."""

from collections.abc import Callable
from typing import Any

import numpy as np
import qt
import slicer
from DiffusionSegmentBackend.protocol.messages import Similar, Similarity

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
    """Binds the section "Similar voxels" to the input volume; a result is not needed.

    While the point is dragged, one request is under way at a time, and the last place alone is asked for afterwards.
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
        self._asked: Point | None = None
        self._sent: tuple[slicer.vtkMRMLScalarVolumeNode, np.ndarray] | None = None
        # Asks after the event that moved the point, and after the one that ended another run.
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
        """The scene is about to close: hear no more of its points."""
        self._follow(None)
        self.forgetRequest()
        self._timer.stop()

    def update(self) -> None:
        """Follow the input's point, and enable what can be done now; what cannot says why."""
        ui, place = self._ui, "" if self._input is not None else wording.NO_INPUT
        self._follow(findSimilarPoint(self._input) if self._input is not None else None)
        point = similarPointLPS(self._point) if self._point is not None else None
        shown = self._map is not None and point is not None
        make = place or (wording.BUSY if self._client.running else "" if shown else wording.NO_SIMILARITY)
        for button, reason, tip in (
            (ui.similarPointButton, place, wording.PLACE_POINT_TIP),
            (ui.similarSegmentButton, make, wording.SIMILAR_SEGMENT_TIP),
        ):
            offer(button, reason, tip)
        waiting = wording.SIMILAR_FIRST if self._point is None else wording.SIMILAR_CLICK
        ui.similarLabel.text = wording.SIMILAR_SHOWN.format(threshold=self._threshold) if shown else waiting
        if self._point is not None and point not in (None, self._asked) and not self._client.running:
            self._timer.start(0)

    @property
    def _threshold(self) -> float:
        return self._context.parameters.similarity if self._context.parameters is not None else 0.0

    def _follow(self, node: slicer.vtkMRMLMarkupsFiducialNode | None) -> None:
        """Hear of the moves of this point alone. A point that was there before is not asked for until it moves."""
        if node is self._point:
            return
        if self._point is not None:
            for tag in self._tags:
                self._point.RemoveObserver(tag)
        self._point = node
        self._tags = []
        self._asked = similarPointLPS(node) if node is not None else None
        if node is not None:
            events = (node.PointPositionDefinedEvent, node.PointModifiedEvent)
            self._tags = [node.AddObserver(event, self.onPointMoved) for event in events]

    def onPlacePoint(self) -> None:
        """Let the next click in a slice view place the point."""
        self._context.guard(self._place)
        self.update()

    def _place(self) -> None:
        if self._input is not None:
            placeSimilarPoint(self._input)
            self._asked = None

    def onPointMoved(self, caller: Any, event: str) -> None:
        """The reader has put the point down, or drags it."""
        self._timer.start(0)

    def onTimer(self) -> None:
        """Ask for the place where the point is now, unless it was asked for, or the worker is busy."""
        if not self._client.running:
            self._context.guard(self._ask)

    def _ask(self) -> None:
        node, parameters = self._input, self._context.parameters
        point = similarPointLPS(self._point) if self._point is not None else None
        if node is None or parameters is None or point is None or point == self._asked:
            return
        # Before the request: one that fails must not be sent again and again.
        self._asked = point
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
        """Show the worker's map.

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
        """The run was cancelled or failed: the point is asked for again when it moves."""
        self._sent = None
        self._asked = similarPointLPS(self._point) if self._point is not None else None

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
            made = makeSimilarSegment(scan, similarity, point, parameters.similarity)
            self._recorded(StepName.SIMILAR_REGION, before)
        else:
            segmentation = segmentationFor(node, parameters.segmentation)
            made = makeSimilarSegment(SegmentedScan(node, segmentation, ()), similarity, point, parameters.similarity)
            parameters.segmentation = segmentation
        self._context.say(wording.SIMILAR_MADE.format(name=made.name, volume=made.volumeMl))
