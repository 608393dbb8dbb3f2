"""Qt signals as PythonQt has them: a receiver gets as many arguments as its code names, and is kept alive."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from PySide6 import QtCore

_get = object.__getattribute__


class PythonQtSignal:
    """One signal of one object. It is emitted by a call, as C++ would emit it, or by `emit`."""

    def __init__(self, owner: Any, name: str, signal: Any) -> None:
        self._signal = signal
        self._count = _parameterCount(owner, name)
        # With the object, so that connections end with it, and only then: PythonQt holds receivers.
        self._connections = _get(owner, "__dict__").setdefault(f"_connections_{name}", [])

    def connect(self, receiver: Callable[..., Any]) -> None:
        """Call `receiver` with the arguments that PythonQt would pass."""
        slot = _slot(receiver, self._count)
        self._connections.append((receiver, slot))
        self._signal.connect(slot)

    def disconnect(self, receiver: Callable[..., Any]) -> None:
        """Undo one `connect`."""
        index = next(n for n, (known, _) in enumerate(self._connections) if known == receiver)
        self._signal.disconnect(self._connections.pop(index)[1])

    def __call__(self, *arguments: Any) -> None:
        self._signal.emit(*arguments)

    def emit(self, *arguments: Any) -> None:
        """Emit the signal."""
        self(*arguments)


def argumentsFor(receiver: Callable[..., Any], count: int) -> int:
    """How many of `count` arguments PythonQt passes.

    A function gets as many as it names, arguments with a default included; anything else, and *args, gets all.
    """
    function = getattr(receiver, "__func__", receiver)
    code = getattr(function, "__code__", None)
    if code is None or code.co_flags & inspect.CO_VARARGS:
        return count
    return min(count, code.co_argcount - inspect.ismethod(receiver))


def _slot(receiver: Callable[..., Any], count: int) -> Callable[..., None]:
    """A function that names `count` arguments, by which PySide6 knows how many to give."""
    given = argumentsFor(receiver, count)

    def call(*arguments: Any) -> None:
        receiver(*arguments[:given])

    slots: tuple[Callable[..., None], ...] = (
        lambda: call(),
        lambda a: call(a),
        lambda a, b: call(a, b),
        lambda a, b, c: call(a, b, c),
        lambda a, b, c, d: call(a, b, c, d),
    )
    return slots[count]


_counts: dict[tuple[type, str], int] = {}


def _parameterCount(owner: Any, name: str) -> int:
    """Of the longest overload; asked of the object, because a class may lose its own meta-object."""
    key = (type(owner), name)
    if key not in _counts:
        meta = _get(owner, "metaObject")()
        methods = [meta.method(n) for n in range(meta.methodCount())]
        _counts[key] = max(
            method.parameterCount()
            for method in methods
            if method.methodType() == QtCore.QMetaMethod.Signal and bytes(method.name().data()).decode() == name
        )
    return _counts[key]
