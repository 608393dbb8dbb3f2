"""A click and the requests after it open one session in the real engine: the panel sends the options of the report."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from DiffusionSegmentBackend.protocol.buffers import write_buffer
from DiffusionSegmentBackend.protocol.messages import Alternatives, Correct, Request, Segment
from DiffusionSegmentBackend.worker.engine import PipelineEngine
from fixtures.tiny_model import NAME, coarse_phantom, write_tiny_model
from pythonqt.slicer_application import Application


class Clicks:
    """The real engine with a tiny model; `opened` counts the runs of the whole case."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from DiffusionSegmentBackend.pipeline import segment as pipeline

        self.folder = folder
        self.scan = coarse_phantom()
        self.engine = PipelineEngine()
        self.opened = 0
        self.provenance: dict[str, Any] = {}
        run: Callable[..., Any] = pipeline.open_session

        def counted(*arguments: Any, **options: Any) -> Any:
            self.opened += 1
            return run(*arguments, **options)

        monkeypatch.setattr(pipeline, "open_session", counted)

    @property
    def box(self) -> tuple[float, ...]:
        """A region of interest of 120 mm around the middle of the scan: its matrix from -1..1 to LPS mm, by rows."""
        box = np.diag([60.0, 60.0, 60.0, 1.0])
        k, j, i = (n / 2 for n in np.asarray(self.scan.array).shape)
        box[:3, 3] = (self.scan.index_to_lps @ [i, j, k, 1])[:3]
        return tuple(float(value) for value in box.ravel())

    def send(self, kind: type[Request], maps: dict[str, np.ndarray] | None = None, **options: Any) -> Any:
        geometry = self.scan.index_to_lps
        written = {
            name: write_buffer(self.folder / f"{name}.raw", array, geometry) for name, array in (maps or {}).items()
        }
        volume = write_buffer(self.folder / "scan.raw", np.asarray(self.scan.array), geometry)
        request = kind(id="1", output_folder=str(self.folder), volume=volume, **written, **options)
        return self.engine(request, lambda *_: None, lambda _: None)

    def click(self, **options: Any) -> None:
        """Send what *Segment* sends."""
        defaults = {"samples": None, "steps": None, "sampler": None, "organs": None, "region": None, "force": False}
        self.labels = self.send(Segment, model=NAME, **{**defaults, **options})
        self.provenance = self.labels.values["report"]["provenance"]

    def follow(self, kind: type[Request], monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
        """Send what a button sends that continues with the result."""
        from DiffusionSegmentLib.panel import panel_context
        from DiffusionSegmentLib.scene import run_options

        monkeypatch.setattr(run_options, "readReport", lambda _: {"provenance": self.provenance})
        parameters: Any = types.SimpleNamespace(device=types.SimpleNamespace(value="auto"), memoryLimit=0.0)
        scan: Any = types.SimpleNamespace(segmentation=None)
        options = {**panel_context.requestOptions(scan, parameters), **changes}
        maps = None
        if kind is Correct:
            labels = np.array(self.labels.maps["labels"].array)
            scribbles = np.zeros_like(labels)
            # Another stroke each time.
            k, j, i = np.unravel_index(labels.size // 2 + self.opened, labels.shape)
            scribbles[k, j, i] = 2
            maps, options = {"labels": labels, "scribbles": scribbles}, {**options, "locked": ()}
        self.send(kind, maps, **options)


@pytest.fixture
def clicks(application: Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clicks:
    monkeypatch.setenv("DIFFUSION_SEGMENT_MODELS", str(tmp_path / "models"))
    write_tiny_model(tmp_path / "models")
    (tmp_path / "buffers").mkdir()
    return Clicks(tmp_path / "buffers", monkeypatch)


ALL_OPTIONS = {"samples": 2, "steps": 2, "seed": 7, "sampler": "ddpm", "organs": ("spleen",), "memory_limit_gb": 4.0}


@pytest.mark.parametrize("chosen", [False, True], ids=["the model's own options", "every option chosen"])
def test_a_click_and_five_requests_open_one_session(
    clicks: Clicks, monkeypatch: pytest.MonkeyPatch, chosen: bool
) -> None:
    clicks.click(**({**ALL_OPTIONS, "region": clicks.box} if chosen else {}))
    for kind in (Correct, Alternatives, Correct, Alternatives, Correct):
        clicks.follow(kind, monkeypatch)
    assert clicks.opened == 1


def test_each_changed_option_and_another_scan_open_another_session(
    clicks: Clicks, monkeypatch: pytest.MonkeyPatch
) -> None:
    clicks.click()
    for name, value in {**ALL_OPTIONS, "region": clicks.box}.items():
        before = clicks.opened
        clicks.follow(Alternatives, monkeypatch, **{name: value})
        assert clicks.opened == before + (name != "memory_limit_gb"), name
        if name != "memory_limit_gb":
            clicks.click()
    clicks.click()
    before, clicks.scan = clicks.opened, coarse_phantom(seed=4)
    clicks.follow(Alternatives, monkeypatch)
    assert clicks.opened == before + 1


def test_a_second_click_runs_again(clicks: Clicks) -> None:
    clicks.click()
    clicks.click()
    assert clicks.opened == 2
