"""The organs to segment: a list with check boxes and the buttons All and None."""

from collections.abc import Callable
from typing import Any

import qt

from ..scene.terminology import ModelDescription
from . import wording
from .check_box_frames import frameCheckBoxes
from .panel_context import PanelContext, offer


class OrganList:
    """Connects the list to the parameter `organs`, names or none for all; `changed` is called after every change."""

    def __init__(self, ui: Any, context: PanelContext, changed: Callable[[], None]) -> None:
        self._ui = ui
        self._context = context
        self._changed = changed
        self._model: ModelDescription | None = None
        self._names: list[str] = []
        self._filling = False
        # Not in the parameter, in which no name means all.
        self._none = False
        frameCheckBoxes(ui.organList)
        ui.organList.itemChanged.connect(self.onItemChanged)
        ui.allOrgansButton.clicked.connect(self.onAll)
        ui.noOrgansButton.clicked.connect(self.onNone)
        self.update(None)

    @property
    def noneSelected(self) -> bool:
        """Whether all organs are unchecked."""
        return self._none and bool(self._names)

    @property
    def selected(self) -> tuple[str, ...] | None:
        """The organs of a request; None for all."""
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
        self._check()
        reason = "" if self._names else wording.NO_MODEL
        offer(self._ui.allOrgansButton, reason, wording.ALL_ORGANS_TIP)
        offer(self._ui.noOrgansButton, reason, wording.NO_ORGANS_TIP)

    def onItemChanged(self) -> None:
        """An organ was checked or unchecked."""
        if not self._filling:
            items = [self._ui.organList.item(row) for row in range(len(self._names))]
            checked = [item.checkState() == qt.Qt.Checked for item in items]
            self._set([name for name, isChecked in zip(self._names, checked, strict=True) if isChecked])

    def onAll(self) -> None:
        """Check every organ."""
        self._set(self._names)

    def onNone(self) -> None:
        """Uncheck every organ."""
        self._set([])

    def _set(self, names: list[str]) -> None:
        self._none = not names
        if self._context.parameters is not None:
            self._context.parameters.organs = names if len(names) < len(self._names) else []
        self._check()
        self._changed()

    def _named(self) -> set[str]:
        """The organs of this model among those of the parameter node."""
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

    def _check(self) -> None:
        chosen = self._chosen()
        self._filling = True
        for row, name in enumerate(self._names):
            self._ui.organList.item(row).setCheckState(qt.Qt.Checked if name in chosen else qt.Qt.Unchecked)
        self._filling = False
