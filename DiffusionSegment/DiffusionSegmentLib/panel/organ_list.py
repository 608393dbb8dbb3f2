"""Which of the model's organs are wanted: a list to tick, with All and None."""

from collections.abc import Callable
from typing import Any

import qt

from ..scene.terminology import ModelDescription
from . import wording
from .check_box_frames import frameCheckBoxes
from .panel_context import PanelContext, offer


class OrganList:
    """Binds the list to the parameter `organs`, which holds names, none for all; `changed` hears of every tick."""

    def __init__(self, ui: Any, context: PanelContext, changed: Callable[[], None]) -> None:
        self._ui = ui
        self._context = context
        self._changed = changed
        self._model: ModelDescription | None = None
        self._names: list[str] = []
        self._filling = False
        # Apart from the parameter, in which no name means all.
        self._none = False
        frameCheckBoxes(ui.organList)
        ui.organList.itemChanged.connect(self.onTicked)
        ui.allOrgansButton.clicked.connect(self.onAll)
        ui.noOrgansButton.clicked.connect(self.onNone)
        self.update(None)

    @property
    def noneSelected(self) -> bool:
        """Whether the reader has taken every tick away."""
        return self._none and bool(self._names)

    @property
    def selected(self) -> tuple[str, ...] | None:
        """What a request should ask for; None for all organs."""
        chosen = self._chosen()
        return tuple(name for name in self._names if name in chosen) if len(chosen) < len(self._names) else None

    def update(self, model: ModelDescription | None) -> None:
        """Follow the chosen model and the parameter node."""
        if model != self._model:
            self._model, self._none = model, False
            self._names = [label.name for label in model.labels] if model is not None else []
            self._fill()
        if self._named():
            self._none = False
        self._tick()
        reason = "" if self._names else wording.NO_MODEL
        offer(self._ui.allOrgansButton, reason, wording.ALL_ORGANS_TIP)
        offer(self._ui.noOrgansButton, reason, wording.NO_ORGANS_TIP)

    def onTicked(self) -> None:
        """An organ was ticked or its tick taken away."""
        if not self._filling:
            items = [self._ui.organList.item(row) for row in range(len(self._names))]
            ticked = [item.checkState() == qt.Qt.Checked for item in items]
            self._set([name for name, yes in zip(self._names, ticked, strict=True) if yes])

    def onAll(self) -> None:
        """Every organ."""
        self._set(self._names)

    def onNone(self) -> None:
        """No organ, as a start for ticking a few."""
        self._set([])

    def _set(self, names: list[str]) -> None:
        self._none = not names
        if self._context.parameters is not None:
            self._context.parameters.organs = names if len(names) < len(self._names) else []
        self._tick()
        self._changed()

    def _named(self) -> set[str]:
        """What the parameter node names, of this model's organs; another model's names say nothing here."""
        parameters = self._context.parameters
        return set(parameters.organs) & set(self._names) if parameters is not None else set()

    def _chosen(self) -> set[str]:
        return set() if self._none else self._named() or set(self._names)

    def _fill(self) -> None:
        organs = self._ui.organList
        self._filling = True
        organs.clear()
        for label in self._model.labels if self._model is not None else ():
            organs.addItem(label.title)
        self._filling = False

    def _tick(self) -> None:
        chosen = self._chosen()
        self._filling = True
        for row, name in enumerate(self._names):
            self._ui.organList.item(row).setCheckState(qt.Qt.Checked if name in chosen else qt.Qt.Unchecked)
        self._filling = False
