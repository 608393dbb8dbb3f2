"""Cross-fitting: which cases train and which are held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import DiffusionSegmentError, ErrorCode
from .labelled_cases import Case


@dataclass(frozen=True)
class Fold:
    """Fold `number` (1..count) of `count`: every count-th case by order is held out; a count of 1 holds out none."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Fold:
        """From "2/5".

        Raises:
            DiffusionSegmentError: OPTION.
        """
        parts = text.split("/")
        if len(parts) == 2 and all(part.isdigit() for part in parts) and 1 <= int(parts[0]) <= int(parts[1]):
            return cls(int(parts[0]), int(parts[1]))
        raise DiffusionSegmentError(ErrorCode.OPTION, f"'{text}' is no fold.", hint="Write it as 2/5.")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def training(self, cases: Sequence[Case]) -> list[Case]:
        """The cases to train on.

        Raises:
            DiffusionSegmentError: TRAINING_DATA when none or no other is left.
        """
        if self.count == 1:
            return list(cases)
        kept = [case for n, case in enumerate(cases) if n % self.count != self.number - 1]
        if not kept or len(cases) < self.count:
            raise DiffusionSegmentError(
                ErrorCode.TRAINING_DATA,
                f"{len(cases)} case cannot be split into {self.count} folds."
                if len(cases) == 1
                else f"{len(cases)} cases cannot be split into {self.count} folds.",
                hint="Add cases, or choose fewer folds.",
            )
        return kept

    def held_out(self, cases: Sequence[Case]) -> list[Case]:
        """The cases that training did not see."""
        if self.count == 1:
            return []
        return [case for n, case in enumerate(cases) if n % self.count == self.number - 1]


ALL_CASES = Fold()
