"""The section "Overlay": kind, opacity and threshold."""

import slicer

from ..scene.overlay import STYLES, OverlayKind, setThreshold, showOverlay
from ..scene.result import SceneResult
from . import wording
from .panel_context import PanelContext


class OverlayPanel:
    """Shows the overlay that the parameters name; its widgets are bound to the parameters by their names."""

    def __init__(self, context: PanelContext) -> None:
        self._context = context
        self._shown: tuple[OverlayKind, float, float] | None = None

    def close(self) -> None:
        """The shown result changes: its overlay is shown even if no setting changes."""
        self._shown = None

    def update(self) -> None:
        """Show the overlay again if kind, opacity or threshold changed."""
        parameters, result = self._context.parameters, self._context.result
        if parameters is None or result is None:
            return
        settings = (parameters.overlay, parameters.opacity, parameters.threshold)
        if settings != self._shown:
            self._shown = settings
            self._show(result, *settings)

    def _show(self, result: SceneResult, kind: OverlayKind, opacity: float, threshold: float) -> None:
        node = result.overlays.get(kind)
        if node is not None and node.GetScene() is None:
            node = None
        if node is not None and STYLES[kind].threshold is not None:
            setThreshold(node, threshold)
        background = self._context.scan.input if self._context.scan is not None else None
        showOverlay(slicer.mrmlScene, background, node, kind, opacity=opacity)
        if node is None and kind is not OverlayKind.NONE:
            self._context.say(wording.NO_OVERLAY)
