"""Alternatives: the samples of the model, shown one by one as outlines, to be used for a region or an organ."""

from collections.abc import Callable
from typing import Any

from DiffusionSegmentBackend.protocol.messages import Alternatives, Samples

from ..scene.alternatives import (
    AlternativeTarget,
    SampleMaps,
    hideAlternative,
    keepAlternatives,
    pickAlternative,
    showAlternative,
)
from ..scene.correction_maps import reviewedMaps
from ..scene.history import Snapshot, StepName, snapshot
from ..scene.review import Region
from ..scene.volumes import scanVersion, volumeBuffer
from ..worker.client import WorkerClient
from . import wording
from .panel_context import PanelContext, offer, requestOptions

Recorded = Callable[[StepName, Snapshot], None]


class AlternativesPanel:
    """Connects the row "Alternatives" to the shown result; `region` returns the region under review."""

    def __init__(
        self,
        ui: Any,
        client: WorkerClient,
        context: PanelContext,
        region: Callable[[], Region | None],
        recorded: Recorded,
    ) -> None:
        self._ui = ui
        self._client = client
        self._context = context
        self._region = region
        self._recorded = recorded
        self._samples: SampleMaps | None = None
        self._number = 0
        ui.alternativesButton.clicked.connect(self.onAlternatives)
        ui.alternativePreviousButton.clicked.connect(self.onPrevious)
        ui.alternativeNextButton.clicked.connect(self.onNext)
        ui.pickRegionButton.clicked.connect(self.onPickRegion)
        ui.pickOrganButton.clicked.connect(self.onPickOrgan)
        self.update()

    def close(self) -> None:
        """Drop the samples and remove their outlines."""
        scan = self._context.scan
        if self._samples is not None and scan is not None and scan.scene is not None:
            hideAlternative(scan)
        self._samples = None
        self._number = 0
        self.update()

    def update(self) -> None:
        """Update which buttons are enabled, and the number of the shown sample."""
        ui = self._ui
        reason = wording.BUSY if self._client.running else "" if self._context.scan is not None else wording.NO_RESULT
        region = self._region()
        step = reason or ("" if self._samples is not None else wording.NO_ALTERNATIVES)
        pick = step or ("" if region is not None else wording.NO_REGION)
        organ = pick or ("" if region is not None and self._organ(region) is not None else wording.NO_REGION)
        for button, why, tip in (
            (ui.alternativesButton, reason, wording.ALTERNATIVES_TIP),
            (ui.alternativePreviousButton, step, wording.ALTERNATIVES_TIP),
            (ui.alternativeNextButton, step, wording.ALTERNATIVES_TIP),
            (ui.pickRegionButton, pick, wording.PICK_REGION_TIP),
            (ui.pickOrganButton, organ, wording.PICK_ORGAN_TIP),
        ):
            offer(button, why, tip)
        count = len(self._samples) if self._samples is not None else 0
        position = wording.ALTERNATIVE_OF.format(number=self._number + 1, total=count)
        ui.alternativeLabel.text = position if count else ""

    def onAlternatives(self) -> None:
        """Request the samples from the worker, or remove their outlines."""
        if self._samples is not None:
            self._context.guard(self.close)
        else:
            self._context.guard(self._request)
        self._context.update()

    def _request(self) -> None:
        scan, parameters = self._context.scan, self._context.parameters
        if scan is None or parameters is None:
            return
        array, geometry = volumeBuffer(scan.input)
        self._context.begin(wording.STARTING)
        options = requestOptions(scan, parameters)
        version, maps = scanVersion(scan.input), reviewedMaps(scan)
        self._client.request(Alternatives, array, geometry, version=version, maps=maps, **options)

    def onSamples(self, answer: Samples) -> None:
        """Show the first sample.

        Raises:
            DiffusionSegmentError: what `keepAlternatives` raises.
        """
        scan = self._context.scan
        if scan is not None:
            self._samples = keepAlternatives(scan, answer)
            self._number = 0
            self._show()

    def onPrevious(self) -> None:
        """Show the previous sample."""
        self._step(-1)

    def onNext(self) -> None:
        """Show the next sample."""
        self._step(1)

    def _step(self, by: int) -> None:
        if self._samples is not None:
            self._number = (self._number + by) % len(self._samples)
            self._context.guard(self._show)
            self.update()

    def onRegionChanged(self) -> None:
        """Another region is under review: show the sample there."""
        if self._samples is not None:
            self._context.guard(self._show)
        self.update()

    def _show(self) -> None:
        scan, target = self._context.scan, self._target()
        if scan is None or self._samples is None:
            return
        if target is None:
            hideAlternative(scan)
        else:
            showAlternative(scan, self._samples, self._number, target)

    def _target(self) -> AlternativeTarget | None:
        """The region, or its organ where the voxels of the region are unknown."""
        region, result = self._region(), self._context.result
        if region is None or result is None:
            return None
        if result.regions is not None:
            return AlternativeTarget(region=region, regions=result.regions)
        organ = self._organ(region)
        return None if organ is None else AlternativeTarget(organ=organ)

    def _organ(self, region: Region) -> int | None:
        scan = self._context.scan
        labels = [scan.label(name) for name in (region.organ, region.competingOrgan)] if scan is not None else []
        return next((label.value for label in labels if label is not None), None)

    def onPickRegion(self) -> None:
        """Use the shown sample inside the region."""
        region, result = self._region(), self._context.result
        if region is not None and result is not None:
            self._pick(AlternativeTarget(region=region, regions=result.regions))

    def onPickOrgan(self) -> None:
        """Use the shown sample for the organ of the region."""
        region = self._region()
        organ = self._organ(region) if region is not None else None
        if organ is not None:
            self._pick(AlternativeTarget(organ=organ))

    def _pick(self, target: AlternativeTarget) -> None:
        scan, samples = self._context.scan, self._samples
        if scan is None or samples is None:
            return

        def pick() -> None:
            before = snapshot(scan)
            if pickAlternative(scan, samples, self._number, target) is None:
                self._context.say(wording.UNCHANGED)
            else:
                self._recorded(StepName.PICK_ALTERNATIVE, before)

        self._context.guard(pick)
        self._context.update()
