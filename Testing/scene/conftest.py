"""One real MRML scene per process, emptied for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import slicer
from DiffusionSegmentBackend.buffers import write_buffer
from DiffusionSegmentBackend.protocol import Result
from DiffusionSegmentBackend.volume import Volume
from DiffusionSegmentLib.scene.terminology import ModelDescription, readModelDescription
from headless.host import HeadlessSlicer
from headless.slicer_picture import putVolume
from headless.views import SliceView
from scipy.spatial.transform import Rotation

MODEL = Path(__file__).resolve().parents[2] / "DiffusionSegment" / "Resources" / "Models" / "abdomen-ct"


@pytest.fixture(scope="session")
def host() -> HeadlessSlicer:
    return HeadlessSlicer()


@pytest.fixture(scope="session")
def axialView(host: HeadlessSlicer) -> SliceView:
    return SliceView(host, "Axial", "Axial", size=(300, 240))


@pytest.fixture
def scene(host: HeadlessSlicer) -> Iterator[slicer.vtkMRMLScene]:
    host.scene.Clear(False)
    yield host.scene
    host.scene.Clear(False)


@pytest.fixture(scope="session")
def model() -> ModelDescription:
    return readModelDescription(MODEL)


@pytest.fixture
def oblique() -> Volume:
    """A CT-like ramp on an oblique, anisotropic grid."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", (9, -14, 31), degrees=True).as_matrix() * (0.8, 1.1, 2.5)
    matrix[:3, 3] = (40.0, -12.0, 300.0)
    return Volume(np.arange(20 * 24 * 28, dtype=np.int16).reshape(20, 24, 28) - 1000, matrix)


@pytest.fixture
def labels(oblique: Volume) -> np.ndarray:
    array = np.zeros(oblique.array.shape, np.uint8)
    array[5:12, 6:14, 4:12] = 6
    array[8:16, 6:14, 16:24] = 1
    return array


@pytest.fixture
def ct(scene: slicer.vtkMRMLScene, oblique: Volume) -> slicer.vtkMRMLScalarVolumeNode:
    return putVolume(scene, oblique, "CT")


@pytest.fixture
def result(tmp_path: Path, oblique: Volume, labels: np.ndarray) -> Result:
    doubt = np.zeros(labels.shape, np.float32)
    doubt[:, 10:, :] = 0.5
    coordinates = np.stack(np.indices(labels.shape)[::-1], axis=-1).astype(np.float32)
    maps = {"labels": labels, "uncertainty": doubt, "mutual_information": doubt / 5, "bodypart": coordinates}
    references = {n: write_buffer(tmp_path / f"{n}.raw", a, oblique.index_to_lps) for n, a in maps.items()}
    return Result(id="1", report={"provenance": {"model": "abdomen-ct", "seed": 4, "sha256": "abc"}}, **references)
