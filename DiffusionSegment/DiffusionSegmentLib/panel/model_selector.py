"""The choice of a model: a search box, and a list that says of each model how accurate it was measured to be."""

from collections.abc import Callable
from typing import Any

import qt

from ..scene.installed_models import installedModels, searchModels
from ..scene.terminology import ModelDescription
from . import wording
from .panel_context import PanelContext

_MOST_ORGANS = 12


class ModelSelector:
    """Binds search box and list to the parameter `model`, which keeps a name; `chosen` hears of another choice.

    The chosen model stays in the list whatever is searched for, so that a search never changes the choice.
    """

    def __init__(self, ui: Any, context: PanelContext, chosen: Callable[[], None]) -> None:
        self._ui = ui
        self._context = context
        self._chosen = chosen
        self._filling = False
        self._shown: list[str] = []
        self.models: dict[str, ModelDescription] = installedModels()
        ui.modelSelector.currentIndexChanged.connect(self.onModelChosen)
        ui.modelSearchEdit.textChanged.connect(self.onSearch)
        ui.modelSearchEdit.returnPressed.connect(self.onReturn)
        self._fill()

    @property
    def model(self) -> ModelDescription | None:
        """The chosen model, None where it is not installed."""
        parameters = self._context.parameters
        return self.models.get(parameters.model) if parameters is not None else None

    def reload(self) -> None:
        """Models have come or gone."""
        self.models = installedModels()
        self._fill()

    def update(self) -> None:
        """Follow the parameter node."""
        if self._names(self._found()) != self._shown:
            self._fill()
        self._choose()

    def onSearch(self, _: str) -> None:
        """List what fits the words."""
        self._fill()

    def onReturn(self) -> None:
        """Choose the first model that fits."""
        found = self._found()
        if found and self._context.parameters is not None and str(self._ui.modelSearchEdit.text).strip():
            self._context.parameters.model = found[0]
            self._chosen()

    def onModelChosen(self, _: object) -> None:
        """Remember the model; its list is not known before run time, so no connector of the parameter node fits.

        The argument is not used: it is an index or a text, depending on the version of Qt.
        """
        index = self._ui.modelSelector.currentIndex
        if not self._filling and self._context.parameters is not None and 0 <= index < len(self._shown):
            self._context.parameters.model = self._shown[index]
            self._chosen()

    def _found(self) -> list[str]:
        return searchModels(self.models, str(self._ui.modelSearchEdit.text))

    def _names(self, found: list[str]) -> list[str]:
        """What the list holds: what was found, and the chosen model in any case, all in their usual order."""
        chosen = self._context.parameters.model if self._context.parameters is not None else ""
        return [name for name in self.models if name in found or name == chosen]

    def _fill(self) -> None:
        box, found, text = self._ui.modelSelector, self._found(), str(self._ui.modelSearchEdit.text).strip()
        self._shown = self._names(found)
        titles = [model.title for model in self.models.values()]
        self._filling = True
        box.clear()
        for row, name in enumerate(self._shown):
            model = self.models[name]
            # The user's own models may have one title.
            twice = titles.count(model.title) > 1
            title = wording.TITLE_AND_NAME.format(title=model.title, name=name)
            box.addItem(title if twice else model.title, name)
            box.setItemData(row, describeModel(model), qt.Qt.ToolTipRole)
        self._filling = False
        self._choose()
        label = self._ui.modelSearchLabel
        label.visible = bool(text) and bool(self.models)
        count = wording.MODELS_FOUND.format(found=len(found), total=len(self.models))
        label.text = count if found else wording.NO_MODEL_FOUND

    def _choose(self) -> None:
        """Bring the list to the parameter node; a model that is not installed leaves it without a choice."""
        box, model = self._ui.modelSelector, self.model
        chosen = self._context.parameters.model if self._context.parameters is not None else None
        self._filling = True
        box.currentIndex = self._shown.index(chosen) if chosen in self._shown else -1
        self._filling = False
        box.toolTip = describeModel(model) if model is not None else wording.MODEL_TIP


def describeModel(model: ModelDescription) -> str:
    """What a reader should know before using a model, one thing a line."""
    organs = [label.title for label in model.labels]
    more = len(organs) - _MOST_ORGANS
    named = ", ".join(organs[:_MOST_ORGANS])
    quality, worth = model.quality, wording.NO_QUALITY
    if quality is not None:
        worth = wording.QUALITY.format(dice=quality.meanDice, scans=quality.cases)
    lines = [
        model.title,
        wording.MODALITY.format(modality=model.modality),
        wording.ORGANS.format(organs=wording.AND_MORE.format(organs=named, more=more) if more > 0 else named),
        worth,
        wording.TRAINED_ON.format(data=model.trainingData or wording.NOT_STATED),
        wording.LICENCE.format(licence=model.licence or wording.NOT_STATED),
    ]
    return "\n".join(lines)
