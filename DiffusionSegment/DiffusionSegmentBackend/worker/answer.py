"""What an engine gives the server before its maps are written to buffers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..imaging.volume import Volume
from ..protocol.messages import Message


@dataclass(frozen=True)
class EngineAnswer:
    """The class of the message, its maps by field, and its other fields."""

    message: type[Message]
    maps: dict[str, Volume]
    values: dict[str, Any] = field(default_factory=dict)


# Takes what can be shown before the answer.
SendEarly = Callable[[EngineAnswer], None]
