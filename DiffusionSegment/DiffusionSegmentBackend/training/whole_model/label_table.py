"""Labels of a new model from a CSV file: value and name, optionally SNOMED CT code, side and colour."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import DiffusionSegmentError, ErrorCode
from ...models.folders import bundled_models_folder
from ...models.manifest import DESCRIPTION_FILE
from ...schema.model_manifest import MAX_LABELS
from ..fine_tuned_model import COLOURS, TISSUE, machine_name

COLUMNS = ("value", "name", "code", "meaning", "side", "colour")
_NEEDED = COLUMNS[:2]
_MAX_BYTES = 1_000_000
_STRUCTURE = {"scheme": "SCT", "value": "123037004", "meaning": "Anatomical Structure"}
_SIDES = {
    "left": {"scheme": "SCT", "value": "7771000", "meaning": "Left"},
    "right": {"scheme": "SCT", "value": "24028007", "meaning": "Right"},
}
_CODE = re.compile(r"\d{6,18}")
_HEX = re.compile(r"#?([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})")
_RGB = re.compile(r"(\d{1,3})[ /]+(\d{1,3})[ /]+(\d{1,3})")


@dataclass(frozen=True)
class LabelTable:
    """A CSV file of labels. The header is row 1, as in a spreadsheet."""

    path: Path

    def read(self) -> list[dict[str, Any]]:
        """Entries of `labels` in model.json, sorted by value.

        Empty cells are filled from the label of that name in a bundled model, else with the code "Tissue" and a
        distinct colour.

        Raises:
            DiffusionSegmentError: INPUT_MISSING, or TRAINING_DATA with the row.
        """
        known = _bundled_labels()
        labels: dict[int, dict[str, Any]] = {}
        rows: dict[int, int] = {}
        for number, cells in self._rows():
            value = self._value(number, cells["value"])
            label = self._label(number, value, cells, known)
            for other, earlier in labels.items():
                if other == value or earlier["name"] == label["name"]:
                    what = f"value {value}" if other == value else f"name '{label['name']}'"
                    raise self._wrong(number, f"the {what} is that of row {rows[other]} as well")
            labels[value], rows[value] = label, number
        for expected, value in enumerate(sorted(labels), start=1):
            if value != expected:
                raise self._wrong(
                    rows[value], f"the value {value} comes without {expected}; number labels 1, 2, 3, ..."
                )
        return [labels[value] for value in sorted(labels)]

    def _rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        if not self.path.is_file():
            raise DiffusionSegmentError(
                ErrorCode.INPUT_MISSING, f"There is no label table {self.path}.", hint="Check the path of --labels."
            )
        if self.path.stat().st_size > _MAX_BYTES:
            raise self._wrong(1, "the file is larger than 1 MB")
        try:
            text = self.path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise self._wrong(1, "the file is not text in UTF-8") from error
        lines = text.splitlines()
        delimiter = ";" if lines and ";" in lines[0] else ","
        try:
            table = list(csv.reader(lines, delimiter=delimiter, strict=True))
        except csv.Error as error:
            raise self._wrong(len(lines), f"it is no CSV ({error})") from error
        header = self._header([cell.strip().lower() for cell in table[0]] if table else [])
        filled = [(n, row) for n, row in enumerate(table[1:], start=2) if any(cell.strip() for cell in row)]
        if not filled:
            raise self._wrong(2, "there is no label")
        for number, row in filled:
            if len(row) > len(header):
                raise self._wrong(number, f"there are {len(row)} cells, the header has {len(header)}")
            cells = dict.fromkeys(COLUMNS, "")
            yield number, cells | {name: cell.strip() for name, cell in zip(header, row, strict=False)}

    def _header(self, header: list[str]) -> list[str]:
        unknown = [name for name in header if name not in COLUMNS]
        missing = [name for name in _NEEDED if name not in header]
        if unknown or missing or len(set(header)) < len(header):
            what = f"there is no column '{unknown[0]}'" if unknown else f"the columns {', '.join(_NEEDED)} are needed"
            raise self._wrong(1, f"{what}; columns are {', '.join(COLUMNS)}")
        return header

    def _value(self, number: int, text: str) -> int:
        if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= MAX_LABELS:
            raise self._wrong(number, f"the value '{text[:40]}' is not a whole number from 1 to {MAX_LABELS}")
        return int(text)

    def _label(
        self, number: int, value: int, cells: Mapping[str, str], known: Mapping[str, dict[str, Any]]
    ) -> dict[str, Any]:
        given = cells["name"]
        try:
            name = machine_name(given)
        except DiffusionSegmentError as error:
            raise self._wrong(number, f"'{given[:40]}' cannot be a name; use 1 to 60 letters and digits") from error
        title = given.replace("_", " ").strip()
        fresh = {
            "title": title[:1].upper() + title[1:],
            "category": TISSUE,
            "code": TISSUE,
            "colour": list(COLOURS[(value - 1) % len(COLOURS)]),
        }
        label = {"value": value, "name": name, **fresh, **known.get(name, {})}
        if cells["code"]:
            if not _CODE.fullmatch(cells["code"]):
                raise self._wrong(number, f"the code '{cells['code'][:40]}' is no SNOMED CT number")
            meaning = cells["meaning"] or label["title"]
            label |= {"category": _STRUCTURE, "code": {"scheme": "SCT", "value": cells["code"], "meaning": meaning}}
            label.pop("modifier", None)
        if cells["side"]:
            if cells["side"].lower() not in _SIDES:
                raise self._wrong(number, f"the side '{cells['side'][:40]}' is neither left nor right")
            label["modifier"] = _SIDES[cells["side"].lower()]
        if cells["colour"]:
            label["colour"] = self._colour(number, cells["colour"])
        return label

    def _colour(self, number: int, text: str) -> list[int]:
        hexadecimal, decimal = _HEX.fullmatch(text), _RGB.fullmatch(text)
        parts = [int(n, 16) for n in hexadecimal.groups()] if hexadecimal else []
        parts = [int(n) for n in decimal.groups()] if decimal else parts
        if not parts or max(parts) > 255:
            raise self._wrong(number, f"the colour '{text[:40]}' is neither #rrggbb nor three numbers from 0 to 255")
        return parts

    def _wrong(self, number: int, what: str) -> DiffusionSegmentError:
        return DiffusionSegmentError(
            ErrorCode.TRAINING_DATA,
            f"{self.path}, row {number}: {what}.",
            hint="docs/MODELS.md has an example.",
        )


def _bundled_labels() -> dict[str, dict[str, Any]]:
    """Labels of the bundled models by name, without value and body position."""
    known: dict[str, dict[str, Any]] = {}
    for path in sorted(bundled_models_folder().glob(f"*/{DESCRIPTION_FILE}")):
        for label in json.loads(path.read_text(encoding="utf-8"))["labels"]:
            kept = {key: label[key] for key in ("title", "category", "code", "modifier", "colour") if key in label}
            known.setdefault(label["name"], kept)
    return known
