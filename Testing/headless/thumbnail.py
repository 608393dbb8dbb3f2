"""The phantom's thumbnail for Slicer's module *Sample Data*: `python -m headless.thumbnail -o Phantom.png`."""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.models.folders import bundled_models_folder
from DiffusionSegmentBackend.phantom.phantom import make_phantom
from DiffusionSegmentLib.scene.segmentation import putSegmentation
from DiffusionSegmentLib.scene.terminology import readModelDescription
from matplotlib.image import imsave

from .host import HeadlessSlicer
from .slicer_picture import putVolume
from .views import SliceView

SIZE = (260, 280)
_SEED = 1
_WINDOW_HU = (-160.0, 240.0)
_FIELD_OF_VIEW_MM = 340.0
_FILL = 0.35


def drawPhantom() -> np.ndarray:
    """RGB array (280, 260, 3) of a coronal slice with the organs."""
    host = HeadlessSlicer()
    view = SliceView(host, "Coronal", "Coronal", size=SIZE)
    phantom = make_phantom(seed=_SEED)
    node = putVolume(host.scene, Volume(phantom.image, phantom.index_to_lps), "Phantom")
    node.GetDisplayNode().AutoWindowLevelOff()
    node.GetDisplayNode().SetWindowLevelMinMax(*_WINDOW_HU)
    labels = readModelDescription(bundled_models_folder() / "abdomen-ct").labels
    segmentation = putSegmentation(host.scene, phantom.labels, labels, node, "Organs")
    segmentation.GetDisplayNode().SetOpacity2DFill(_FILL)
    view.logic.GetSliceCompositeNode().SetBackgroundVolumeID(node.GetID())
    bounds = np.zeros(6)
    node.GetRASBounds(bounds)
    middle = (bounds[0::2] + bounds[1::2]) / 2
    view.showAt((float(middle[0]), float(middle[1]), float(middle[2])), fieldOfView=_FIELD_OF_VIEW_MM)
    return view.grab()


def main() -> None:
    """Draw and save."""
    parser = argparse.ArgumentParser(description="Draw the phantom's thumbnail.")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    matplotlib.use("Agg")
    imsave(options.output, drawPhantom())


if __name__ == "__main__":
    main()
