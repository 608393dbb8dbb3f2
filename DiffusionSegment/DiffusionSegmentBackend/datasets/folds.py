"""Folds of first-generation training, which hold out every n-th case; see `case_folds` for stratified folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import DiffusionSegmentError, ErrorCode
from .labelled_cases import Case


@dataclass(frozen=True)
class Fold:
    """Fold `number` (1..count) of `count`: every count-th case is held out; none for a count of 1."""

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
        raise DiffusionSegmentError(ErrorCode.OPTION, f"'{text}' is not a fold.", hint="Write it as 2/5.")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def training(self, cases: Sequence[Case]) -> list[Case]:
        """The training cases.

        Raises:
            DiffusionSegmentError: TRAINING_DATA if there are fewer cases than folds.
        """
        if self.count == 1:
            return list(cases)
        training = [case for n, case in enumerate(cases) if n % self.count != self.number - 1]
        if not training or len(cases) < self.count:
            raise DiffusionSegmentError(
                ErrorCode.TRAINING_DATA,
                f"{len(cases)} case cannot be split into {self.count} folds."
                if len(cases) == 1
                else f"{len(cases)} cases cannot be split into {self.count} folds.",
                hint="Add cases, or choose fewer folds.",
            )
        return training

    def held_out(self, cases: Sequence[Case]) -> list[Case]:
        """The held-out cases."""
        if self.count == 1:
            return []
        return [case for n, case in enumerate(cases) if n % self.count == self.number - 1]


ALL_CASES = Fold()
