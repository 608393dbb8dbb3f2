"""The real worker process of a cohort with a stand-in for the networks: the text of a scan decides what happens.

Volumes follow from the bytes of the scan, so that a result can be compared bit by bit. `once FAULT` happens at the
first attempt alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "DiffusionSegment"))

from DiffusionSegmentBackend.cohort.keys import content_digest, scan_key
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode, out_of_memory
from DiffusionSegmentBackend.imaging.output_folder import staged_folder
from DiffusionSegmentBackend.protocol.messages import FilesSegmented
from DiffusionSegmentBackend.protocol.requests import SegmentFiles
from DiffusionSegmentBackend.schema.report import OrganResult, Report
from DiffusionSegmentBackend.worker import server as worker
from DiffusionSegmentBackend.worker.answer import EngineAnswer, SendEarly

FOREVER = 3600.0


def engine(request: SegmentFiles, progress: Callable[[str, int, int], None], send_early: SendEarly) -> EngineAnswer:
    """Do what the scan says, then write a report."""
    scan = Path(request.scan)
    key = scan_key(content_digest([scan]), request.settings)
    text = scan.read_text(encoding="utf-8")
    folder = Path(request.result_folder)
    if key == request.finished_key and (folder / "report.json").is_file():
        return EngineAnswer(FilesSegmented, {}, {"key": key, "kept": True})
    progress("features", 0, 1)
    _fail(text, scan)
    with staged_folder(folder) as staging:
        (staging / "report.json").write_text(json.dumps(report_of(text).to_json()), encoding="utf-8")
    cut = ("spleen",) if "cut" in text else ()
    return EngineAnswer(
        FilesSegmented,
        {},
        {"key": key, "kept": False, "shape": (3, 4, 5), "spacing_mm": (1.0, 2.0, 3.0), "cut": cut},
    )


def _fail(text: str, scan: Path) -> None:
    if "once" in text:
        first = scan.with_suffix(".tried")
        if first.exists():
            return
        first.touch()
    if "slow" in text:
        time.sleep(0.2)
    if "crash" in text:
        os.kill(os.getpid(), 9)
    if "hang" in text:
        time.sleep(FOREVER)
    if "full memory" in text:
        raise out_of_memory()
    if "full disk" in text:
        raise DiffusionSegmentError(ErrorCode.DISK_FULL, "The disk is full.", hint="Free some space.")
    if "chest" in text:
        raise DiffusionSegmentError(ErrorCode.BODY_PART_MISMATCH, f"{scan} shows the chest.")
    if "bug" in text:
        raise ZeroDivisionError("a bug")


def report_of(text: str) -> Report:
    """A report with two organs, whose volumes follow from the text."""
    share = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32
    empty = Report.from_partial_json({"provenance": {"model": "abdomen-ct"}})
    volumes = {"spleen": 150 + 100 * share, "left_kidney": 0.0 if "no kidney" in text else 160 + 40 * share}
    organs = tuple(
        OrganResult(
            name=name,
            title=name.replace("_", " ").capitalize(),
            value=value,
            volume_ml=volume,
            volume_interval_ml=(volume * 0.9, volume * 1.1),
            confidence=0.9,
        )
        for value, (name, volume) in enumerate(volumes.items(), start=1)
    )
    return replace(empty, organs=organs, expected_wrong_ml=10 * share, confidence=0.9 + share / 10)


if __name__ == "__main__":
    worker.main(engine)  # type: ignore[arg-type]
