"""The module `qt` as PythonQt offers it, made from PySide6: properties are attributes, enumerations are flat.

Strict where PythonQt is: a scoped enumeration such as `qt.QHeaderView.ResizeMode.Stretch` is an error, a property
is not callable, a name that is no property cannot be set, so that a misspelt one does not pass unseen, and constructors
take no keyword arguments. None written to a property of text shows the word "None". Signals are those of `signals.py`;
lists of strings arrive as tuples; there are no custom signals, and `singleShot` is refused.
"""

from __future__ import annotations

import enum
import os
import types
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6 import QtCore, QtGui, QtWidgets

from .signals import PythonQtSignal

_get = object.__getattribute__
# Its static functions differ in what they return; a dialog of our own does not.
_OTHERWISE = {"QInputDialog"}
# A file's functions are static and not static under one name, which PySide6 does not survive when it is looked up here.
_AS_THEY_ARE = {QtCore.QObject, QtCore.QFile}


def _property(self: Any, name: str) -> Any:
    """The value of a Q_PROPERTY; a list as a tuple.

    A virtual getter, as that of a progress bar's text, looks for an override in Python while it is read: what it finds
    must be Qt's own function, or it would read the property again without end.
    """
    being_read = _get(self, "__dict__").setdefault("_beingRead", set())
    if name in being_read:
        return _get(self, name)
    being_read.add(name)
    try:
        value = _get(self, "property")(name)
    finally:
        being_read.discard(name)
    return tuple(value) if isinstance(value, list) else value


class PythonQtObject:
    """Mixed into every QObject class: Q_PROPERTYs read and write as attributes."""

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and _get(self, "metaObject")().indexOfProperty(name) >= 0:
            return _property(self, name)
        if name == "name":
            return _get(self, "objectName")()
        value = _get(self, name)
        return PythonQtSignal(self, name, value) if isinstance(value, QtCore.SignalInstance) else value

    def __setattr__(self, name: str, value: Any) -> None:
        meta = _get(self, "metaObject")()
        index = meta.indexOfProperty(name)
        if not name.startswith("_") and index >= 0:
            if value is None and meta.property(index).typeName() == "QString":
                value = "None"
            if not _get(self, "setProperty")(name, value):
                raise AttributeError(f"cannot write property {name!r}")
            return
        # Subclasses written in Python may keep what they like; Qt's own classes may not.
        if type(self).__dict__.get("_isQtsOwn") and not name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} has no property {name!r}")
        super().__setattr__(name, value)


class ScopedEnum:
    """Stands where PySide6 has an enumeration inside a class; PythonQt has its members in the class itself."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, member: str) -> Any:
        raise AttributeError(f"PythonQt knows no {self._name}.{member}; write it without {self._name}")


class FlatEnums:
    """A namespace whose enumerations' members stand directly in it, as in PythonQt; the enumerations do not."""

    def __init__(self, source: type) -> None:
        for name in dir(source):
            member = getattr(source, name)
            if isinstance(member, type) and issubclass(member, enum.Enum):
                for item in member:
                    setattr(self, str(item.name), item)


def _flattened(cls: type) -> dict[str, Any]:
    """Class attributes that PythonQt has and PySide6 keeps inside enumerations."""
    members: dict[str, Any] = {}
    for name in dir(cls):
        member = getattr(cls, name, None)
        if isinstance(member, type) and issubclass(member, enum.Enum):
            members.update({str(item.name): item for item in member})
            members[name] = ScopedEnum(name)
    return members


def makeQtModule() -> types.ModuleType:
    """A module with the Q classes of QtCore, QtGui and QtWidgets; nothing else of PySide6, such as Signal and Slot."""
    module = types.ModuleType("qt")
    for part in (QtCore, QtGui, QtWidgets):
        for name in dir(part):
            item = getattr(part, name)
            if name.startswith("Q") and isinstance(item, type) and name not in _OTHERWISE:
                setattr(module, name, _pythonQtClass(name, item))
    module.QTimer = _timerClass(module.QTimer)  # type: ignore[attr-defined]
    module.QFileDialog = _fileDialogClass(module.QFileDialog)  # type: ignore[attr-defined]
    module.Qt = FlatEnums(QtCore.Qt)  # type: ignore[attr-defined]
    return module


def _pythonQtClass(name: str, cls: type) -> type:
    if cls in _AS_THEY_ARE:
        return cls
    own = issubclass(cls, QtCore.QObject)
    flattened = _flattened(cls)
    if hasattr(cls, "exec"):
        # PythonQt keeps the name of Python 2, when `exec` was a keyword.
        flattened["exec_"] = lambda self, *arguments: self.exec(*arguments)
    if not own and not flattened:
        return cls

    def init(self: Any, *arguments: Any, **options: Any) -> None:
        if options:
            raise ValueError(f"PythonQt: {name} takes no keyword arguments")
        cls.__init__(self, *arguments)

    members = {**flattened, "__init__": init, "_isQtsOwn": True}
    try:
        return type(name, (PythonQtObject, cls) if own else (cls,), members)
    except TypeError:
        return cls


def _timerClass(timer: Any) -> type:
    """Slicer's own static `singleShot` hides the property of that name, and leaks a timer with each call."""

    class QTimer(timer):
        _isQtsOwn = True

        def __getattribute__(self, name: str) -> Any:
            if name == "singleShot":
                raise AttributeError("singleShot is not what it seems in Slicer; connect timeout, or setSingleShot")
            return super().__getattribute__(name)

        def __setattr__(self, name: str, value: Any) -> None:
            if name == "singleShot":
                raise AttributeError("PythonQt cannot set singleShot; call setSingleShot")
            super().__setattr__(name, value)

        @staticmethod
        def singleShot(*_: Any) -> None:
            raise AttributeError("Slicer's singleShot leaks a timer with each call; keep a QTimer")

    return QTimer


def _fileDialogClass(dialog: Any) -> type:
    """PythonQt returns the chosen files alone, PySide6 a tuple with the filter."""

    class QFileDialog(dialog):
        _isQtsOwn = True

        @staticmethod
        def getOpenFileName(*arguments: Any) -> str:
            return QtWidgets.QFileDialog.getOpenFileName(*arguments)[0]

        @staticmethod
        def getSaveFileName(*arguments: Any) -> str:
            return QtWidgets.QFileDialog.getSaveFileName(*arguments)[0]

        @staticmethod
        def getOpenFileNames(*arguments: Any) -> tuple[str, ...]:
            return tuple(QtWidgets.QFileDialog.getOpenFileNames(*arguments)[0])

    return QFileDialog
