"""The result file of a benchmark: one row per method and scan, and how to repeat it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.atomic_writes import write_text

KIND = "benchmark"


@dataclass(frozen=True, kw_only=True)
class BenchmarkRow:
    """One method on one scan.

    None stands for what was not measured.

    Attributes:
        scan: slices, rows and columns.
        spacing_mm: spacing of the network's grid.
        tiles: forward passes for the whole scan.
        timed: forward passes that were timed; where fewer than `tiles`, `network_s` is extrapolated from them.
        network_s: seconds in the networks.
        click_s: seconds of a warm run from scan to maps.
        first_click_s: seconds of a cold run in a new process.
        preview_s: seconds of the warm run until the preview.
        stages_s: seconds of the warm run by stage.
        processor_s: processor time of the warm run, or of the networks where there is no warm run.
        host_mb: peak resident memory.
        device_mb: peak memory on the device.
        load: load average of the machine.
    """

    method: str
    scan: tuple[int, int, int]
    spacing_mm: float
    tiles: int
    timed: int
    network_s: float
    click_s: float | None = None
    first_click_s: float | None = None
    preview_s: float | None = None
    stages_s: dict[str, float] = field(default_factory=dict)
    processor_s: float | None = None
    host_mb: float | None = None
    device_mb: float | None = None
    load: float | None = None


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """All rows with their provenance. `answer` and `ideas` are written by hand; `not_run` names omitted scans."""

    command: str
    software: str
    model: str
    hardware: str
    threads: int
    seed: int
    not_run: list[str]
    rows: list[BenchmarkRow]
    answer: str = ""
    ideas: list[str] = field(default_factory=list)


def write_benchmark(path: Path, benchmark: Benchmark) -> None:
    """Write the file atomically.

    Raises:
        DiffusionSegmentError: OUTPUT_UNWRITABLE or DISK_FULL; an existing file is then unchanged.
    """
    write_text(path, json.dumps({"kind": KIND, **asdict(benchmark)}, indent=1, allow_nan=False) + "\n")


def read_benchmark(path: Path) -> Benchmark:
    """Read and check a file of `write_benchmark`.

    Raises:
        DiffusionSegmentError: INPUT_MISSING, INPUT_UNREADABLE (not JSON), INPUT_VALUES (a key is missing or wrong).
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_MISSING,
            f"{path} does not exist.",
            hint="Write it with `diffusion-segment-research benchmark`.",
        ) from error
    except (OSError, ValueError) as error:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_UNREADABLE, f"{path} cannot be read as JSON: {error}.", hint="Write the file again."
        ) from error
    if not isinstance(raw, dict) or raw.get("kind") != KIND:
        raise _wrong(path, f'"kind" must be "{KIND}"')
    values = {name: value for name, value in raw.items() if name != "kind"}
    rows = values.get("rows")
    if not isinstance(rows, list) or not rows:
        raise _wrong(path, '"rows" must hold at least one row')
    parsed = [_row(row, f"{path}, rows[{n}]") for n, row in enumerate(rows)]
    _check_names(values, Benchmark, str(path))
    return Benchmark(**{**values, "rows": parsed})


def joined(earlier: Benchmark, later: Benchmark) -> Benchmark:
    """The rows of both, sorted by size of scan; of two rows of one method and scan the later one is kept."""
    fresh = {(row.scan, row.method) for row in later.rows}
    kept = [row for row in earlier.rows if (row.scan, row.method) not in fresh]
    rows = sorted([*kept, *later.rows], key=lambda row: row.scan)
    commands = dict.fromkeys([*earlier.command.splitlines(), later.command])
    sizes = {f"{row.scan[0]} slices" for row in rows}
    not_run = [name for name in later.not_run if name not in sizes]
    return replace(later, rows=rows, command="\n".join(commands), not_run=not_run)


def check_same_setup(earlier: Benchmark, later: Benchmark) -> None:
    """Refuse to join rows of different software, models or machines.

    Raises:
        DiffusionSegmentError: OPTION.
    """
    for name in ("software", "model", "hardware", "threads", "seed"):
        before, now = getattr(earlier, name), getattr(later, name)
        if before != now:
            raise DiffusionSegmentError(
                ErrorCode.OPTION,
                f"The file was measured with the {name} {before}, this run has {now}.",
                hint="Write another file, or measure everything again without --add.",
            )


def _row(raw: Any, where: str) -> BenchmarkRow:
    if not isinstance(raw, dict):
        raise _wrong(where, "an object was expected")
    _check_names(raw, BenchmarkRow, where)
    scan = raw["scan"]
    if not isinstance(scan, list) or len(scan) != 3 or not all(isinstance(n, int) and n > 0 for n in scan):
        raise _wrong(where, '"scan" must hold three whole numbers above 0')
    numbers = ("spacing_mm", "tiles", "timed", "network_s")
    optional = ("click_s", "first_click_s", "processor_s", "host_mb", "device_mb", "load")
    measured: Sequence[str] = [*numbers, *(name for name in optional if raw.get(name) is not None)]
    for name in measured:
        if isinstance(raw[name], bool) or not isinstance(raw[name], (int, float)) or not 0 <= raw[name] < float("inf"):
            raise _wrong(where, f'"{name}" must be a number of 0 or more')
    return BenchmarkRow(**{**raw, "scan": (scan[0], scan[1], scan[2])})


def _check_names(values: dict[str, Any], kind: type[Any], where: str) -> None:
    known = {entry.name: entry for entry in fields(kind)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise _wrong(where, f'"{unknown[0]}" is unknown')
    needed = {name for name, entry in known.items() if entry.default is MISSING and entry.default_factory is MISSING}
    missing = sorted(needed - set(values))
    if missing:
        raise _wrong(where, f'"{missing[0]}" is missing')


def _wrong(where: Path | str, problem: str) -> DiffusionSegmentError:
    return DiffusionSegmentError(ErrorCode.INPUT_VALUES, f"{where}: {problem}.", hint="Write the file again.")
