"""One real MRML scene per process, emptied for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.protocol.buffers import write_buffer
from DiffusionSegmentBackend.protocol.messages import RegionAlternatives, Result
from DiffusionSegmentBackend.schema.region_alternative import AlternativesOfRegion, RegionAlternative
from DiffusionSegmentBackend.schema.report import Report
from DiffusionSegmentLib.scene.result import SceneResult, putResult
from DiffusionSegmentLib.scene.segmented_scan import SegmentedScan
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
    uncertainty = np.zeros(labels.shape, np.float32)
    uncertainty[:, 10:, :] = 0.5
    coordinates = np.stack(np.indices(labels.shape)[::-1], axis=-1).astype(np.float32)
    maps = {
        "labels": labels,
        "uncertainty": uncertainty,
        "mutual_information": uncertainty / 5,
        "bodypart": coordinates,
    }
    references = {n: write_buffer(tmp_path / f"{n}.raw", a, oblique.index_to_lps) for n, a in maps.items()}
    report = Report.from_partial_json({"provenance": {"model": "abdomen-ct", "seed": 4, "sha256": "abc"}})
    return Result(id="1", report=report, **references)


# First voxel (k, j, i) of the marks of each alternative.
ALTERNATIVE_STARTS = ((8, 6, 11), (8, 6, 11))


def region(organ: str, competingOrgan: str, lps: np.ndarray, *, score: float = 1.0) -> dict[str, Any]:
    """One entry of report["review"]."""
    return {
        "organ": organ,
        "competing_organ": competingOrgan,
        "centroid_lps_mm": [float(value) for value in lps],
        "volume_ml": 2.5,
        "score": score,
        "sentence": f"{organ} or {competingOrgan}?",
    }


def lpsOf(volume: Volume, kji: tuple[int, int, int]) -> np.ndarray:
    return (volume.index_to_lps @ (*kji[::-1], 1.0))[:3]


@pytest.fixture
def report(oblique: Volume) -> dict[str, Any]:
    """Three regions: liver or background, liver or spleen, spleen or background."""
    return {
        "provenance": {"model": "abdomen-ct", "seed": 4, "sha256": "abc"},
        "organs": [],
        "review": [
            region("liver", "background", lpsOf(oblique, (6, 7, 5)), score=3.0),
            region("spleen", "liver", lpsOf(oblique, (9, 8, 13)), score=2.0),
            region("spleen", "background", lpsOf(oblique, (14, 12, 22)), score=1.0),
        ],
    }


@pytest.fixture
def regions(labels: np.ndarray) -> np.ndarray:
    numbers = np.zeros(labels.shape, np.uint8)
    numbers[5:8, 6:9, 4:7] = 1
    numbers[8:11, 6:10, 11:17] = 2
    numbers[13:16, 11:14, 21:24] = 3
    return numbers


@pytest.fixture
def marks() -> np.ndarray:
    """Two alternatives of the region between liver and spleen: all of it liver, and without a part of the spleen."""
    array = np.zeros((2, 3, 4, 8), np.uint8)
    array[0, :, :, :6] = 6 + 1
    array[1, :2, :, 1:6] = 0 + 1
    return array


@pytest.fixture
def reviewed(result: Result, report: dict[str, Any], regions: np.ndarray, oblique: Volume, tmp_path: Path) -> Result:
    """A result with numbered regions."""
    numbers = write_buffer(tmp_path / "regions.raw", regions, oblique.index_to_lps)
    return replace(result, report=Report.from_partial_json(report), regions=numbers)


@pytest.fixture
def alternativesMessage(
    marks: np.ndarray, report: dict[str, Any], oblique: Volume, tmp_path: Path
) -> RegionAlternatives:
    """The alternatives of the second region; the others have none."""
    entries = tuple(
        RegionAlternative(probability=0.2, volume_ml=1.5, sentence="Liver, not spleen.", start_ijk=start[::-1])
        for start in ALTERNATIVE_STARTS
    )
    regions = tuple(
        AlternativesOfRegion(centroid_lps_mm=tuple(one["centroid_lps_mm"]), alternatives=entries if number == 1 else ())
        for number, one in enumerate(report["review"])
    )
    return RegionAlternatives(
        id="2",
        alternatives=regions,
        alternative_marks=write_buffer(tmp_path / "marks.raw", marks, oblique.index_to_lps),
    )


@pytest.fixture
def shown(
    scene: slicer.vtkMRMLScene,
    ct: slicer.vtkMRMLScalarVolumeNode,
    reviewed: Result,
    model: ModelDescription,
) -> SceneResult:
    return putResult(scene, reviewed, ct, model)


@pytest.fixture
def scan(ct: slicer.vtkMRMLScalarVolumeNode, shown: SceneResult, model: ModelDescription) -> SegmentedScan:
    return SegmentedScan(ct, shown.segmentation, model.labels)


@pytest.fixture
def saveAndLoad(scene: slicer.vtkMRMLScene, model: ModelDescription, tmp_path: Path) -> Callable[[], SegmentedScan]:
    """Write the scene with its .seg.nrrd and .nrrd files, clear it, read it again."""

    def run() -> SegmentedScan:
        folder = tmp_path / "saved"
        folder.mkdir()
        for number in range(scene.GetNumberOfNodesByClass("vtkMRMLStorableNode")):
            node = scene.GetNthNodeByClass(number, "vtkMRMLStorableNode")
            kept = node.IsA("vtkMRMLVolumeNode") or node.IsA("vtkMRMLSegmentationNode")
            if not kept or not node.GetSaveWithScene():
                continue
            node.AddDefaultStorageNode()
            ending = ".seg.nrrd" if node.IsA("vtkMRMLSegmentationNode") else ".nrrd"
            node.GetStorageNode().SetFileName(str(folder / f"{node.GetID()}{ending}"))
            assert node.GetStorageNode().WriteData(node)
        scene.SetURL(str(folder / "scene.mrml"))
        assert scene.Commit()
        scene.Clear(False)
        scene.SetURL(str(folder / "scene.mrml"))
        assert scene.Connect()
        segmentation = scene.GetFirstNode("CT segmentation", "vtkMRMLSegmentationNode")
        return SegmentedScan(scene.GetFirstNode("CT", "vtkMRMLScalarVolumeNode"), segmentation, model.labels)

    return run
