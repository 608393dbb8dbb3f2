"""A real result to report: the phantom, segmented with the bundled weights."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import write_volume
from DiffusionSegmentBackend.models.model import load_model
from DiffusionSegmentBackend.phantom.phantom import make_phantom
from DiffusionSegmentBackend.pipeline.options import SegmentOptions
from DiffusionSegmentBackend.pipeline.segment import segment
from fixtures.written_result import write_result


@pytest.fixture(scope="session")
def scan() -> Volume:
    phantom = make_phantom(seed=3, spacing_mm=(4.0, 4.0, 4.0))
    return Volume(phantom.image, phantom.index_to_lps)


@pytest.fixture(scope="session")
def finished(scan: Volume, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result folder; tests that change it take a copy."""
    folder = tmp_path_factory.mktemp("finished") / "result"
    result = segment(scan, load_model("abdomen-ct", "cpu"), SegmentOptions(samples=1, steps=1, seed=5))
    write_result(result, scan.index_to_lps, folder)
    return folder


@pytest.fixture
def result(finished: Path, tmp_path: Path) -> Path:
    """A copy of the result folder for one test."""
    return Path(shutil.copytree(finished, tmp_path / "result"))


@pytest.fixture(scope="session")
def scan_file(scan: Volume, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "ct.nii.gz"
    write_volume(scan, path)
    return path


@pytest.fixture
def small_files_only() -> Iterator[Callable[[], None]]:
    """A call limits files to 20,000 bytes; writing more fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
