"""The panel after a real run, as a PNG: `python -m pythonqt.screenshot CT -o panel.png`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import slicer
from DiffusionSegmentBackend.volume_io import read_volume
from headless.slicer_picture import putVolume

from .slicer_application import Application

_WIDTH, _HEIGHT = 440, 860


def main() -> None:
    """Click Segment, wait, and grab."""
    parser = argparse.ArgumentParser(description="Make a screenshot of the panel after a run.")
    parser.add_argument("ct", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    application = Application()
    import DiffusionSegment

    widget = DiffusionSegment.DiffusionSegmentWidget()
    widget.setup()
    widget.frame.resize(_WIDTH, _HEIGHT)
    widget.frame.show()
    widget.ui.inputSelector.setCurrentNode(putVolume(slicer.mrmlScene, read_volume(options.ct), "CT abdomen"))
    widget.ui.segmentButton.click()
    while widget.ui.segmentButton.text != "Segment":
        application.process()
        time.sleep(0.02)
    for _ in range(5):
        application.process()
    widget.frame.grab().save(str(options.output))
    widget.cleanup()


if __name__ == "__main__":
    main()
