"""docs/PERFORMANCE.md from the result file of a benchmark: a table of methods and one of our stages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from DiffusionSegmentBackend.evaluation.tables import NOTHING
from DiffusionSegmentBackend.imaging.atomic_writes import staged_file, write_text

from ..evidence.tables import markdown_table, significant
from .growth import can_draw, draw_growth
from .record import Benchmark, BenchmarkRow, read_benchmark

GROWTH = "performance-growth.png"

_STAGES = ("prepare", "bodypart", "features", "refine", "restore")

_INTRODUCTION = """\
# Performance

This page is written by `make performance` from `{source}`. To change it, repeat the commands below, which write that
file, and run `make performance` again; do not edit the page itself.

Protocol: every scan is a phantom of 512 x 512 x N voxels over 360 mm, 3 mm thick with 100 slices, 1.5 mm with 300 and
1 mm with 800, mirrored along the body beyond 300 mm; time does not depend on the anatomy. All methods are timed in
the same way. A *warm click* is a segmentation from the scan in memory to the label maps in its own geometry, with the
model loaded; a *review* takes these labels for those of another segmenter; the *preview* is shown during both; a
*first click* adds the start of a new interpreter, its imports and loading the weights. *Networks* is the time of the
networks alone, the only one that is comparable between methods: resampling to the grid of another method and back is
not included, which favours the other method. Of the other methods only some tiles were timed, after one warm-up tile:
*timed tiles of all* gives their number, and the time is that of the median tile times the number of all tiles. They
run with random weights, which does not change the time, on our box around the body, in tiles that overlap by half;
*mirrored* means eight passes per tile. All networks compute in the precision that ours have on the device. Plain DDPM
and PD-DDPM are extrapolated: evaluations of our own refiner on our tiles, each as long as one measured in our row.
Host memory is the peak resident memory of the whole process; for a baseline that of one tile, not of the scan. *Load*
is the load average of the machine when the row was measured: with {threads} threads, anything well above {threads}
means that other programs took part of the time. *Processor* is the processor time of all threads, of the warm click
or of a baseline's networks: other programs change it little. The methods differ in grid and training; this page gives
the cost of a segmentation, not its quality.
"""


def write_performance_page(results: Path, output: Path) -> None:
    """Write the page to `output` from the benchmark file `results`.

    Raises:
        DiffusionSegmentError: INPUT_MISSING, INPUT_UNREADABLE or INPUT_VALUES for the file, OUTPUT_UNWRITABLE or
            DISK_FULL for the page, which is then unchanged.
    """
    benchmark = read_benchmark(results)
    drawn = can_draw(benchmark.rows)
    if drawn:
        with staged_file(output.with_name(GROWTH)) as picture:
            draw_growth(benchmark.rows, picture)
    source = f"{results.parent.name}/{results.name}"
    write_text(output, page_text(benchmark, source=source, growth=GROWTH if drawn else None))


def page_text(benchmark: Benchmark, *, source: str, growth: str | None = None) -> str:
    """The page in Markdown; `source` is the file's name as the introduction gives it, `growth` that of the picture."""
    parts = [_INTRODUCTION.format(source=source, threads=benchmark.threads)]
    if benchmark.answer:
        parts.append(f"**Answer.** {benchmark.answer}\n")
    parts += ["## What a click costs\n", method_table(benchmark.rows)]
    parts += ["## Where our time goes\n", "Seconds of a warm click by stage.\n", stage_table(benchmark.rows)]
    if growth is not None:
        parts += ["## How it grows\n", f"![Warm click and memory over slices and over K x S]({growth})\n"]
    if benchmark.not_run:
        parts.append(f"**Not run.** {', '.join(benchmark.not_run)}. Scans are named with `--slices`.\n")
    if benchmark.ideas:
        parts.append("## What would make it faster\n")
        parts.append("\n".join(f"- {' '.join(text.split())}" for text in benchmark.ideas) + "\n")
    parts.append(
        f"{benchmark.software}, model {benchmark.model}, seed {benchmark.seed}, {benchmark.threads} threads, "
        f"{benchmark.hardware}. Repeat with:\n\n```sh\n{benchmark.command}\nmake performance\n```\n"
    )
    return "\n".join(parts)


def method_table(rows: Sequence[BenchmarkRow]) -> str:
    """One line per row: seconds, and MB of memory. Columns without any value are omitted."""
    header = [
        *("scan", "method", "grid, mm", "timed tiles of all", "networks, s", "preview, s", "warm click, s"),
        *("first click, s", "processor, s", "host memory, MB", "device memory, MB", "load"),
    ]
    lines = [
        [
            f"{row.scan[1]} x {row.scan[2]} x {row.scan[0]}",
            row.method,
            significant(row.spacing_mm),
            f"{row.timed} of {row.tiles}",
            *(
                significant(seconds)
                for seconds in (row.network_s, row.preview_s, row.click_s, row.first_click_s, row.processor_s)
            ),
            *(NOTHING if mb is None else f"{mb:.0f}" for mb in (row.host_mb, row.device_mb)),
            significant(row.load),
        ]
        for row in rows
    ]
    filled = [n for n in range(len(header)) if any(line[n] != NOTHING for line in lines)]
    return markdown_table([header[n] for n in filled], [[line[n] for n in filled] for line in lines])


def stage_table(rows: Sequence[BenchmarkRow]) -> str:
    """Seconds by stage of the rows that have them."""
    lines = [
        [
            f"{row.scan[1]} x {row.scan[2]} x {row.scan[0]}",
            row.method,
            *(significant(row.stages_s.get(stage)) for stage in _STAGES),
        ]
        for row in rows
        if row.stages_s
    ]
    return markdown_table(["scan", "method", *_STAGES], lines)
