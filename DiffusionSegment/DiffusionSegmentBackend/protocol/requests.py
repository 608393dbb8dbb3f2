"""What Slicer asks of the worker: the tasks among the messages of `protocol`, which re-exports every name of this file.

Standard library only, because Slicer's process imports it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..schema.examination import Examination
from ..schema.report import Report
from ..schema.review_state import ReviewState
from ..schema.reviewed_segmentation import ReviewedSegmentation
from ..schema.run_options import DEFAULT_MODEL, RunOptions


@dataclass(frozen=True, kw_only=True)
class VolumeReference:
    """A raw, C-ordered array on disk and its geometry.

    `shape` is numpy's (k, j, i) or (k, j, i, components); `dtype` a numpy name such as "int16";
    `ijk_to_lps` the 4x4 matrix, row by row, from voxel index (i, j, k, 1) to LPS millimetres.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    ijk_to_lps: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Message:
    """Base of all messages; `type` is the wire name."""

    type: ClassVar[str] = ""


@dataclass(frozen=True, kw_only=True)
class Task(Message):
    """Base of what the worker runs, one at a time; `output_folder` receives the buffers of the answer."""

    id: str
    output_folder: str


@dataclass(frozen=True, kw_only=True)
class SelfTest(Task):
    """Ask what the worker computes with and how fast, answered by `SelfTestReport`."""

    type: ClassVar[str] = "self_test"
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class ImportModel(Task):
    """Ask to install the model in `path`, a zip file or a folder, answered by `Imported`."""

    type: ClassVar[str] = "import_model"
    path: str
    replace: bool = False


@dataclass(frozen=True, kw_only=True)
class Request(Task):
    """Base of what runs on a scan."""

    volume: VolumeReference
    model: str = DEFAULT_MODEL
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class Segment(Request, RunOptions):
    """Ask for a segmentation with these run options, answered by `Result`.

    With `preview`, a `Preview` comes as soon as there is one.
    """

    type: ClassVar[str] = "segment"
    preview: bool = False


@dataclass(frozen=True, kw_only=True)
class Presegment(Request):
    """Ask for a segmentation by a model of another program in `folder`, answered by `Presegmented`.

    The model is that of nnU-Net v2 or a MONAI bundle; it is stopped after `limit_minutes`. `model` is not used. With
    `force`, a scan of another modality than the model's is accepted.
    """

    type: ClassVar[str] = "presegment"
    folder: str
    limit_minutes: float = 60.0
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class Review(Segment):
    """Ask for a review of a segmentation from another source, answered by `Result`; no `Preview` comes.

    `labels` (uint8) has the scan's geometry and the label values of the model, 0 background; larger values are other
    structures, which are not judged. `organs` are the labels that it covers. `segments` is `reviewed` of report.json.
    """

    type: ClassVar[str] = "review"
    labels: VolumeReference
    segments: ReviewedSegmentation | None = None


@dataclass(frozen=True, kw_only=True)
class Correct(Segment):
    """Ask for a correction of the result of the same `Segment` or `Review` request, answered by `Corrected`.

    `labels` is the segmentation as it is now; `scribbles`, of its shape, all scribbles so far: 0 none, 1 background,
    k + 1 label k; `locked` the label values that only a mark may touch; `reviewed` the `labels` of the `Review`.
    """

    type: ClassVar[str] = "correct"
    labels: VolumeReference
    scribbles: VolumeReference
    locked: tuple[int, ...] = ()
    reviewed: VolumeReference | None = None


@dataclass(frozen=True, kw_only=True)
class Alternatives(Segment):
    """Ask for the alternatives of the regions of the same `Segment` or `Review`, answered by `RegionAlternatives`.

    `reviewed` are the `labels` of the `Review`.
    """

    type: ClassVar[str] = "alternatives"
    reviewed: VolumeReference | None = None


@dataclass(frozen=True, kw_only=True)
class Similar(Request):
    """Ask how similar every voxel's features are to those at `point_lps` (mm), answered by `Similarity`."""

    type: ClassVar[str] = "similar"
    point_lps: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class FineTune(Request):
    """Ask for a model of the reader's own segments, answered by `FineTuned`.

    `labels` (uint8, 0 nothing) holds value n + 1 for `names[n]`; `model` is the base; `name` that of the new model.
    """

    type: ClassVar[str] = "fine_tune"
    labels: VolumeReference
    names: tuple[str, ...]
    name: str
    minutes: float = 2.0
    replace: bool = False


@dataclass(frozen=True, kw_only=True)
class Finished(Request):
    """Base of what is made of a finished result, answered by `Written` with `path`.

    `labels` (uint8) as they are now have the scan's geometry, `uncertainty` (float32, 0..1) its own, as in `Result`;
    `report` is that of the run.
    """

    labels: VolumeReference
    uncertainty: VolumeReference
    report: Report
    path: str


@dataclass(frozen=True, kw_only=True)
class WriteReport(Finished):
    """Ask for the case report, HTML or PDF by the suffix of `path`; `review` is as in review.json.

    `examination` is shown at its top; an `anonymous` report shows no patient data.
    """

    type: ClassVar[str] = "write_report"
    scan_name: str
    review: ReviewState
    examination: Examination | None = None
    anonymous: bool = False


@dataclass(frozen=True, kw_only=True)
class ExportDicom(Finished):
    """Ask for a DICOM SEG that refers to the series in `files`."""

    type: ClassVar[str] = "export_dicom"
    files: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SegmentFiles(Task, RunOptions):
    """Ask for a result folder of a scan on disk, answered by `FilesSegmented`; only the worker of a cohort does it.

    `scan` is the scan's file, or for DICOM a list of paths, each ended by a null byte, of which `series` selects one.
    The result is written to `result_folder`, a picture to `thumbnail`, and a DICOM SEG to `dicom_seg` if it is not
    empty. `settings` is a checksum of model and options. A scan whose key is `finished_key` and whose result is there
    is not segmented again. Without `identifiers` the result states no path and no series.
    """

    type: ClassVar[str] = "segment_files"
    scan: str
    result_folder: str
    thumbnail: str
    series: str | None = None
    settings: str = ""
    finished_key: str = ""
    dicom_seg: str = ""
    identifiers: bool = False
