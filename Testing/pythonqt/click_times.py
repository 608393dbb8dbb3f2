"""Waiting times of the panel: `python -m pythonqt.click_times [--ct path]`, with the real worker and model.

Without a CT the phantom is segmented. Each correction paints a stroke of background into the largest organ.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import slicer
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import read_volume
from DiffusionSegmentBackend.phantom.phantom import make_phantom
from headless.slicer_picture import putVolume
from PySide6 import QtCore

from .screenshots import REAL_WORKER, Photographer

_STROKE = (3, 7, 7)


def seconds(action: Callable[[], None]) -> float:
    """Seconds that an action takes."""
    began = time.monotonic()
    action()
    return time.monotonic() - began


class Reader:
    """Drives the panel: segments, then corrects twice."""

    def __init__(self, scan: Volume, folder: Path) -> None:
        self._photographer = Photographer(folder, worker=REAL_WORKER)
        self._photographer.ui.inputSelector.setCurrentNode(putVolume(slicer.mrmlScene, scan, "Scan"))

    def segment(self) -> None:
        """Click *Segment* and wait for the result."""
        self._photographer.segment()
        assert self._photographer.panel.scan is not None, self._photographer.ui.messageLabel.text

    def correct(self, number: int) -> None:
        """Paint a stroke, click *Apply corrections* and wait."""
        from DiffusionSegmentLib.scene.label_map import readLabels, writeLabels

        panel = self._photographer.panel
        labels = readLabels(panel.scan).labels.copy()
        inside = np.argwhere(labels == np.bincount(labels[labels > 0]).argmax())
        k, j, i = inside[len(inside) * number // 3]
        box = tuple(slice(max(0, c - n // 2), c + n // 2 + 1) for c, n in zip((k, j, i), _STROKE, strict=True))
        labels[box] = 0
        writeLabels(panel.scan, labels)
        self._photographer.ui.messageLabel.text = ""
        self._photographer.ui.applyButton.click()
        self._photographer.until(lambda: bool(self._photographer.ui.messageLabel.text))
        assert "Corrections applied" in self._photographer.ui.messageLabel.text, self._photographer.ui.messageLabel.text

    def close(self) -> None:
        """End the worker."""
        self._photographer.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ct", type=Path)
    options = parser.parse_args()
    QtCore.QCoreApplication.setApplicationName("Slicer")
    phantom = None if options.ct else make_phantom(seed=2, spacing_mm=(3.0, 3.0, 3.0))
    scan = read_volume(options.ct) if phantom is None else Volume(phantom.image, phantom.index_to_lps)
    with tempfile.TemporaryDirectory() as folder:
        reader = Reader(scan, Path(folder))
        print(f"first click, worker cold  {seconds(reader.segment):6.1f} s")
        print(f"second click, worker warm {seconds(reader.segment):6.1f} s")
        print(f"first correction          {seconds(lambda: reader.correct(1)):6.1f} s")
        print(f"second correction         {seconds(lambda: reader.correct(2)):6.1f} s")
        reader.close()


if __name__ == "__main__":
    sys.exit(main())
