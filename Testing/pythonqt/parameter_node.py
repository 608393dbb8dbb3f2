"""`slicer.parameterNodeWrapper`, which slicer-core does not ship: typed parameters on a real vtkMRMLScriptedModuleNode.

What the real one does and a simpler one would not:
- values are cached, node references too, and read again only when the node says that it was modified. A scene that is
  imported fills a singleton before the nodes that it refers to exist, and the cache is not notified of them;
- a parameter that the node does not have (a scene was closed, an older scene was loaded) gets its default when read;
- types are checked on writing: an int is no bool, a float may be an int, a node must be of its class or None;
- a list is no `list`: it can be changed item by item, which writes it, but not added to another;
- `connectGui` returns nothing that could disconnect its widgets again; `connectParametersToGui` returns a tag;
- every modification writes all values into all connected widgets, and a widget's range comes from the annotation;
- widgets are distinguished by their exact class, and a combo box of texts needs a fixed list of choices.
"""

from __future__ import annotations

import enum
import typing
import weakref
from collections.abc import Callable, Iterable, MutableSequence
from dataclasses import dataclass
from typing import Any

import slicer
import slicer.util
import vtk

from .connectors import Connector, makeConnector

_MODIFIED = vtk.vtkCommand.ModifiedEvent


@dataclass(frozen=True)
class WithinRange:
    """Validator: minimum and maximum, both allowed."""

    minimum: float
    maximum: float

    def validate(self, value: float) -> None:
        """Raise ValueError where the value lies outside."""
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value} is not within {self.minimum} and {self.maximum}")


class ObservedList(MutableSequence[str]):
    """A list that writes itself into the parameter node when it is changed."""

    def __init__(self, values: Iterable[str], save: Callable[[list[str]], None]) -> None:
        self._values = list(values)
        self._save = save

    def __getitem__(self, index: Any) -> Any:
        return self._values[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self._values[index] = value
        self._save(self._values)

    def __delitem__(self, index: Any) -> None:
        del self._values[index]
        self._save(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        return self._values == (other._values if isinstance(other, ObservedList) else other)

    def insert(self, index: int, value: str) -> None:
        """Insert and write."""
        self._values.insert(index, value)
        self._save(self._values)


@dataclass(frozen=True)
class _Parameter:
    name: str
    kind: Any
    validators: tuple[WithinRange, ...]
    default: Any

    @property
    def isList(self) -> bool:
        return bool(self.kind == list[str])

    def isIn(self, node: Any) -> bool:
        return bool(node.HasParameter(f"{self.name}_len" if self.isList else self.name))

    def read(self, node: Any) -> Any:
        if not self.isIn(node):
            self.write(node, self.default)
        if self.isList:
            count = int(node.GetParameter(f"{self.name}_len"))
            values = [node.GetParameter(f"{self.name}_{n}") for n in range(count)]
            return ObservedList(values, lambda changed: self.write(node, changed))
        if issubclass(self.kind, slicer.vtkMRMLNode):
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        if issubclass(self.kind, enum.Enum):
            return self.kind[text]
        return text == "True" if self.kind is bool else self.kind(text)

    def write(self, node: Any, value: Any) -> None:
        self._check(value)
        with slicer.util.NodeModify(node):
            if self.isList:
                for n, text in enumerate(value):
                    node.SetParameter(f"{self.name}_{n}", text)
                node.SetParameter(f"{self.name}_len", str(len(value)))
            elif issubclass(self.kind, slicer.vtkMRMLNode):
                node.SetParameter(self.name, "")
                node.SetNodeReferenceID(self.name, value.GetID() if value is not None else None)
            else:
                node.SetParameter(self.name, value.name if isinstance(value, enum.Enum) else str(value))

    def _check(self, value: Any) -> None:
        for validator in self.validators:
            validator.validate(value)
        if self.isList:
            allowed: Any = (list, tuple, ObservedList)
        elif issubclass(self.kind, slicer.vtkMRMLNode):
            allowed = (self.kind, type(None))
        else:
            allowed = (int, float) if self.kind is float else self.kind
        if not isinstance(value, allowed):
            raise TypeError(f"{self.name}: {value!r} is no {self.kind}")


class _Cached:
    """One parameter of one node: its last value, read again when the node was modified from elsewhere."""

    def __init__(self, parameter: _Parameter, node: Any) -> None:
        self._parameter, self._node = parameter, node
        self._writing = False
        self.value = parameter.read(node)
        reference = weakref.ref(self)

        def onModified(*_: Any) -> None:
            cached = reference()
            if cached is not None and not cached._writing:
                cached.value = parameter.read(node)

        self._tag = node.AddObserver(_MODIFIED, onModified)

    def __del__(self) -> None:
        self._node.RemoveObserver(self._tag)

    def write(self, value: Any) -> None:
        self._writing = True
        try:
            # The value is read back before any observer is called.
            with slicer.util.NodeModify(self._node):
                self._parameter.write(self._node, value)
                self.value = self._parameter.read(self._node)
        finally:
            self._writing = False


class _Wrapper:
    """Base of every class that `parameterNodeWrapper` decorates."""

    _parameters: typing.ClassVar[dict[str, _Parameter]]

    def __init__(self, node: Any) -> None:
        self.parameterNode = node
        self._connected: dict[int, dict[str, Connector]] = {}
        self._nextTag = 0
        self._updating = False
        self._cache = {name: _Cached(parameter, node) for name, parameter in self._parameters.items()}

    def StartModify(self) -> Any:
        """Collect modifications."""
        return self.parameterNode.StartModify()

    def EndModify(self, wasModifying: Any) -> None:
        """Send one event for the modifications that were collected."""
        self.parameterNode.EndModify(wasModifying)

    def AddObserver(self, event: Any, receiver: Any, priority: float = 0.0) -> int:
        """Observe the node."""
        return int(self.parameterNode.AddObserver(event, receiver, priority))

    def RemoveObserver(self, tag: int) -> None:
        """Stop observing the node."""
        self.parameterNode.RemoveObserver(tag)

    def Modified(self) -> None:
        """Notify all observers, the cache among them."""
        self.parameterNode.Modified()

    def connectGui(self, ui: Any) -> None:
        """Bind each widget whose dynamic property SlicerParameterName names a parameter; returns no tag."""
        named = {widget.property("SlicerParameterName"): widget for widget in vars(ui).values()}
        self.connectParametersToGui({str(name): widget for name, widget in named.items() if name})

    def connectParametersToGui(self, widgets: dict[str, Any]) -> int:
        """Bind widgets by the names of their parameters."""
        connectors = {
            name: makeConnector(widget, self._parameters[name].kind, self._parameters[name].validators)
            for name, widget in widgets.items()
        }
        self._nextTag += 1
        self._connected[self._nextTag] = connectors
        for name, connector in connectors.items():
            connector.show(self._cache[name].value)
            connector.connect(self._writer(name, connector))
        self.AddObserver(_MODIFIED, lambda *_: self._showAll())
        return self._nextTag

    def disconnectGui(self, tag: int | None) -> None:
        """Disconnect the widgets of a tag; an unknown tag, such as None, is ignored."""
        for connector in self._connected.pop(typing.cast(int, tag), {}).values():
            connector.disconnect()

    def _writer(self, name: str, connector: Connector) -> Callable[[], None]:
        def fromWidget() -> None:
            with slicer.util.NodeModify(self):
                if not self._updating:
                    self._cache[name].write(connector.read())

        return fromWidget

    def _showAll(self) -> None:
        if self._updating:
            return
        self._updating = True
        try:
            with slicer.util.NodeModify(self):
                for connectors in self._connected.values():
                    for name, connector in connectors.items():
                        connector.show(self._cache[name].value)
        finally:
            self._updating = False


def parameterNodeWrapper(cls: type) -> type:
    """Turn annotations into typed parameters; `Wrapper(node)` binds to a vtkMRMLScriptedModuleNode."""
    parameters = {}
    members: dict[str, Any] = {"__doc__": cls.__doc__, "__module__": cls.__module__, "_parameters": parameters}
    for name, annotation in typing.get_type_hints(cls, include_extras=True).items():
        kind, validators = annotation, ()
        if typing.get_origin(annotation) is typing.Annotated:
            kind, *extras = typing.get_args(annotation)
            validators = tuple(extras)
        parameters[name] = _Parameter(
            name, kind, validators, getattr(cls, name) if hasattr(cls, name) else _first(kind)
        )
        members[name] = _property(name)
    return type(cls.__name__, (_Wrapper,), members)


def _property(name: str) -> property:
    return property(lambda self: self._cache[name].value, lambda self, value: self._cache[name].write(value))


def _first(kind: Any) -> Any:
    """The default of a parameter whose class gives none."""
    if kind == list[str]:
        return []
    if issubclass(kind, slicer.vtkMRMLNode):
        return None
    return next(iter(kind)) if issubclass(kind, enum.Enum) else kind()
