"""Fuzzing as a command: `python -m reliability.fuzz --count 100000 --seed 1 -o counts.json`.

Inputs are consumed in a separate process with limited memory; an input that takes longer than ten seconds is a failure.
The same seed gives the same inputs. Failing inputs are stored, and `--only NUMBER` repeats a single input.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from .fuzz_process import MEMORY_BYTES, TARGETS, content_of
from .target import write_files

LONGEST_SECONDS = 10.0
_START_SECONDS = 120.0
_TESTING = Path(__file__).resolve().parents[1]
# Fast targets get more of the inputs.
SHARES = {
    "nifti": 0.22,
    "nrrd": 0.2,
    "dicom": 0.06,
    "model": 0.1,
    "safetensors": 0.13,
    "messages": 0.12,
    "corrections": 0.03,
    "zip": 0.09,
    "whole-zip": 0.05,
}


@dataclass
class Counts:
    """Outcomes of the inputs of one target; `codes` of the refusals; number, reason and folder of `failures`."""

    tried: int = 0
    accepted: int = 0
    refused: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)
    slowest_s: float = 0.0
    peak_mb: float = 0.0
    seconds: float = 0.0

    def add(self, ended: dict[str, Any], seconds: float) -> None:
        """Count one input."""
        self.tried += 1
        self.slowest_s = round(max(self.slowest_s, seconds), 2)
        self.peak_mb = max(self.peak_mb, round(ended.get("peak_kb", 0) / 1024, 1))
        if ended["kind"] == "refused":
            self.refused += 1
            self.codes[ended["reason"]] += 1
        elif ended["kind"] == "accepted":
            self.accepted += 1
        else:
            self.failures.append({"number": ended["number"], "reason": ended["reason"]})

    def as_json(self) -> dict[str, Any]:
        """The fields; `failed` is the number of failures."""
        return {**vars(self), "codes": dict(sorted(self.codes.items())), "failed": len(self.failures)}


class _FuzzProcess:
    """A process that consumes inputs; a thread reads its lines, so that waiting for one can time out."""

    def __init__(self, name: str, seed: int, numbers: range, sandbox: Path) -> None:
        path = os.pathsep.join((str(_TESTING.parent / "DiffusionSegment"), str(_TESTING)))
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
        command = [sys.executable, "-m", "reliability.fuzz_process", name, str(sandbox), str(seed)]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115, closed by `end`
        self._process = subprocess.Popen(
            [*command, str(numbers.start), str(numbers.stop)], stdout=subprocess.PIPE, stderr=self._log, env=environment
        )
        self._lines: Queue[bytes] = Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(b"")

    def next(self, seconds: float) -> dict[str, Any] | str:
        """The next line, or the reason why there is none."""
        try:
            line = self._lines.get(timeout=seconds)
        except Empty:
            return f"took longer than {seconds:g} s"
        if line:
            return dict(json.loads(line))
        return f"the process ended with {self._process.wait()}: {self.log()}"

    def log(self) -> str:
        """The end of its standard error."""
        self._log.seek(0)
        return self._log.read()[-300:].decode(errors="replace").replace("\n", " ")

    def end(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()
        self._log.close()


def fuzz(name: str, *, seed: int, numbers: range, failures: Path | None = None) -> Counts:
    """Run a target on its inputs; failing inputs are stored below `failures`.

    Raises:
        RuntimeError: the target could not be prepared.
    """
    counts, began = Counts(), time.monotonic()
    while numbers:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            numbers = _run_process(name, seed, numbers, Path(folder) / "deep" / "sandbox", counts)
    counts.seconds = round(time.monotonic() - began, 1)
    if failures is not None and counts.failures:
        _store(name, seed, counts, failures)
    return counts


def _run_process(name: str, seed: int, numbers: range, sandbox: Path, counts: Counts) -> range:
    """Run one process over the inputs; returns those that are left after an input that ended the process."""
    sandbox.mkdir(parents=True)
    process = _FuzzProcess(name, seed, numbers, sandbox)
    try:
        ready = process.next(_START_SECONDS)
        if isinstance(ready, str):
            raise RuntimeError(f"{name} could not be prepared: {ready}")
        for number in numbers:
            began = time.monotonic()
            ended = process.next(LONGEST_SECONDS)
            if isinstance(ended, str):
                counts.add({"number": number, "kind": "failed", "reason": ended}, time.monotonic() - began)
                return range(number + 1, numbers.stop)
            counts.add(ended, time.monotonic() - began)
        return range(0)
    finally:
        process.end()


def _store(name: str, seed: int, counts: Counts, failures: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        sandbox = Path(folder) / "deep" / "sandbox"
        sandbox.mkdir(parents=True)
        target = TARGETS[name](sandbox)
        for failure in counts.failures:
            kept = failures / f"{name}-{seed}-{failure['number']}"
            shutil.rmtree(kept, ignore_errors=True)
            kept.mkdir(parents=True)
            write_files(kept, content_of(target, name, seed, failure["number"]))
            (kept / "reason.txt").write_text(failure["reason"] + "\n", encoding="utf-8")
            failure["stored"] = kept.name


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the targets, print a line for each, and write the counts; 1 when anything failed."""
    parser = argparse.ArgumentParser(prog="python -m reliability.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="inputs in total (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=TARGETS, action="append", help="this one alone; may be repeated")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="one input of the target")
    parser.add_argument("--failures", type=Path, default=Path("build/fuzz-failures"), metavar="DIR")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    names = options.target or list(TARGETS)
    total = sum(SHARES[name] for name in names)
    results: dict[str, dict[str, Any]] = {}
    for name in names:
        numbers = range(round(options.count * SHARES[name] / total))
        if options.only is not None:
            numbers = range(options.only, options.only + 1)
        counts = fuzz(name, seed=options.seed, numbers=numbers, failures=options.failures)
        results[name] = counts.as_json()
        print(f"{name:<12}{_line(results[name])}", flush=True)
    if options.output is not None:
        limits = {"seconds": LONGEST_SECONDS, "memory_mb": MEMORY_BYTES // 2**20}
        text = json.dumps({"seed": options.seed, "limits": limits, "targets": results}, indent=2)
        options.output.write_text(text + "\n", encoding="utf-8")
    return int(any(result["failed"] for result in results.values()))


def _line(result: dict[str, Any]) -> str:
    parts = [f"{result[key]} {key}" for key in ("tried", "accepted", "refused", "failed")]
    return ", ".join([*parts, f"slowest {result['slowest_s']} s", f"peak {result['peak_mb']} MB"])


if __name__ == "__main__":
    sys.exit(main())
