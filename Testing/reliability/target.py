"""Fuzz targets: damaged files, and the product code that reads them."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Protocol

Content = dict[str, bytes]


class Target(Protocol):
    """Created once per process with an empty `sandbox`; `allowed` are the names that may be in it after an input."""

    allowed: frozenset[str]

    def make(self, rng: Random) -> Content:
        """Damaged files by their paths in the sandbox."""

    def consume(self, content: Content) -> None:
        """Run the product on the files in the sandbox.

        Raises:
            DiffusionSegmentError: the files were refused.
            Exception: any other is a failure of the product.
        """


def write_files(sandbox: Path, content: Content) -> None:
    """Write the files."""
    for name, data in content.items():
        path = sandbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


class Broken(AssertionError):
    """The product accepted an input and returned an invalid result."""


def demand(condition: object, what: str) -> None:
    """Check a result.

    Raises:
        Broken: the condition is false; `what` describes the failure.
    """
    if not condition:
        raise Broken(what)
