"""The conformal margin of an organ, in model.json and report.json."""

from __future__ import annotations

from dataclasses import dataclass

from .dataclass_json import SchemaError


@dataclass(frozen=True, kw_only=True)
class OrganMargin:
    """Dilated by `mm`, a segmentation of an organ contains the share `contained` of it in a share `coverage` of scans.

    From `scans` out-of-fold segmentations that show the organ; `missed` more show nothing of it, for which no margin
    holds (Mossina and Friedrich, arXiv 2503.05618).
    """

    mm: float
    contained: float
    coverage: float
    scans: int
    missed: int = 0

    def __post_init__(self) -> None:
        if self.mm < 0 or not (0 < self.contained <= 1 and 0 < self.coverage < 1):
            raise SchemaError("a margin is at least 0 mm, for shares of 0 to 1")
