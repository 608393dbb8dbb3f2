"""Segmentation of a scan by a model of another program, for the panel and scripts in Slicer."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from ..imaging.segmentation_files import read_segmentation
from ..imaging.volume import Volume
from ..imaging.volume_io import Scan
from ..pipeline.checks import check_modality
from ..pipeline.progress import Progress
from ..presegmenters.registry import model_in
from ..presegmenters.run import RunLimits, run_presegmenter
from ..protocol.messages import Presegment, Presegmented
from .answer import EngineAnswer
from .session_cache import volume_of


def presegment_scan(request: Presegment, progress: Progress) -> EngineAnswer:
    """Run the model in the folder of the request in a child process, which ends when the run is cancelled.

    Raises:
        DiffusionSegmentError: MODALITY for a model of another modality than the scan's; as `model_in`,
            `run_presegmenter` and `read_segmentation`; CANCELLED.
    """
    stage = "presegmenter"
    progress(stage, 0, 1)
    model = model_in(Path(request.folder).expanduser())
    volume = volume_of(request.volume)
    if model.modality is not None and not request.force:
        check_modality(volume.array, expected=model.modality, stated=None)
    limits = RunLimits(device=request.device, minutes=request.limit_minutes)
    with TemporaryDirectory(prefix="presegmenter-", dir=request.output_folder) as folder:
        output = run_presegmenter(
            model, volume, Path(folder), limits, check_cancelled=lambda: progress(stage, 0, 1)
        )
        file = read_segmentation(output, Scan(volume), names=model.names)
    progress(stage, 1, 1)
    return EngineAnswer(
        Presegmented,
        {"labels": Volume(file.labels, volume.index_to_lps)},
        {
            "values": tuple(file.names),
            "names": tuple(name.name for name in file.names.values()),
            "title": model.folder.name,
            "warnings": file.notes,
        },
    )
