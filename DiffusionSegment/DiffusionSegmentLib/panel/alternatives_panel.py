"""Alternatives of the region under review: outlined one by one beside the segmentation, and used by a click."""

from collections.abc import Callable
from typing import Any

import qt
from DiffusionSegmentBackend.protocol.messages import Alternatives, Corrected, RegionAlternatives, Result

from ..scene.alternatives import (
    Alternative,
    AlternativeList,
    hideAlternative,
    keepAlternatives,
    showAlternative,
    useAlternative,
)
from ..scene.correction_maps import reviewedMaps
from ..scene.history import Snapshot, StepName, snapshot
from ..scene.volumes import scanVersion, volumeBuffer
from ..worker.client import WorkerClient
from . import wording
from .panel_context import PanelContext, offer, requestOptions
from .review_panel import ReviewPanel

Recorded = Callable[[StepName, Snapshot], None]
_KEYS = 4


class AlternativesPanel:
    """Connects the row "Alternatives" to the region under review of the shown result.

    The alternatives arrive with a result and with a correction; for a loaded scene, the button requests them. While a
    region has some and the Segment Editor is collapsed, the keys 1 to 4 belong to them: a key outlines its alternative,
    and once more removes the outline.
    """

    def __init__(
        self, ui: Any, client: WorkerClient, context: PanelContext, review: ReviewPanel, recorded: Recorded
    ) -> None:
        self._ui = ui
        self._client = client
        self._context = context
        self._review = review
        self._recorded = recorded
        self._list: AlternativeList | None = None
        self._number = 0
        self._wanted = True
        self._outlined = False
        ui.alternativesButton.clicked.connect(self.onAlternatives)
        ui.alternativePreviousButton.clicked.connect(self.onPrevious)
        ui.alternativeNextButton.clicked.connect(self.onNext)
        ui.useAlternativeButton.clicked.connect(self.onUse)
        ui.editorButton.contentsCollapsed.connect(self.onEditorCollapsed)
        # Kept as members: PythonQt deletes a shortcut without a reference.
        self._shortcuts = [self._shortcut(number) for number in range(_KEYS)]
        self.update()

    def _shortcut(self, number: int) -> Any:
        """The key of an alternative, which works in the slice views too."""
        shortcut = qt.QShortcut(self._ui.reviewButton)
        shortcut.setKey(qt.QKeySequence(str(number + 1)))
        shortcut.setContext(qt.Qt.ApplicationShortcut)

        def activate() -> None:
            self.onKey(number)

        shortcut.activated.connect(activate)
        return shortcut

    @property
    def _alternatives(self) -> tuple[Alternative, ...] | None:
        """The alternatives of the region under review; None where they are unknown or there is no region."""
        region = self._review.region
        return self._list.ofRegion(region) if self._list is not None and region is not None else None

    @property
    def _unknown(self) -> bool:
        """Whether the worker has to be asked: the scene was loaded, or the region is of another list."""
        if self._list is None or not self._list.regions:
            return True
        return self._review.region is not None and self._alternatives is None

    def close(self) -> None:
        """Drop the alternatives and remove their outlines."""
        self._hide()
        self._list = None
        self._number = 0
        self._wanted = True
        self.update()

    def update(self) -> None:
        """Update which buttons are enabled, the texts on the shown alternative, and whose keys the digits are."""
        ui, alternatives = self._ui, self._alternatives
        busy = wording.BUSY if self._client.running else "" if self._context.scan is not None else wording.NO_RESULT
        region = busy or ("" if self._review.region is not None else wording.NO_REGION)
        known = region or ("" if alternatives is not None else wording.NO_ALTERNATIVES)
        step = known or ("" if alternatives else wording.NO_ALTERNATIVE_HERE)
        for button, why, tip in (
            (ui.alternativesButton, busy, wording.ALTERNATIVES_TIP),
            (ui.alternativePreviousButton, step, wording.STEP_ALTERNATIVE_TIP),
            (ui.alternativeNextButton, step, wording.STEP_ALTERNATIVE_TIP),
            (ui.useAlternativeButton, step, wording.USE_ALTERNATIVE_TIP),
        ):
            offer(button, why, tip)
        hides = self._wanted and not self._unknown
        ui.alternativesButton.text = wording.HIDE_ALTERNATIVES if hides else wording.SHOW_ALTERNATIVES
        self._updateTexts(alternatives)
        self._updateKeys(bool(alternatives) and not step)

    def _updateTexts(self, alternatives: tuple[Alternative, ...] | None) -> None:
        position = text = ""
        if alternatives:
            shown = alternatives[self._number]
            position = wording.ALTERNATIVE_OF.format(number=self._number + 1, total=len(alternatives))
            text = wording.ALTERNATIVE_TEXT.format(sentence=shown.sentence, percent=100 * shown.probability)
        elif alternatives is not None:
            text = wording.NO_ALTERNATIVE_HERE
        elif self._list is not None and self._list.regions and self._review.region is not None:
            text = wording.UNKNOWN_ALTERNATIVES
        self._ui.alternativeLabel.text = position
        self._ui.alternativeTextLabel.text = text

    def _updateKeys(self, offered: bool) -> None:
        """The digits belong to either the alternatives or the Segment Editor: Qt ignores an ambiguous key."""
        own = offered and self._ui.editorButton.collapsed
        self._review.editor.enableShortcuts(not own)
        for shortcut in self._shortcuts:
            shortcut.setEnabled(own)

    def onEditorCollapsed(self, _: bool) -> None:
        """The Segment Editor was opened or closed."""
        self.update()

    def onAlternatives(self) -> None:
        """Outline the alternatives or not; request them where they are unknown."""
        if self._unknown:
            self._wanted = True
            self._context.guard(self._request)
        else:
            self._wanted = not self._wanted
            self._context.guard(self._show)
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

    def onAnswer(self, answer: Result | Corrected | RegionAlternatives) -> None:
        """Keep the alternatives of an answer, and show the first of the region under review.

        Raises:
            DiffusionSegmentError: what `keepAlternatives` raises.
        """
        scan = self._context.scan
        if scan is not None:
            self._list = keepAlternatives(scan, answer)
            self.onRegionChanged()

    def onRegionChanged(self) -> None:
        """Another region is under review: show its first alternative."""
        self._number = 0
        self._context.guard(self._show)
        self.update()

    def onPrevious(self) -> None:
        """Show the previous alternative."""
        self._step(-1)

    def onNext(self) -> None:
        """Show the next alternative."""
        self._step(1)

    def _step(self, by: int) -> None:
        alternatives = self._alternatives
        if alternatives:
            self._select((self._number + by) % len(alternatives))

    def onKey(self, number: int) -> None:
        """A key: outline alternative `number` (from 0), or remove its outline."""
        if number >= len(self._alternatives or ()) or self._client.running:
            return
        if number == self._number and self._outlined:
            self._context.guard(self._hide)
        else:
            self._select(number)

    def _select(self, number: int) -> None:
        self._number = number
        self._wanted = True
        self._context.guard(self._show)
        self.update()

    def _show(self) -> None:
        """Outline the selected alternative, where there is one and outlines are wanted."""
        scan, alternatives = self._context.scan, self._alternatives
        if scan is None or not alternatives or not self._wanted:
            self._hide()
            return
        position = wording.ALTERNATIVE_OF.format(number=self._number + 1, total=len(alternatives))
        showAlternative(scan, alternatives[self._number], f"{wording.SHOW_ALTERNATIVES} {position}")
        self._outlined = True

    def _hide(self) -> None:
        scan = self._context.scan
        if self._outlined and scan is not None and scan.scene is not None:
            hideAlternative(scan)
        self._outlined = False

    def onUse(self) -> None:
        """Use the selected alternative in its region, which is then corrected."""
        scan, alternatives = self._context.scan, self._alternatives
        if scan is not None and alternatives:
            chosen = alternatives[self._number]

            def use() -> None:
                before = snapshot(scan)
                if useAlternative(scan, chosen) is None:
                    self._context.say(wording.UNCHANGED)
                    return
                self._review.markCorrected(scan, self._review.region)
                self._recorded(StepName.USE_ALTERNATIVE, before)
                self._hide()
                self._review.open()
                self._context.organStatesChanged()

            self._context.guard(use)
        self._context.update()
