"""The section "Overlay": which map lies over the scan, how opaque, from which value on."""

import slicer

from ..scene.overlay import STYLES, OverlayKind, setThreshold, showOverlay
from ..scene.result import SceneResult
from . import wording
from .desk import Desk


class OverlayPanel:
    """Lays over the scan on the desk what the parameters name; the widgets are bound to these by their names."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._shown: tuple[OverlayKind, float, float] | None = None

    def close(self) -> None:
        """Another result is coming: it gets its overlay even if no setting changes."""
        self._shown = None

    def update(self) -> None:
        """Follow overlay, opacity and threshold; other settings leave the slice views alone."""
        parameters, result = self._desk.parameters, self._desk.result
        if parameters is None or result is None:
            return
        wanted = (parameters.overlay, parameters.opacity, parameters.threshold)
        if wanted != self._shown:
            self._shown = wanted
            self._show(result, *wanted)

    def _show(self, result: SceneResult, kind: OverlayKind, opacity: float, threshold: float) -> None:
        node = result.overlays.get(kind)
        if node is not None and node.GetScene() is None:
            node = None
        if node is not None and STYLES[kind].threshold is not None:
            setThreshold(node, threshold)
        background = self._desk.scan.input if self._desk.scan is not None else None
        showOverlay(slicer.mrmlScene, background, node, kind, opacity=opacity)
        if node is None and kind is not OverlayKind.NONE:
            self._desk.say(wording.NO_OVERLAY)
