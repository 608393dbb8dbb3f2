"""Tables on disk: CSV for spreadsheets and Parquet for programs, written row by row and replaced as a whole."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ..imaging.atomic_writes import staged_file
from .columns import Column

Row = dict[str, Any]
_BATCH = 5000
# Spreadsheets take a text that begins with one of these for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\0")
_ARROW_TYPES = {"text": "string", "number": "float64", "integer": "int64"}


class TableWriter:
    """Takes the rows of one table."""

    def __init__(self, columns: Sequence[Column], csv_file: Any, parquet: Any) -> None:
        self._columns, self._parquet = columns, parquet
        self._names = [column.name for column in columns]
        self._csv = csv.writer(csv_file, lineterminator="\r\n")
        self._csv.writerow(self._names)
        self._batch: list[Row] = []

    def add(self, row: Row) -> None:
        """Write a row; columns that it lacks are null."""
        self._csv.writerow([csv_cell(row.get(name)) for name in self._names])
        self._batch.append(row)
        if len(self._batch) >= _BATCH:
            self.flush()

    def flush(self) -> None:
        """Write the rows that wait for the next group of Parquet rows."""
        if self._parquet is not None:
            import pyarrow

            arrays = {
                column.name: [_typed(row.get(column.name), column) for row in self._batch] for column in self._columns
            }
            self._parquet.write_table(pyarrow.Table.from_pydict(arrays, schema=self._parquet.schema))
        self._batch = []


@contextmanager
def table(
    folder: Path, name: str, columns: Sequence[Column], metadata: dict[str, str], *, parquet: bool = True
) -> Iterator[TableWriter]:
    """A writer of `name`.csv and, where pyarrow is installed, `name`.parquet with `metadata`; both replace older ones.

    Raises:
        DiffusionSegmentError: DISK_FULL or OUTPUT_UNWRITABLE; older tables stay as they were.
    """
    with ExitStack() as stack:
        partial = stack.enter_context(staged_file(folder / f"{name}.csv"))
        # With a byte order mark, Excel reads UTF-8.
        csv_file = stack.enter_context(open(partial, "w", newline="", encoding="utf-8-sig", errors="replace"))
        groups = None
        if parquet and has_parquet():
            staged = stack.enter_context(staged_file(folder / f"{name}.parquet"))
            groups = stack.enter_context(_parquet(staged, columns, metadata))
        writer = TableWriter(columns, csv_file, groups)
        yield writer
        writer.flush()


def write_table(
    folder: Path, name: str, columns: Sequence[Column], rows: Iterable[Row], metadata: dict[str, str]
) -> None:
    """Write a table at once; raises as `table`."""
    with table(folder, name, columns, metadata) as writer:
        for row in rows:
            writer.add(row)


def has_parquet() -> bool:
    """Whether pyarrow, of the extra `cohort`, is installed."""
    from importlib.util import find_spec

    return find_spec("pyarrow") is not None


def _parquet(path: Path, columns: Sequence[Column], metadata: dict[str, str]) -> Any:
    import pyarrow
    import pyarrow.parquet

    types = {kind: pyarrow.type_for_alias(alias) for kind, alias in _ARROW_TYPES.items()}
    fields = [
        pyarrow.field(column.name, types[column.kind], metadata={"meaning": column.meaning}) for column in columns
    ]
    return pyarrow.parquet.ParquetWriter(path, pyarrow.schema(fields, metadata=metadata), compression="zstd")


def _typed(value: Any, column: Column) -> Any:
    if value is None:
        return None
    if column.kind == "text":
        return str(value).encode("utf-8", errors="replace").decode()
    return float(value) if column.kind == "number" else int(value)


def csv_cell(value: Any) -> str:
    """A value as it is written: empty for null; a text that a spreadsheet would compute begins with an apostrophe."""
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    return repr(value)
