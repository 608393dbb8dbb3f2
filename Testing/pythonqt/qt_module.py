"""The module `qt` as PythonQt offers it, made from PySide6: properties are attributes, enumerations are flat.

Strict where PythonQt is: a scoped enumeration such as `qt.QHeaderView.ResizeMode.Stretch` is an error, a property
is not callable, and a name that is no property cannot be set, so that a misspelt one does not pass unseen.
"""

from __future__ import annotations

import enum
import os
import types
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6 import QtCore, QtGui, QtWidgets

_get = object.__getattribute__


class PythonQtObject:
    """Mixed into every QObject class: Q_PROPERTYs read and write as attributes."""

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and _get(self, "metaObject")().indexOfProperty(name) >= 0:
            return _get(self, "property")(name)
        if name == "name":
            return _get(self, "objectName")()
        return _get(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and _get(self, "metaObject")().indexOfProperty(name) >= 0:
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
    """A module with every Q class of QtCore, QtGui and QtWidgets."""
    module = types.ModuleType("qt")
    for part in (QtCore, QtGui, QtWidgets):
        for name in dir(part):
            item = getattr(part, name)
            if name.startswith("Q") and isinstance(item, type):
                setattr(module, name, _pythonQtClass(name, item))
    module.Qt = FlatEnums(QtCore.Qt)  # type: ignore[attr-defined]
    return module


def _pythonQtClass(name: str, cls: type) -> type:
    if not issubclass(cls, QtCore.QObject) or cls is QtCore.QObject:
        return cls
    try:
        return type(name, (PythonQtObject, cls), {**_flattened(cls), "_isQtsOwn": True})
    except TypeError:
        return cls
