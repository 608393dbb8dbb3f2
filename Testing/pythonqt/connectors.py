"""How a parameter is shown in a widget and read from it: the connectors of Slicer that the panel needs."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass
class Connector:
    """One widget: the signal that it changes by, what it holds, and how it is made to show a value."""

    signal: Any
    read: Callable[[], Any]
    show: Callable[[Any], None]
    _receiver: Callable[..., None] | None = None

    def connect(self, changed: Callable[[], None]) -> None:
        """Call `changed` when the widget changes."""
        self._receiver = lambda: changed()
        self.signal.connect(self._receiver)

    def disconnect(self) -> None:
        """Disconnect the receiver."""
        if self._receiver is not None:
            self.signal.disconnect(self._receiver)
            self._receiver = None


def makeConnector(widget: Any, kind: Any, validators: Sequence[Any]) -> Connector:
    """The connector for a widget of exactly the right class.

    Raises:
        RuntimeError: there is none for this widget and this type.
    """
    name = type(widget).__name__
    if kind is bool and name == "QCheckBox":
        return Connector(widget.stateChanged, lambda: widget.checked, widget.setChecked)
    if (kind is int and name in ("QSpinBox", "QSlider")) or (
        kind is float and name in ("QDoubleSpinBox", "ctkSliderWidget")
    ):
        return _numberConnector(widget, validators)
    if name == "QComboBox" and isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _enumConnector(widget, kind)
    if name == "qMRMLNodeComboBox" and isinstance(kind, type) and hasattr(kind, "GetClassName"):
        widget.nodeTypes = [kind.__name__]
        return Connector(widget.currentNodeChanged, widget.currentNode, widget.setCurrentNode)
    if name == "QComboBox":
        raise RuntimeError("ComboBoxToStringableConnector requires the Choice annotation to be used.")
    raise RuntimeError(f"Unable to create GUI connector from datatype '{kind}' to widget type '{name}'")


def _numberConnector(widget: Any, validators: Sequence[Any]) -> Connector:
    """The widget takes its range from the annotation; a slider must have one."""
    if validators:
        widget.minimum, widget.maximum = validators[0].minimum, validators[0].maximum
    elif "lider" in type(widget).__name__:
        raise RuntimeError("Cannot have a connection to a slider where the type is unbounded.")

    def show(value: float) -> None:
        widget.value = value

    return Connector(widget.valueChanged, lambda: widget.value, show)


def _enumConnector(widget: Any, kind: type[enum.Enum]) -> Connector:
    """The box is filled with the members' labels."""
    members = list(kind)
    widget.clear()
    for member in members:
        widget.addItem(member.label() if hasattr(member, "label") else member.name)
    return Connector(
        widget.currentIndexChanged,
        lambda: members[widget.currentIndex],
        lambda value: widget.setCurrentIndex(members.index(value)),
    )
