"""The volumes that a message refers to."""

from __future__ import annotations

from dataclasses import fields

from ..protocol.messages import Message, VolumeReference


def volume_references(message: Message) -> dict[str, VolumeReference]:
    """The volumes of a message by field."""
    values = {item.name: getattr(message, item.name) for item in fields(message)}
    return {name: value for name, value in values.items() if isinstance(value, VolumeReference)}
