"""The process that consumes damaged inputs one after another and reports each outcome to `fuzz`."""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import IO, Any

from DiffusionSegmentBackend.errors import Cancelled, DiffusionSegmentError

from .message_targets import CorrectionTarget, MessageTarget
from .model_targets import ModelTarget, SafetensorsTarget, WholeZipTarget, ZipTarget
from .scan_targets import DicomTarget, NiftiTarget, NrrdTarget
from .target import Content, Target, write_files

TARGETS: dict[str, Callable[[Path], Target]] = {
    "nifti": NiftiTarget,
    "nrrd": NrrdTarget,
    "dicom": DicomTarget,
    "model": ModelTarget,
    "safetensors": SafetensorsTarget,
    "messages": MessageTarget,
    "corrections": CorrectionTarget,
    "zip": ZipTarget,
    "whole-zip": WholeZipTarget,
}
MEMORY_BYTES = 2 * 1024**3
_LONGEST_LINE = 1000


def content_of(target: Target, name: str, seed: int, number: int) -> Content:
    """The damaged files of input `number`: the same for the same seed on every machine."""
    return target.make(Random(f"{name} {seed} {number}"))


def outcome(target: Target, content: Content, sandbox: Path) -> tuple[str, str]:
    """Outcome of an input: accepted, refused (with its code) or failed (with the reason)."""
    write_files(sandbox, content)
    try:
        target.consume(content)
        ended = ("accepted", "")
    except Cancelled:
        ended = ("accepted", "")
    except DiffusionSegmentError as error:
        plain = len(str(error)) <= _LONGEST_LINE and str(error).isprintable()
        ended = ("refused", error.code.value) if plain else ("failed", f"not one plain line: {str(error)[:300]!r}")
    except (Exception, SystemExit) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        ended = ("failed", f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})")
    strays = sorted({p.name for p in sandbox.iterdir()} - target.allowed)
    strays += [p.name for p in sandbox.parent.iterdir() if p != sandbox]
    return ("failed", f"wrote outside its folder: {strays}") if strays else ended


def limit_memory() -> None:
    """Limit the address space to `MEMORY_BYTES` beyond that of the libraries."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def serve(name: str, seed: int, numbers: range, sandbox: Path, output: IO[str]) -> None:
    """Consume the inputs and write one line of JSON for each."""
    # Relative paths in damaged files must resolve below the parent of the sandbox, which is checked for stray files.
    os.chdir(sandbox)
    target = TARGETS[name](sandbox)
    limit_memory()
    _report(output, ready=True)
    for number in numbers:
        kind, reason = outcome(target, content_of(target, name, seed, number), sandbox)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        _report(output, number=number, kind=kind, reason=reason, peak_kb=peak)


def _report(output: IO[str], **values: Any) -> None:
    output.write(json.dumps(values) + "\n")
    output.flush()


def main() -> None:
    """Report on the original standard output; everything else that is printed goes to standard error."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("sandbox", type=Path)
    for name in ("seed", "start", "stop"):
        parser.add_argument(name, type=int)
    options = parser.parse_args()
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(options.target, options.seed, range(options.start, options.stop), options.sandbox, output)
    output.flush()
    # Threads of libraries may not terminate with limited memory.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
