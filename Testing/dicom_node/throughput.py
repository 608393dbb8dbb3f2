"""How long a node takes for series of clinical size, with the installed model and a real archive.

`python -m dicom_node.throughput --slices 300 --series 3`; with `--stand-in` a threshold takes the place of the
networks, so that the time of everything else remains. *Processor* is the time of node, worker and reading process on
all cores, which other programs change little.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import psutil
from DiffusionSegmentBackend.dicom_node.settings import WORKER_COMMAND, address
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.schema.run_options import DEFAULT_MODEL, RunOptions
from DiffusionSegmentResearch.benchmark.scans import benchmark_scan
from fixtures.dicom_phantom import write_phantom_series
from fixtures.orthanc import PROGRAM, running_orthanc
from fixtures.tiny_model import write_tiny_model

from .conftest import PATIENCE, running_node
from .sending import files_of, send


def main() -> None:
    """Send the series one after the other, and print the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=300, help="images of 512 x 512 a series")
    parser.add_argument("--series", type=int, default=3, help="series after the first, which starts the worker")
    parser.add_argument("--stand-in", action="store_true", help="a threshold in place of the networks")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="throughput-"))
    try:
        _measure(folder, options.slices, options.series, stand_in=options.stand_in)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _measure(folder: Path, slices: int, count: int, *, stand_in: bool) -> None:
    drawn = benchmark_scan(slices, seed=1)
    volume = Volume(drawn.array.clip(-1024, 3071), drawn.index_to_lps)
    model = write_tiny_model(folder / "models")
    changes = {} if stand_in else {"worker": WORKER_COMMAND, "options": RunOptions(model=DEFAULT_MODEL, force=True)}
    patience = replace(PATIENCE, quiet_s=1.0)
    with running_orthanc(folder / "archive") as archive:
        forward = address(archive.address)
        with running_node(folder, model, forward=forward, patience=patience, **changes) as node:
            for number in range(count + 1):
                files = files_of(write_phantom_series(folder / "scan", f"{number}", volume=volume))
                before, began, processor = node.node.status(), time.monotonic(), processor_s()
                send(node.port, files)
                sent_s = time.monotonic() - began
                node.until(lambda expected=number + 1: len(archive.series("DOC")) == expected, seconds=600.0)
                node.until_idle(jobs=number + 1)
                run_s, total_s = node.node.status().run_s - before.run_s, time.monotonic() - began
                size_mb = sum(path.stat().st_size for path in files) / 1e6
                print(
                    f"{'next' if number else 'first'}: {slices} images, {size_mb:.0f} MB received in {sent_s:.1f} s, "
                    f"run {run_s:.1f} s, until found in the archive {total_s:.1f} s, processor "
                    f"{processor_s() - processor:.1f} s; load {os.getloadavg()[0]:.1f}",
                    flush=True,
                )
                shutil.rmtree(folder / "scan")
        for modality in ("SEG", "DOC"):
            sizes = [len(archive.file(series["Instances"][0])) for series in archive.series(modality)]
            print(f"{modality}: {max(sizes) / 1e6:.1f} MB")


def processor_s() -> float:
    """Processor time in s of this process and its children, ended ones included, but without the archive."""
    running = [child for child in psutil.Process().children(recursive=True) if child.name() != PROGRAM]
    times = [child.cpu_times() for child in running]
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + sum(t.user + t.system for t in times) + ended.ru_utime + ended.ru_stime


if __name__ == "__main__":
    main()
