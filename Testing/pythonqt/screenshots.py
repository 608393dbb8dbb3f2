"""The panel in each of its states, as PNG files: `make screenshots [CT=path]`.

With a CT the real model runs; without one a quick stand-in labels a small phantom by threshold.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import read_volume
from fixtures.segments import LIVER_ENTRY, addSegment, segmentationOf
from headless.slicer_picture import putVolume
from PySide6 import QtCore, QtGui, QtWidgets

from .slicer_application import Application

WIDTH = 440
# A narrow dock and a wide one, and the fonts of an ordinary and of a large screen.
WIDTHS = (350, 400, 500, 700)
POINT_SIZES = (9, 12)
REAL_WORKER = ["-m", "DiffusionSegmentBackend", "worker"]
_QUICK_ENGINE = Path(__file__).resolve().parents[1] / "panel" / "engine_process.py"
_REFUSED, _SLOW = 13, 99
_DARK = {
    QtGui.QPalette.Window: (45, 45, 48),
    QtGui.QPalette.Base: (30, 30, 32),
    QtGui.QPalette.AlternateBase: (40, 40, 44),
    QtGui.QPalette.Button: (60, 60, 64),
    QtGui.QPalette.WindowText: (230, 230, 230),
    QtGui.QPalette.Text: (230, 230, 230),
    QtGui.QPalette.ButtonText: (230, 230, 230),
    QtGui.QPalette.ToolTipBase: (60, 60, 64),
    QtGui.QPalette.Highlight: (60, 110, 180),
}


class Photographer:
    """Brings the panel into a state and saves what is on the screen."""

    def __init__(self, folder: Path, *, worker: list[str]) -> None:
        self._folder = folder
        self.application = Application()
        from DiffusionSegmentLib.worker.transport import QProcessTransport

        import DiffusionSegment

        self._widget = self.application.openModule(DiffusionSegment)
        command = [sys.executable, "-u", *worker]
        self._widget.logic.client._createTransport = lambda: QProcessTransport(command)
        self._widget.logic.client.prepare = lambda: None
        self.ui: Any = self._widget.ui
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def parameters(self) -> Any:
        """The panel's parameter node."""
        return self._widget._parameterNode

    def until(self, done: Callable[[], Any], seconds: float = 600.0) -> None:
        """Let the panel live until something has happened."""
        end = time.monotonic() + seconds
        while not done() and time.monotonic() < end:
            self.application.process()
            time.sleep(0.01)

    @property
    def panel(self) -> Any:
        """What is behind the widgets."""
        return self._widget.panel

    def grab(self, *, width: int = WIDTH) -> QtGui.QPixmap:
        """The panel, as high as it wants to be."""
        frame = self._widget.parent
        frame.show()
        for _ in range(6):
            self.application.process()
            frame.resize(width, frame.sizeHint.height())
        return frame.grab()

    def take(self, name: str) -> None:
        """Save the panel."""
        self.grab().save(str(self._folder / f"{name}.png"))

    def _takeWidths(self) -> None:
        """The tables in docks of every width and with every size of font."""
        sections = (self.ui.similarButton, self.ui.fineTuneSection, self.ui.reportSection, self.ui.advancedButton)
        for section in sections:
            section.collapsed = True
        font = QtWidgets.QApplication.font()
        for points in POINT_SIZES:
            QtWidgets.QApplication.setFont(QtGui.QFont(font.family(), points))
            for width in WIDTHS:
                self.grab(width=width).save(str(self._folder / f"width-{width}-{points}pt.png"))
        QtWidgets.QApplication.setFont(font)
        for section in sections:
            section.collapsed = False

    def _takeReview(self) -> None:
        """A segmentation of another program: its segments and their organs, and the panel after its review."""
        for section in (self.ui.similarButton, self.ui.fineTuneSection, self.ui.reportSection, self.ui.advancedButton):
            section.collapsed = True
        scan = self.parameters.inputVolume
        node = segmentationOf(scan, "From another program")
        addSegment(node, scan, "Leber", np.s_[2:6, 2:7, 2:7], entry=LIVER_ENTRY)
        addSegment(node, scan, "spleen", np.s_[2:6, 2:7, 9:13])
        addSegment(node, scan, "cyst", np.s_[7:9, 8:10, 2:5])
        self.ui.givenSelector.setCurrentNode(node)
        self.application.process()
        self.take("9-matches")
        self.ui.reviewGivenButton.click()
        self.until(lambda: self.ui.segmentButton.text == "Segment")
        self.take("10-reviewed")

    def close(self) -> None:
        """End the worker."""
        self._widget.cleanup()

    def segment(self) -> None:
        """Click and wait."""
        self.ui.segmentButton.click()
        self.until(lambda: self.ui.segmentButton.text == "Segment")

    def all(self, scan: Volume) -> None:
        """Every state, in the order in which a user meets them."""
        self.take("1-empty")
        self.ui.inputSelector.setCurrentNode(putVolume(slicer.mrmlScene, scan, "CT abdomen"))
        self.take("2-ready")
        self.parameters.seed = _SLOW
        self.ui.segmentButton.click()
        self.until(lambda: self.ui.stageLabel.text == "Drawing samples")
        self.until(lambda: "left" in self.ui.timeLabel.text)
        self.take("3-running")
        self.ui.segmentButton.click()
        self.until(lambda: self.ui.segmentButton.text == "Segment")
        self.parameters.seed = _REFUSED
        self.segment()
        self.take("4-error")
        self.parameters.seed = 0
        self.segment()
        self.take("5-result")
        self.ui.nextButton.click()
        self.take("6-review")
        self.ui.modelSearchEdit.setText("parotid")
        self.ui.organList.item(1).setCheckState(QtCore.Qt.Unchecked)
        for section in (self.ui.similarButton, self.ui.fineTuneSection, self.ui.reportSection, self.ui.advancedButton):
            section.collapsed = False
        self.take("7-everything")
        self._takeWidths()
        self._takeReview()
        palette = QtGui.QPalette()
        for role, colour in _DARK.items():
            palette.setColor(role, QtGui.QColor(*colour))
        for role in (QtGui.QPalette.WindowText, QtGui.QPalette.Text, QtGui.QPalette.ButtonText):
            palette.setColor(QtGui.QPalette.Disabled, role, QtGui.QColor(120, 120, 120))
        palette.setColor(QtGui.QPalette.PlaceholderText, QtGui.QColor(140, 140, 140))
        QtWidgets.QApplication.setStyle("Fusion")
        QtWidgets.QApplication.setPalette(palette)
        self.take("8-dark")
        self.close()


def _ramp() -> Volume:
    return Volume(np.arange(-500, 1300, dtype=np.int16).reshape(10, 12, 15), np.diag([-1.0, 1.5, 2.0, 1.0]))


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--ct", type=Path)
    options = parser.parse_args()
    QtCore.QCoreApplication.setApplicationName("Slicer")
    worker = REAL_WORKER if options.ct else [str(_QUICK_ENGINE)]
    Photographer(options.output, worker=worker).all(read_volume(options.ct) if options.ct else _ramp())


if __name__ == "__main__":
    main()
