"""slicer.parameterNodeWrapper in small: typed parameters on a real vtkMRMLScriptedModuleNode, bound to widgets."""

from __future__ import annotations

import enum
import json
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import slicer
import vtk


@dataclass(frozen=True)
class WithinRange:
    """Validator: minimum and maximum, both allowed."""

    minimum: float
    maximum: float

    def check(self, value: float) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value} is not within {self.minimum} and {self.maximum}")


def _split(annotation: Any) -> tuple[type, list[Any]]:
    if typing.get_origin(annotation) is typing.Annotated:
        base, *extras = typing.get_args(annotation)
        return base, extras
    return annotation, []


def _isList(kind: Any) -> bool:
    """A list of strings is the one container that is needed."""
    return kind == list[str]


def _read(node: Any, name: str, kind: type) -> Any:
    if _isList(kind):
        return json.loads(node.GetParameter(name) or "[]")
    if issubclass(kind, slicer.vtkMRMLNode):
        return node.GetNodeReference(name)
    text = node.GetParameter(name)
    if issubclass(kind, enum.Enum):
        return kind[text]
    return text == "True" if kind is bool else kind(text)


def _write(node: Any, name: str, kind: type, value: Any) -> None:
    if _isList(kind):
        node.SetParameter(name, json.dumps(list(value)))
    elif issubclass(kind, slicer.vtkMRMLNode):
        node.SetNodeReferenceID(name, value.GetID() if value is not None else None)
    elif isinstance(value, enum.Enum):
        node.SetParameter(name, value.name)
    else:
        node.SetParameter(name, str(kind(value)))


def _property(name: str, kind: type, validators: list[Any]) -> property:
    def read(self: Any) -> Any:
        return _read(self.parameterNode, name, kind)

    def write(self: Any, value: Any) -> None:
        for validator in validators:
            validator.check(value)
        if read(self) is not value and read(self) != value:
            _write(self.parameterNode, name, kind, value)

    return property(read, write)


def parameterNodeWrapper(cls: type) -> type:
    """Turn annotations into typed parameters; `Wrapper(node)` binds to a vtkMRMLScriptedModuleNode."""
    kinds = {name: _split(annotation) for name, annotation in typing.get_type_hints(cls, include_extras=True).items()}
    defaults = {name: getattr(cls, name) for name in kinds if hasattr(cls, name)}

    def init(self: Any, node: Any) -> None:
        self.__dict__["parameterNode"] = node
        self.__dict__["_bindings"] = {}
        for name, value in defaults.items():
            if node.GetParameter(name) == "":
                _write(node, name, kinds[name][0], value)

    members: dict[str, Any] = {name: _property(name, kind, extras) for name, (kind, extras) in kinds.items()}
    members |= {
        "__init__": init,
        "__doc__": cls.__doc__,
        "_kinds": {name: kind for name, (kind, _) in kinds.items()},
        "connectGui": _connectGui,
        "disconnectGui": _disconnectGui,
        "AddObserver": lambda self, *a: self.parameterNode.AddObserver(*a),
        "RemoveObserver": lambda self, tag: self.parameterNode.RemoveObserver(tag),
    }
    return type(cls.__name__, (), members)


def _connectGui(self: Any, ui: Any) -> int:
    """Bind each widget whose dynamic property SlicerParameterName names a parameter."""
    tag = len(self._bindings) + 1
    undo: list[Callable[[], None]] = []
    for widget in vars(ui).values():
        name = widget.property("SlicerParameterName")
        if name:
            undo.append(_bind(self, widget, str(name)))
    self._bindings[tag] = undo
    return tag


def _disconnectGui(self: Any, tag: int) -> None:
    for action in self._bindings.pop(tag, []):
        action()


def _bind(self: Any, widget: Any, name: str) -> Callable[[], None]:
    kind = self._kinds[name]
    signal, read, show = _connector(widget, kind)
    busy = {"now": False}

    def fromWidget(*_: Any) -> None:
        if not busy["now"]:
            setattr(self, name, read())

    def toWidget(*_: Any) -> None:
        busy["now"] = True
        show(getattr(self, name))
        busy["now"] = False

    toWidget()
    signal.connect(fromWidget)
    observer = self.parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, toWidget)

    def undo() -> None:
        signal.disconnect(fromWidget)
        self.parameterNode.RemoveObserver(observer)

    return undo


def _connector(widget: Any, kind: type) -> tuple[Any, Callable[[], Any], Callable[[Any], None]]:
    if widget.inherits("qMRMLNodeComboBox"):
        return widget.currentNodeChanged, widget.currentNode, widget.setCurrentNode
    if widget.inherits("QComboBox"):
        return _enumConnector(widget, kind)
    if widget.inherits("QCheckBox"):
        return widget.toggled, lambda: widget.checked, widget.setChecked
    return widget.valueChanged, lambda: widget.value, lambda value: widget.setProperty("value", value)


def _enumConnector(widget: Any, kind: type) -> tuple[Any, Callable[[], Any], Callable[[Any], None]]:
    """As in Slicer: the box is filled anew with the members' labels; other types need a fixed list of choices."""
    if not issubclass(kind, enum.Enum):
        raise RuntimeError("ComboBoxToStringableConnector requires the Choice annotation to be used.")
    members = list(kind)
    widget.clear()
    for member in members:
        widget.addItem(member.label() if hasattr(member, "label") else member.name)
    return (
        widget.currentIndexChanged,
        lambda: members[widget.currentIndex],
        lambda value: widget.setCurrentIndex(members.index(value)),
    )
