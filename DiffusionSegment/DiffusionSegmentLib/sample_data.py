"""Scans for the module *Sample Data* of Slicer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer

from .scene.volumes import RAS_FROM_LPS, toMatrix

_THUMBNAIL = Path(__file__).resolve().parents[1] / "Resources" / "Icons" / "Phantom.png"
CATEGORY = "DiffusionSegment"
PHANTOM = "DiffusionSegmentPhantom"
LIVER_CT = "DiffusionSegmentCTLiver"
_SEED = 1
_SPACING_MM = (2.0, 2.0, 3.0)
# A portal-venous CT of the abdomen that Slicer itself offers: Medical Segmentation Decathlon, liver_100, CC BY-SA 4.0.
_LIVER_SHA256 = "e16eae0ae6fefa858c5c11e58f0f1bb81834d81b7102e021571056324ef6f37e"
_LIVER_URL = f"https://github.com/Slicer/SlicerTestingData/releases/download/SHA256/{_LIVER_SHA256}"
_WINDOW_HU = (-160.0, 240.0)


def registerSampleData() -> None:
    """Register the phantom, which is generated on demand, and a public CT by its URL and checksum.

    Slicer includes the thumbnail of the CT.
    """
    import SampleData

    register = SampleData.SampleDataLogic.registerCustomSampleDataSource
    register(
        category=CATEGORY,
        sampleName=PHANTOM,
        thumbnailFileName=str(_THUMBNAIL),
        uris="",
        nodeNames="Phantom",
        customDownloader=loadPhantom,
    )
    register(
        category=CATEGORY,
        sampleName=LIVER_CT,
        uris=_LIVER_URL,
        fileNames="CTLiver.nrrd",
        nodeNames="CTLiver",
        checksums=f"SHA256:{_LIVER_SHA256}",
    )


def loadPhantom(source: Any) -> list[slicer.vtkMRMLScalarVolumeNode]:
    """Generate the phantom and add it to the scene; a downloader for Sample Data, which does not need `source`."""
    return [addPhantom(slicer.mrmlScene)]


def addPhantom(
    scene: slicer.vtkMRMLScene,
    *,
    spacingMm: tuple[float, float, float] = _SPACING_MM,
    sizeMm: tuple[float, float, float] = (360.0, 270.0, 330.0),
) -> slicer.vtkMRMLScalarVolumeNode:
    """Add a synthetic CT of the abdomen, in HU, to a scene."""
    # Imported on demand: it needs scipy, which would delay the start of Slicer.
    from DiffusionSegmentBackend.phantom.phantom import make_phantom

    phantom = make_phantom(seed=_SEED, spacing_mm=spacingMm, size_mm=sizeMm)
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Phantom")
    slicer.util.updateVolumeFromArray(node, phantom.image)
    node.SetIJKToRASMatrix(toMatrix(RAS_FROM_LPS @ phantom.index_to_lps))
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().AutoWindowLevelOff()
    node.GetDisplayNode().SetWindowLevelMinMax(*_WINDOW_HU)
    return node
