"""What a fuzz target is: damaged files for a number, and the code that a user's click would run on them."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Protocol

Content = dict[str, bytes]


class Target(Protocol):
    """Made once a process with an empty `sandbox`; `allowed` names what may lie in it after an input was consumed."""

    allowed: frozenset[str]

    def make(self, rng: Random) -> Content:
        """Damaged files by their path in the sandbox."""

    def consume(self, content: Content) -> None:
        """Do with the files, which lie in the sandbox, what the product does.

        Raises:
            DiffusionSegmentError: they were refused in words.
            Exception: anything else is a failure of the product.
        """


def place(sandbox: Path, content: Content) -> None:
    """Write the files."""
    for name, data in content.items():
        path = sandbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


class Broken(AssertionError):
    """The product accepted an input and answered with something that it promises never to answer."""


def demand(condition: object, what: str) -> None:
    """Refuse an answer that breaks a promise.

    Raises:
        Broken: with `what` is broken.
    """
    if not condition:
        raise Broken(what)
