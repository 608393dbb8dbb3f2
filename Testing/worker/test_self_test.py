"""The self-test reports the hardware and software of this computer, with advice if a GPU is not used."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from DiffusionSegmentBackend.errors import Cancelled, DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.schema.dataclass_json import from_json, to_json
from DiffusionSegmentBackend.schema.self_test_findings import SelfTestFindings
from DiffusionSegmentBackend.worker import self_test
from DiffusionSegmentBackend.worker.self_test import (
    NO_TORCH_ADVICE,
    advice_on,
    free_memory,
    nvidia_driver,
    run_self_test,
)


def test_it_reports_version_device_and_speed_within_the_requested_time() -> None:
    result = run_self_test("cpu", seconds=0.2)
    assert result.torch == torch.__version__
    assert result.device == f"CPU, {torch.get_num_threads()} threads"
    assert 0.2 <= result.seconds < 5
    assert 0.1 < result.gflops < 1e5
    assert result.missing == ()
    assert from_json(SelfTestFindings, json.loads(json.dumps(to_json(result)))) == result


def test_it_can_be_cancelled() -> None:
    def progress(stage: str, done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        run_self_test("cpu", seconds=60, progress=progress)


def test_missing_packages_are_reported_without_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(self_test, "find_spec", lambda name: None if name in ("torch", "monai") else real(name))
    result = run_self_test()
    assert result.missing == ("torch", "monai")
    assert result.torch == result.build == result.device == ""
    assert result.advice == (NO_TORCH_ADVICE,)


def test_an_unknown_or_absent_device_is_reported() -> None:
    with pytest.raises(DiffusionSegmentError) as caught:
        run_self_test("abacus")
    assert caught.value.code is ErrorCode.OPTION
    if not torch.cuda.is_available():
        with pytest.raises(DiffusionSegmentError) as caught:
            run_self_test("cuda")
        assert caught.value.code is ErrorCode.NO_DEVICE


def test_a_device_that_cannot_compute_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """For example a GPU that is newer than this build of PyTorch."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no kernel image is available for execution on the device\nmore")

    monkeypatch.setattr(torch.nn.functional, "conv3d", fail)
    with pytest.raises(DiffusionSegmentError, match="no kernel image") as caught:
        run_self_test("cpu", seconds=0.1)
    assert caught.value.code is ErrorCode.NO_DEVICE
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("driver", "build", "works", "expected"),
    [
        ("", "CPU", False, []),
        ("RTX driver 550.1", "CUDA 12.6", True, []),
        ("RTX driver 550.1", "CPU", False, ["install a CUDA build"]),
        ("RTX driver 470.1", "CUDA 12.6", False, ["update the driver"]),
    ],
)
def test_a_gpu_that_is_not_used_is_reported_with_advice(
    driver: str, build: str, works: bool, expected: list[str]
) -> None:
    advice = advice_on(driver=driver, build=build, works=works)
    assert len(advice) == len(expected)
    assert all(part in sentence for part, sentence in zip(expected, advice, strict=True))


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for the tool is a shell script")
def test_the_driver_version_is_read_with_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA RTX 4000, 550.54.14'\n", encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nvidia_driver() == "NVIDIA RTX 4000 driver 550.54.14"
    tool.write_text("#!/bin/sh\nexit 9\n", encoding="utf-8")
    assert nvidia_driver() == ""
    tool.unlink()
    assert nvidia_driver() == ""


def test_free_memory_is_that_of_the_system_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    free = free_memory()
    assert free is not None
    assert 0 < free <= psutil.virtual_memory().total

    def unavailable() -> None:
        raise FileNotFoundError("/proc/meminfo")

    monkeypatch.setattr(psutil, "virtual_memory", unavailable)
    assert free_memory() is None
