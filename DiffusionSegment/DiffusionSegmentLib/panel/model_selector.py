"""The choice of a model: a search box, and a list whose tool tips state the measured accuracy."""

from collections.abc import Callable
from typing import Any

import qt

from ..scene.installed_models import installedModels, searchModels
from ..scene.terminology import ModelDescription
from . import wording
from .panel_context import PanelContext

_MAX_ORGANS = 12


class ModelSelector:
    """Connects search box and list to the parameter `model`, a name; `chosen` is called after another choice.

    The chosen model stays in the list whatever the search text, so that a search never changes the choice.
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

    def missing(self) -> str:
        """What a request on the input volume still needs, scan or model; empty if nothing."""
        parameters = self._context.parameters
        if parameters is None or parameters.inputVolume is None:
            return wording.NO_INPUT
        if self.model is None:
            return wording.UNKNOWN_MODEL.format(model=parameters.model) if self.models else wording.NO_MODEL
        return ""

    def reload(self) -> None:
        """Read the installed models again."""
        self.models = installedModels()
        self._fill()

    def update(self) -> None:
        """Follow the parameter node."""
        if self._listed(self._matching()) != self._shown:
            self._fill()
        self._choose()

    def onSearch(self, _: str) -> None:
        """List the matching models."""
        self._fill()

    def onReturn(self) -> None:
        """Choose the first matching model."""
        matching = self._matching()
        if matching and self._context.parameters is not None and str(self._ui.modelSearchEdit.text).strip():
            self._context.parameters.model = matching[0]
            self._chosen()

    def onModelChosen(self, _: object) -> None:
        """Store the model; the list is only known at run time, so that no connector of the parameter node fits.

        The argument is not used: it is an index or a text, depending on the version of Qt.
        """
        index = self._ui.modelSelector.currentIndex
        if not self._filling and self._context.parameters is not None and 0 <= index < len(self._shown):
            self._context.parameters.model = self._shown[index]
            self._chosen()

    def _matching(self) -> list[str]:
        return searchModels(self.models, str(self._ui.modelSearchEdit.text))

    def _listed(self, matching: list[str]) -> list[str]:
        """The models in the list: those that match and the chosen one, in their usual order."""
        chosen = self._context.parameters.model if self._context.parameters is not None else ""
        return [name for name in self.models if name in matching or name == chosen]

    def _fill(self) -> None:
        box, matching, text = self._ui.modelSelector, self._matching(), str(self._ui.modelSearchEdit.text).strip()
        self._shown = self._listed(matching)
        titles = [model.title for model in self.models.values()]
        self._filling = True
        box.clear()
        for row, name in enumerate(self._shown):
            model = self.models[name]
            # User models may have the same title.
            ambiguous = titles.count(model.title) > 1
            title = wording.TITLE_AND_NAME.format(title=model.title, name=name)
            box.addItem(title if ambiguous else model.title, name)
            box.setItemData(row, describeModel(model), qt.Qt.ToolTipRole)
        self._filling = False
        self._choose()
        label = self._ui.modelSearchLabel
        label.visible = bool(text) and bool(self.models)
        count = wording.MODELS_MATCHING.format(matching=len(matching), total=len(self.models))
        label.text = count if matching else wording.NO_MATCHING_MODEL

    def _choose(self) -> None:
        """Select the model of the parameter node, or nothing where it is not installed."""
        box, model = self._ui.modelSelector, self.model
        chosen = self._context.parameters.model if self._context.parameters is not None else None
        self._filling = True
        box.currentIndex = self._shown.index(chosen) if chosen in self._shown else -1
        self._filling = False
        box.toolTip = describeModel(model) if model is not None else wording.MODEL_TIP


def describeModel(model: ModelDescription) -> str:
    """Description of a model, one property per line."""
    organs = [label.title for label in model.labels]
    more = len(organs) - _MAX_ORGANS
    named = ", ".join(organs[:_MAX_ORGANS])
    quality, accuracy = model.quality, wording.NO_QUALITY
    if quality is not None:
        accuracy = wording.QUALITY.format(dice=quality.meanDice, scans=quality.cases)
    lines = [
        model.title,
        wording.MODALITY.format(modality=model.modality),
        wording.ORGANS.format(organs=wording.AND_MORE.format(organs=named, more=more) if more > 0 else named),
        accuracy,
        wording.TRAINED_ON.format(data=model.trainingData or wording.NOT_STATED),
        wording.LICENCE.format(licence=model.licence or wording.NOT_STATED),
    ]
    return "\n".join(lines)
