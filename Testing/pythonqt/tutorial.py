"""The pictures of the tutorial in README, and that of the panel: `make tutorial`.

The real panel, worker and model on the phantom of *Sample Data*, with Slicer's own views beside it. Two runs on one
machine differ only in the seconds that the panel shows.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
from functools import cached_property
from pathlib import Path

import numpy as np
import slicer
from DiffusionSegmentBackend.imaging.volume import Volume
from DiffusionSegmentBackend.imaging.volume_io import write_volume
from DiffusionSegmentBackend.phantom.phantom import make_phantom
from DiffusionSegmentBackend.reporting.case import read_case
from DiffusionSegmentBackend.reporting.content import case_report
from DiffusionSegmentBackend.reporting.pdf_page import pdf_figure
from DiffusionSegmentBackend.reporting.review_state import read_review
from DiffusionSegmentBackend.schema.output_kinds import REPORT, SEGMENTATION, UNCERTAINTY
from DiffusionSegmentBackend.schema.review_state import RegionState
from DiffusionSegmentBackend.worker.reporting_requests import with_volumes_now
from DiffusionSegmentLib.scene.label_map import readLabels, writeLabels
from DiffusionSegmentLib.scene.review import Region, ReviewList
from DiffusionSegmentLib.scene.segmented_scan import geometryOfRun
from headless.slicer_picture import legendOnlyIn
from headless.views import SliceView
from PIL import Image
from PySide6 import QtGui
from slicer.util import arrayFromVolume

from .screenshots import REAL_WORKER, WIDTH, Photographer

_VIEW = (430, 300)
_FIELD_MM = 400.0
_GAP = 6
_PANEL_WIDTH = 520
_GREYS = (86, 64, 43, 32)
_COLOURS, _MIN_SATURATION = 120, 24
_MAX_BYTES = 150_000
_PAPER = (239, 239, 239)
_REPORT_DOTS_PER_INCH = 85
# A fixed date, so that the picture is reproducible.
_DATE = datetime.date(2026, 1, 1)
_SECTIONS = ("resultButton", "overlayButton", "reviewButton", "editorButton", "advancedButton")
_REGION_SIZE_MM = (300.0, 240.0, 250.0)
_STROKE = (3, 9, 9)
_LARGE_VOXELS = 20_000
_PHANTOM_MM = (360.0, 270.0, 330.0)


class Tutorial:
    """Operates the panel step by step and saves a picture of each step."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._photographer = Photographer(folder, worker=REAL_WORKER)
        self._ui = self._photographer.ui
        host = self._photographer.application.host
        self._views = [SliceView(host, name, name, size=_VIEW) for name in ("Axial", "Coronal", "Sagittal")]

    def all(self, panel: Path) -> None:
        """Every picture of the tutorial; the whole panel goes to the file `panel`."""
        for station in (self._load, self._choose, self._segment, self._review, self._correct):
            station()
        self._open(*_SECTIONS[:3])
        _save(_toImage(self._photographer.grab(width=_PANEL_WIDTH)), panel)
        self._report()
        self._photographer.close()

    def _load(self) -> None:
        from DiffusionSegmentLib.sample_data import addPhantom

        self._scan = addPhantom(slicer.mrmlScene)
        self._ui.inputSelector.setCurrentNode(self._scan)
        for view in self._views:
            view.logic.GetSliceCompositeNode().SetBackgroundVolumeID(self._scan.GetID())
        self._lookAtAll()
        self._open()
        self._take("1-load")

    def _choose(self) -> None:
        """A region of interest, and the matches of the model search."""
        region = self._ui.regionSelector.addNode()
        self._photographer.panel.onRegionAdded()
        region.SetSize(*_REGION_SIZE_MM)
        region.GetDisplayNode().SetFillVisibility(False)
        region.GetDisplayNode().SetPropertiesLabelVisibility(False)
        self._ui.modelSearchEdit.setText("liver")
        self._take("2-choose")
        self._ui.modelSearchEdit.setText("")
        region.SetDisplayVisibility(False)

    def _segment(self) -> None:
        """The preview, while the samples are still being drawn."""
        client = self._photographer.panel._client
        self._ui.segmentButton.click()
        client.previewed.connect(lambda _: self._seePreview())
        self._photographer.until(lambda: not client.running)
        overlay = self._photographer.panel.result.overlays[self._photographer.parameters.overlay]
        legendOnlyIn(self._views[0], slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(overlay))

    def _seePreview(self) -> None:
        self._take("3-preview")
        self._open(*_SECTIONS[:3])

    def _review(self) -> None:
        """Accept the first region, flag the second, go on to the one around which most of a large organ was missed."""
        self._open("reviewButton")
        for button in (self._ui.nextButton, self._ui.acceptButton, self._ui.flagButton):
            button.click()
        panel = self._photographer.panel
        regions = [region for region in ReviewList(panel.scan.segmentation).regions if region.state is RegionState.OPEN]
        chosen = max(regions, key=lambda region: np.count_nonzero(self._missed(region)))
        panel.review.onRegionClicked(chosen.number, 0)
        self._take("4-review")

    def _missed(self, region: Region) -> np.ndarray:
        """What a stroke around the region adds to its organ, if that is large: voxels that the phantom holds of it."""
        scan = self._photographer.panel.scan
        labels, truth, organ = readLabels(scan).labels, self._truth, scan.label(region.organ).value
        index = np.linalg.inv(geometryOfRun(scan)) @ (*region.centroidLPS, 1.0)
        stroke = tuple(
            slice(max(round(n) - r, 0), round(n) + r + 1) for n, r in zip(index[2::-1], _STROKE, strict=True)
        )
        missed = np.zeros(labels.shape, bool)
        missed[stroke] = np.count_nonzero(truth == organ) > _LARGE_VOXELS
        return missed & (truth == organ) & (labels != organ)

    def _correct(self) -> None:
        """Paint what was missed of the region's organ, as Segment Editor's brush does, and apply."""
        panel = self._photographer.panel
        labels = readLabels(panel.scan).labels.copy()
        region = panel.review.region
        labels[self._missed(region)] = panel.scan.label(region.organ).value
        writeLabels(panel.scan, labels)
        self._ui.applyButton.click()
        self._photographer.until(lambda: not panel._client.running)
        self._take("5-correct")

    @cached_property
    def _truth(self) -> np.ndarray:
        """The labels with which *Sample Data* drew its phantom."""
        from DiffusionSegmentLib import sample_data

        image = arrayFromVolume(self._scan)
        phantom = make_phantom(seed=sample_data._SEED, spacing_mm=sample_data._SPACING_MM, size_mm=_PHANTOM_MM)
        assert np.array_equal(phantom.image, image), "Sample Data draws another phantom"
        return phantom.labels

    def _report(self) -> None:
        """The page that *Case report…* writes, as it stands after the review."""
        from DiffusionSegmentBackend.schema.dataclass_json import to_json
        from DiffusionSegmentLib.scene.case_record import readCaseRecord, reviewRecord

        panel = self._photographer.panel
        record, review = readCaseRecord(panel.scan, panel.result), reviewRecord(panel.scan)
        labels = Volume(record.labels, record.reportToLPS)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_volume(labels, folder / SEGMENTATION)
            placed = Volume(record.uncertainty, record.reportToLPS @ record.uncertaintyToScan)
            write_volume(placed, folder / UNCERTAINTY)
            (folder / REPORT).write_text(
                json.dumps(with_volumes_now(record.report, labels).to_json()), encoding="utf-8"
            )
            (folder / "review.json").write_text(json.dumps(to_json(review)), encoding="utf-8")
            report = case_report(
                read_case(folder),
                Volume(record.scan, record.reportToLPS),
                scan_name=self._scan.GetName(),
                date=_DATE,
                review=read_review(folder / "review.json"),
            )
            page = folder / "page.png"
            pdf_figure(report).savefig(page, dpi=_REPORT_DOTS_PER_INCH)
            with Image.open(page) as image:
                _save(image.convert("RGB"), self._folder / "6-report.png")

    def _lookAtAll(self) -> None:
        bounds = np.zeros(6)
        self._scan.GetRASBounds(bounds)
        x, y, z = ((bounds[0::2] + bounds[1::2]) / 2).tolist()
        for view in self._views:
            view.showAt((x, y, z), fieldOfView=_FIELD_MM)

    def _open(self, *names: str) -> None:
        """Open these sections of the panel and close the others."""
        for name in _SECTIONS:
            getattr(self._ui, name).collapsed = name not in names

    def _take(self, name: str) -> None:
        """The panel on the left, the views on the right, one below the other."""
        panel = _toImage(self._photographer.grab())
        width, height = _VIEW
        views = self._views[: max(2, panel.height // height)]
        lowest = max(panel.height, len(views) * (height + _GAP) - _GAP)
        picture = Image.new("RGB", (WIDTH + width, lowest), _PAPER)
        picture.paste(panel, (0, 0))
        for number, view in enumerate(views):
            picture.paste(Image.fromarray(view.grab()), (WIDTH, number * (height + _GAP)))
        _save(picture, self._folder / f"{name}.png")


def _toImage(pixmap: QtGui.QPixmap) -> Image.Image:
    image = pixmap.toImage().convertToFormat(QtGui.QImage.Format_RGB888)
    rows = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
    return Image.fromarray(rows[:, : image.width() * 3].reshape(image.height(), image.width(), 3).copy())


def _save(picture: Image.Image, path: Path) -> None:
    """With a palette, of as many greys as keep the file small enough for a repository.

    Raises:
        ValueError: the picture is too large.
    """
    for greys in _GREYS:
        picture.quantize(palette=_palette(picture, greys), dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size <= _MAX_BYTES:
            return
    raise ValueError(f"{path} has {path.stat().st_size} bytes, more than {_MAX_BYTES}.")


def _palette(picture: Image.Image, greys: int) -> Image.Image:
    """Greys at even steps, and colours chosen among what is no grey: else the CT would take them all."""
    pixels = np.asarray(picture).reshape(-1, 3)
    colourful = pixels[np.ptp(pixels, axis=1) > _MIN_SATURATION]
    values = [round(level) for level in np.linspace(0, 255, greys) for _ in range(3)]
    if len(colourful):
        chosen = Image.fromarray(colourful[None]).quantize(_COLOURS, dither=Image.Dither.NONE).getpalette()
        values += (chosen or [])[: 3 * _COLOURS]
    palette = Image.new("P", (1, 1))
    palette.putpalette(values)
    return palette


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--panel", type=Path, required=True, metavar="PNG")
    options = parser.parse_args()
    Tutorial(options.output).all(options.panel)


if __name__ == "__main__":
    main()
