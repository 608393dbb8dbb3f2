"""A full disk, removed folders, truncated weights, two writers at once: a whole result or none."""

from __future__ import annotations

import json
import resource
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.imaging.atomic_writes import write_text
from DiffusionSegmentBackend.imaging.output_folder import staged_folder
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import write_volume
from DiffusionSegmentBackend.models.manifest import read_description
from DiffusionSegmentBackend.models.model import load_model
from DiffusionSegmentBackend.models.user_models import export_model, import_model, save_user_model
from DiffusionSegmentBackend.networks.probe import Probe
from DiffusionSegmentBackend.pipeline.segment import Segmentation
from DiffusionSegmentBackend.protocol.buffers import write_buffer
from DiffusionSegmentBackend.schema.report import Report
from fixtures.tiny_model import CHANNELS, NAME, write_tiny_model
from fixtures.written_result import write_result

GEOMETRY = np.diag([2.0, 2.0, 3.0, 1.0])
NOISE = np.random.default_rng(0).random((20, 24, 28)).astype(np.float32)


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIFFUSION_SEGMENT_MODELS", str(tmp_path / "models"))
    write_tiny_model(tmp_path / "models")
    return tmp_path / "models"


@contextmanager
def limited_file_size(size: int) -> Iterator[None]:
    """Files cannot grow beyond `size` bytes: the kernel refuses the write, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def result(fill: float = 0.5) -> Segmentation:
    labels = (fill < NOISE).astype(np.uint8)
    return Segmentation(
        labels=labels,
        regions=labels,
        bodypart=None,
        report=Report.from_partial_json({"warnings": ["x" * 3000]}),
        uncertainty=NOISE,
        mutual_information=NOISE,
    )


def save(folder: Path, *, replace: bool = False) -> None:
    base = read_description(folder.parent / "models" / NAME)
    label = {"value": 1, "name": "cyst", "title": "Cyst"}
    save_user_model("mine", Probe(CHANNELS, 2, hidden=8), base=base, labels=[label], anatomy={}, replace=replace)


def write_maps_to(folder: Path) -> None:
    write_result(result(), GEOMETRY, folder / "result")


def write_nrrd_to(folder: Path) -> None:
    write_volume(Volume(NOISE, GEOMETRY), folder / "scan.nrrd")


def write_buffer_to(folder: Path) -> None:
    write_buffer(folder / "labels.raw", NOISE, GEOMETRY)


def write_text_to(folder: Path) -> None:
    write_text(folder / "metrics.json", "x" * 100_000)


def export_to(folder: Path) -> None:
    export_model("mine", folder / "mine.zip")


WRITERS = [write_maps_to, write_nrrd_to, write_buffer_to, write_text_to, export_to, save]


def written_bytes(folder: Path) -> int:
    return max((path.stat().st_size for path in folder.rglob("*") if path.is_file()), default=0)


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_a_full_disk_at_any_byte_is_reported_and_leaves_nothing(
    tmp_path: Path, models: Path, write: Callable[[Path], None]
) -> None:
    """The limit is from 0 bytes to the size of the largest file minus one."""
    output = tmp_path / "output"
    output.mkdir()
    if write is not save:
        save(output)
    watched = models if write is save else output
    before = sorted(path.name for path in watched.rglob("*"))
    write(output)
    largest = written_bytes(models / "mine" if write is save else output)
    for path in list(watched.iterdir()):
        if path.name not in before:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for size in sorted({0, 1, 100, 351, largest // 4, largest // 2, largest - 1}):
        with limited_file_size(size), pytest.raises(DiffusionSegmentError) as caught:
            write(output)
        assert caught.value.code in (ErrorCode.DISK_FULL, ErrorCode.OUTPUT_UNWRITABLE), size
        assert "\n" not in str(caught.value)
        assert sorted(path.name for path in watched.rglob("*") if ".trial" not in path.name) == before, size
    write(output)


def test_a_full_disk_keeps_an_earlier_result(tmp_path: Path) -> None:
    write_result(result(0.5), GEOMETRY, tmp_path / "result")
    before = {path.name: path.read_bytes() for path in (tmp_path / "result").iterdir()}
    with limited_file_size(2000), pytest.raises(DiffusionSegmentError, match="disk is full"):
        write_result(result(0.1), GEOMETRY, tmp_path / "result")
    assert {path.name: path.read_bytes() for path in (tmp_path / "result").iterdir()} == before


def write_while_the_folder_is_removed(disk: Path, *, late: bool) -> None:
    """Write two files into a staged folder whose parent is removed before or after the second."""
    with staged_folder(disk / "result") as staging:
        (staging / "report.json").write_text("{}", encoding="utf-8")
        if not late:
            shutil.rmtree(disk)
        write_volume(Volume(NOISE, GEOMETRY), staging / "segmentation.nii.gz")
        shutil.rmtree(disk)


@pytest.mark.parametrize("late", [False, True])
def test_an_output_folder_removed_during_writing_is_reported(tmp_path: Path, late: bool) -> None:
    with pytest.raises(DiffusionSegmentError) as caught:
        write_while_the_folder_is_removed(tmp_path / "disk", late=late)
    assert caught.value.code is ErrorCode.OUTPUT_UNWRITABLE
    assert not (tmp_path / "disk").exists()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
@pytest.mark.parametrize("network", ["bodypart", "backbone", "probe", "refiner"])
def test_truncated_weights_are_refused(models: Path, network: str, share: float) -> None:
    path = models / NAME / f"{network}.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DiffusionSegmentError, match="Install the model again") as caught:
        load_model(NAME, "cpu")
    assert caught.value.code is ErrorCode.WEIGHTS_CORRUPT


def test_a_model_folder_with_a_missing_file_is_refused(models: Path) -> None:
    (models / NAME / "refiner.safetensors").unlink()
    with pytest.raises(DiffusionSegmentError) as caught:
        load_model(NAME, "cpu")
    assert caught.value.code is ErrorCode.WEIGHTS_MISSING


def run_concurrently(actions: list[Callable[[], object]]) -> list[BaseException]:
    """The exceptions of actions that are started at once."""
    raised: list[BaseException] = []
    gate = threading.Barrier(len(actions))

    def run(action: Callable[[], object]) -> None:
        gate.wait()
        try:
            action()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_concurrent_writers_leave_a_complete_result(tmp_path: Path) -> None:
    for _ in range(5):
        errors = run_concurrently([lambda: write_result(result(), GEOMETRY, tmp_path / "result")] * 3)
        assert all(isinstance(error, DiffusionSegmentError) for error in errors)
        assert len(list((tmp_path / "result").iterdir())) == 5
        json.loads((tmp_path / "result" / "report.json").read_text(encoding="utf-8"))
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_concurrent_imports_leave_a_complete_model(tmp_path: Path, models: Path) -> None:
    save(tmp_path / "output")
    export_model("mine", tmp_path / "mine.zip")
    for _ in range(20):
        errors = run_concurrently([lambda: import_model(tmp_path / "mine.zip", replace=True)] * 6)
        assert all(isinstance(error, DiffusionSegmentError) for error in errors)
        assert load_model("mine", "cpu").description.name == "mine"
        assert len(list((models / "mine").iterdir())) == 3
    assert sorted(path.name for path in models.iterdir()) == ["mine", NAME]


def test_concurrent_exports_leave_a_complete_file(tmp_path: Path) -> None:
    save(tmp_path / "output")
    for _ in range(20):
        errors = run_concurrently([lambda: export_model("mine", tmp_path / "mine.zip")] * 6)
        assert errors == []
        assert import_model(tmp_path / "mine.zip", replace=True) == "mine"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
