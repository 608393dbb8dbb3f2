"""The result file of an evaluation, read and validated."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DiffusionSegmentError, ErrorCode, unknown_name
from .result_files import FORMAT, FORMAT_VERSION
from .scores import Scores
from .summary import DICE, SURFACE_DICE, VOX2VEC_DICE

_NEXT_STEP = "Name JSON files that `evaluate` wrote."


@dataclass(frozen=True)
class StoredEvaluation:
    """A result file; `cases`: case -> variant -> organ -> its values, `true_ml`: case -> organ -> mL."""

    path: Path
    model: str
    variants: tuple[str, ...]
    output_variant: str
    organs: tuple[str, ...]
    cases: dict[str, dict[str, dict[str, dict[str, float | None]]]]
    true_ml: dict[str, dict[str, float]]

    def scores(self, variant: str, measure: str) -> Scores:
        """Case -> organ -> score 0..1 of a variant; organs without a score are omitted."""
        return {
            case: {o: value for o, one in variants[variant].items() if (value := one.get(measure)) is not None}
            for case, variants in self.cases.items()
        }

    def checked_variant(self, name: str | None) -> str:
        """The variant of that name; for None the one that `segment` outputs, or else the last that was measured.

        Raises:
            DiffusionSegmentError: OPTION for a variant that is not in the file.
        """
        if name is None:
            return self.output_variant if self.output_variant in self.variants else self.variants[-1]
        if name not in self.variants:
            if len(self.variants) > 1:
                raise unknown_name(f"variant in {self.path}", name, self.variants)
            what = f"{self.path} holds no variant '{name}'."
            raise DiffusionSegmentError(ErrorCode.OPTION, what, hint=f"It holds {self.variants[0]} alone.")
        return name


def read_evaluation(path: Path) -> StoredEvaluation:
    """Read and check a result file.

    Raises:
        DiffusionSegmentError: INPUT_MISSING; INPUT_UNREADABLE for invalid JSON; INPUT_VALUES for a file of another kind
            or version, or with invalid values.
    """
    raw = _load(path)
    _check_format(raw, path)
    try:
        return StoredEvaluation(
            path=path,
            model=str(raw["model"]),
            variants=tuple(str(name) for name in raw["variants"]),
            output_variant=str(raw["answer"]),
            organs=tuple(str(name) for name in raw["organs"]),
            cases={str(name): _variants(case, raw["variants"]) for name, case in raw["by_case"].items()},
            true_ml={
                str(name): {str(organ): _ml(value) for organ, value in case["true_ml"].items()}
                for name, case in raw["by_case"].items()
            },
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_VALUES,
            f"{path} is damaged ({type(error).__name__}: {error}).",
            hint="Run `evaluate` again.",
        ) from error


def _variants(case: dict[str, Any], names: list[str]) -> dict[str, dict[str, dict[str, float | None]]]:
    measures = (DICE, SURFACE_DICE, VOX2VEC_DICE)
    return {
        name: {
            str(organ): {measure: _score(one[measure]) for measure in measures if measure in one}
            for organ, one in case["variants"][name].items()
        }
        for name in names
    }


def _score(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    if not 0 <= number <= 1:
        raise ValueError(f"{number} is not a score of 0 to 1")
    return number


def _ml(value: Any) -> float:
    number = float(value)
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{number} is not a volume")
    return number


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError as error:
        raise DiffusionSegmentError(ErrorCode.INPUT_MISSING, f"{path} does not exist.", hint=_NEXT_STEP) from error
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not JSON"
        raise DiffusionSegmentError(
            ErrorCode.INPUT_UNREADABLE, f"{path} cannot be read ({reason}).", hint=_NEXT_STEP
        ) from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _check_format(raw: Any, path: Path) -> None:
    known = raw if isinstance(raw, dict) else {}
    if known.get("format") == FORMAT and known.get("format_version") == FORMAT_VERSION:
        return
    if known.get("format") == FORMAT:
        what = f"{path} has the format version {known.get('format_version')}, and this program reads {FORMAT_VERSION}."
        hint = "Run `evaluate` again with this version, or install the version that wrote the file."
    elif "mean_dice" in known and isinstance(known.get("by_case"), list):
        what = f"{path} was written by an older version, which did not name organs."
        hint = "Run `evaluate` again."
    else:
        what, hint = f"{path} is not a result of `evaluate`.", _NEXT_STEP
    raise DiffusionSegmentError(ErrorCode.INPUT_VALUES, what, hint=hint)
