"""Fuzz targets of the worker and of the command `correct`: message lines, and result folders with corrections."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any
from zlib import crc32

import numpy as np
from DiffusionSegmentBackend.commands.correct import CorrectOptions, correct_folder
from DiffusionSegmentBackend.errors import Cancelled, DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import write_volume
from DiffusionSegmentBackend.models.folders import USER_MODELS_VARIABLE
from DiffusionSegmentBackend.models.model import load_model
from DiffusionSegmentBackend.pipeline.options import SegmentOptions
from DiffusionSegmentBackend.pipeline.segment import segment
from DiffusionSegmentBackend.protocol.buffers import write_buffer
from DiffusionSegmentBackend.protocol.messages import Task, decode
from DiffusionSegmentBackend.schema.output_kinds import CORRECTIONS, REPORT, SEGMENTATION
from DiffusionSegmentBackend.worker import server as worker
from DiffusionSegmentBackend.worker.answer import EngineAnswer, SendEarly
from DiffusionSegmentBackend.worker.engine import PipelineEngine
from fixtures.tiny_model import coarse_phantom, write_tiny_model
from fixtures.written_result import write_result

from .mutation import damaged, damaged_json, damaged_text
from .target import Content, demand

_STEPS = 12
_BEFORE_NETWORKS = {"load", "prepare", "bodypart", "report", "correct"}


def cancelling_progress(progress: Callable[[str, int, int], None], content: Content) -> Callable[[str, int, int], None]:
    """Progress that cancels before the large networks run; for one input in fifty a dozen steps later."""
    deep = crc32(b"".join(content.values())) % 50 == 0
    calls = iter(range(_STEPS))

    def report(stage: str, done: int, total: int) -> None:
        progress(stage, done, total)
        if next(calls, None) is None or not (deep or stage in _BEFORE_NETWORKS):
            raise Cancelled

    return report


class _Streams:
    """Streams of a worker with one input line, which end after its reply."""

    def __init__(self, line: bytes) -> None:
        self._lines = [line]
        self._answered = threading.Event()
        self.output = io.BytesIO()

    def readline(self, limit: int = -1) -> bytes:
        if self._lines:
            line = self._lines.pop()
            if not _is_task(line):
                self._answered.set()
            if limit >= 0 and len(line) > limit:
                self._lines.append(line[limit:])
            return line[:limit] if limit >= 0 else line
        self._answered.wait()
        return b""

    def write(self, data: bytes) -> int:
        if not data.startswith(b'{"type":"progress"'):
            self._answered.set()
        return self.output.write(data)

    def flush(self) -> None:
        """Nothing is buffered."""


def _is_task(line: bytes) -> bool:
    try:
        return isinstance(decode(line), Task)
    except DiffusionSegmentError:
        return False


class MessageTarget:
    """Lines to a worker with the real engine; runs are cancelled after some steps."""

    allowed = frozenset({"models", "maps", "answers", "line"})

    def __init__(self, sandbox: Path) -> None:
        write_tiny_model(sandbox / "models")
        os.environ[USER_MODELS_VARIABLE] = str(sandbox / "models")
        self._sandbox = sandbox
        for name in ("maps", "answers"):
            (sandbox / name).mkdir(exist_ok=True)
        scan = coarse_phantom()
        geometry, shape = scan.index_to_lps, scan.array.shape
        arrays = {"volume": scan.array, "labels": np.zeros(shape, np.uint8), "scribbles": np.ones(shape, np.uint8)}
        arrays["uncertainty"] = np.zeros(shape, np.float32)
        self._maps = {
            name: asdict(write_buffer(sandbox / "maps" / f"{name}.raw", array, geometry))
            for name, array in arrays.items()
        }
        self._engine = PipelineEngine()
        self._content: Content = {}
        self._seeds = self._messages()

    def _messages(self) -> list[dict[str, Any]]:
        maps = self._maps
        task = {"id": "1-1", "output_folder": str(self._sandbox / "answers")}
        request = {**task, "volume": maps["volume"], "model": "tiny", "device": "cpu"}
        run = {"samples": 1, "steps": 1, "seed": 3, "sampler": "ddim", "organs": ["spleen"], "force": True}
        segment_ = {"type": "segment", **request, **run, "bodypart": False}
        report = {"organs": [], "review": [], "warnings": [], "provenance": {}, "labels": []}
        finished = {**request, "labels": maps["labels"], "uncertainty": maps["uncertainty"], "report": report}
        output = str(self._sandbox / "answers" / "report.html")
        return [
            segment_,
            segment_,
            {**segment_, "type": "correct", "labels": maps["labels"], "scribbles": maps["scribbles"], "locked": [1]},
            {**segment_, "type": "alternatives"},
            {"type": "similar", **request, "point_lps": [0.0, 0.0, 0.0]},
            {"type": "fine_tune", **request, "labels": maps["labels"], "names": ["a"], "name": "new", "minutes": 0.1},
            {"type": "write_report", **finished, "path": output, "scan_name": "s", "review": {}},
            {"type": "export_dicom", **finished, "path": output, "files": []},
            {"type": "import_model", **task, "path": str(self._sandbox / "maps"), "replace": False},
            {"type": "self_test", **task, "device": "cpu"},
            {"type": "cancel", "id": "1-1"},
            {"type": "ping", "id": "p"},
        ]

    def make(self, rng: Random) -> Content:
        """One line."""
        message = rng.choice(self._seeds)
        if "volume" in message and rng.random() < 0.2:
            part = rng.choice([name for name in self._maps if name in message])
            return {"line": json.dumps({**message, part: damaged_json(rng, message[part])}).encode()}
        return {"line": damaged_text(rng, message)}

    def consume(self, content: Content) -> None:
        """Send the line to a worker and read its reply."""
        self._content = content
        streams = _Streams(content["line"].replace(b"\n", b" ") + b"\n")
        log = io.StringIO()
        with contextlib.redirect_stderr(log):
            worker.Worker(self._run, worker.Outbox(streams)).run(streams)  # type: ignore[arg-type]
        self._remove_answers(content["line"])
        for line in streams.output.getvalue().splitlines():
            answer = json.loads(line)
            demand(answer.get("code") != "INTERNAL", f"{answer.get('message')} {log.getvalue()[-600:]}")
            if answer["type"] == "error":
                raise DiffusionSegmentError(ErrorCode(answer["code"]), answer["message"], hint=answer["hint"])

    def _remove_answers(self, line: bytes) -> None:
        """Remove what was written into the folder of the answers, or into a folder that a damaged path names."""
        for path in (self._sandbox / "answers").iterdir():
            demand(path.name != "report.html" or path.is_dir() or path.stat().st_size, "an empty report was left")
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in self._sandbox.parent.iterdir():
            if path != self._sandbox and path.is_dir() and path.name.encode() in line:
                shutil.rmtree(path)

    def _run(self, request: Any, progress: Callable[[str, int, int], None], early: SendEarly) -> EngineAnswer:
        return self._engine(request, cancelling_progress(progress, self._content), early)


class CorrectionTarget:
    """A result folder with a report and a label map of corrections, one of them damaged."""

    allowed = frozenset({"models", "result", "scan.nii.gz", "scribbles.nii.gz", "out"})

    def __init__(self, sandbox: Path) -> None:
        os.environ[USER_MODELS_VARIABLE] = str(sandbox / "models")
        self._sandbox, scan = sandbox, coarse_phantom()
        model = load_model(str(write_tiny_model(sandbox / "models")), "cpu")
        segmentation = segment(scan, model, SegmentOptions(samples=1, steps=1, force=True))
        write_volume(scan, sandbox / "scan.nii.gz")
        segmentation.report["provenance"]["input"] = str(sandbox / "scan.nii.gz")
        write_result(segmentation, scan.index_to_lps, sandbox / "result")
        scribbles = np.zeros(scan.array.shape, np.uint8)
        scribbles[3:5, 4:6, 5:8] = 2
        write_volume(Volume(scribbles, scan.index_to_lps), sandbox / "scribbles.nii.gz")
        self._whole = {f"result/{n}": (sandbox / "result" / n).read_bytes() for n in (REPORT, SEGMENTATION)}
        self._whole["scribbles.nii.gz"] = (sandbox / "scribbles.nii.gz").read_bytes()
        self._report = segmentation.report

    def make(self, rng: Random) -> Content:
        """All files, one of them damaged, and sometimes corrections of an earlier run."""
        chosen = rng.choice((*self._whole, f"result/{CORRECTIONS}"))
        data = self._whole.get(chosen, self._whole["scribbles.nii.gz"])
        if chosen.endswith(REPORT):
            report = {**self._report, "provenance": damaged_json(rng, self._report["provenance"])}
            damage = json.dumps(report).encode() if rng.random() < 0.7 else damaged_text(rng, self._report)
        else:
            damage = gzip.compress(damaged(rng, gzip.decompress(data), head=352), 1)
        return {**self._whole, chosen: damage}

    def consume(self, content: Content) -> None:
        """Correct the folder; the run is cancelled before the networks run."""
        result, output = self._sandbox / "result", self._sandbox / "out"
        progress = cancelling_progress(_ignored, content)
        try:
            correct_folder(
                result, self._sandbox / "scribbles.nii.gz", output, CorrectOptions(device="cpu"), progress=progress
            )
        except Cancelled:
            demand(not output.exists(), "a cancelled correction left a folder")
        finally:
            (result / CORRECTIONS).unlink(missing_ok=True)
            shutil.rmtree(output, ignore_errors=True)


def _ignored(stage: str, done: int, total: int) -> None:
    """Progress that is ignored."""
