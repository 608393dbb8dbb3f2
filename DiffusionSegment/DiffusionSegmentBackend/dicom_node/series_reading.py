"""Reading a series in a process of its own, which damaged files may crash, hang or fill without harm to the node.

`python -m DiffusionSegmentBackend.dicom_node.series_reading REQUEST.json`: the request holds `scan`, a folder, and
`output`, a folder that receives volume.raw and answer.json.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from ..errors import DiffusionSegmentError, ErrorCode, out_of_memory
from ..presegmenters.run import run_in_child
from ..process.environment import prepare_environment
from ..protocol.buffers import write_buffer
from ..protocol.messages import VolumeReference
from ..schema.dataclass_json import from_json, to_json
from ..schema.examination import Examination

_ANSWER = "answer.json"


@dataclass(frozen=True, kw_only=True)
class SeriesVolume:
    """A series as a volume on disk: HU for a CT.

    `series` and `key` name it for the provenance; `notes` are warnings for the report, which shows the `examination`.
    """

    volume: VolumeReference
    modality: str
    series: str
    key: str
    notes: tuple[str, ...]
    examination: Examination


def read_series(scan: Path, output: Path, *, force: bool, seconds: float) -> SeriesVolume:
    """Read the only series in the folder `scan`, in a child process that is ended after `seconds`.

    Raises:
        DiffusionSegmentError: what `read_scan` raises, MODALITY for a CT without HU unless `force`, and
            INPUT_UNREADABLE if the process crashes or takes too long.
    """
    request = output / "request.json"
    request.write_text(json.dumps({"scan": str(scan), "output": str(output), "force": force}), encoding="utf-8")
    command = [sys.executable, "-m", f"{__package__}.series_reading", str(request)]
    status = run_in_child(command, output / "log.txt", output, seconds=seconds)
    if status != 0:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_UNREADABLE,
            "The series could not be read: " + ("it took too long." if status is None else f"exit status {status}."),
            hint="Export the series again from where it was acquired.",
        )
    answer = json.loads((output / _ANSWER).read_text(encoding="utf-8"))
    if "code" in answer:
        raise DiffusionSegmentError(ErrorCode(answer["code"]), answer["message"], hint=answer["hint"])
    return from_json(SeriesVolume, answer)


def main(arguments: list[str]) -> int:
    """Read the series of a request; returns the exit status."""
    prepare_environment()
    request = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    output = Path(request["output"])
    try:
        answer = to_json(_read(Path(request["scan"]), output, force=request["force"]))
    except (DiffusionSegmentError, MemoryError) as raised:
        error = raised if isinstance(raised, DiffusionSegmentError) else out_of_memory("the series")
        answer = {"code": error.code.value, "message": error.message, "hint": error.hint}
    (output / _ANSWER).write_text(json.dumps(answer), encoding="utf-8")
    return 0


def _read(scan: Path, output: Path, *, force: bool) -> SeriesVolume:
    from ..imaging.dicom_examination import read_examination
    from ..imaging.dicom_scan import check_hounsfield, read_dicom
    from ..imaging.shear import notes_of

    read = read_dicom(scan)
    if not force:
        check_hounsfield(read)
    volume = read.volume
    return SeriesVolume(
        volume=write_buffer(output / "volume.raw", volume.array, volume.index_to_lps),
        modality=read.series.modality,
        series=read.series.title,
        key=read.series.key,
        notes=tuple(notes_of(volume)),
        examination=read_examination(read.series.path),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
