"""Many studies at once: some are sent twice, one is cut off and sent again; each is answered once.

`python -m dicom_node.many_studies --count 50` with a real archive and a stand-in for the networks.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, Queue

import pydicom
from DiffusionSegmentBackend.dicom_node.ledger import JobState
from DiffusionSegmentBackend.dicom_node.settings import address
from fixtures.dicom_phantom import write_phantom_series
from fixtures.orthanc import running_orthanc
from fixtures.tiny_model import write_tiny_model

from .conftest import PATIENCE, running_node
from .sending import files_of, send

_SENDERS = 4


@dataclass(frozen=True)
class Outcome:
    """What became of all studies.

    `segmentations` and `reports` are the numbers of objects of each study; `runs` counts those of the stand-in.
    """

    studies: int
    segmentations: tuple[int, ...]
    reports: tuple[int, ...]
    runs: int
    images: int
    sending_s: float
    total_s: float

    @property
    def each_once(self) -> bool:
        """Whether every study has exactly one DICOM SEG and one report, of exactly one run."""
        once = (1,) * self.studies
        return self.segmentations == once and self.reports == once and self.runs == self.studies


def send_many(folder: Path, *, count: int, twice: int = 2) -> Outcome:
    """Send `count` studies on four associations at a time, `twice` of them twice, one cut off and then whole."""
    scans = [write_phantom_series(folder / "scans" / str(n), f"study {n}") for n in range(count)]
    model = write_tiny_model(folder / "models")
    transfers: Queue[Path] = Queue()
    order = [*scans, *scans[1 : 1 + twice]]
    random.Random(0).shuffle(order)
    for scan in order:
        transfers.put(scan)
    # A sender that was interrupted takes longer than another series to try again.
    patience = replace(PATIENCE, limit_s=120.0)
    with running_orthanc(folder / "archive") as archive:
        forward = address(archive.address)
        with running_node(folder, model, forward=forward, patience=patience) as node:
            began = time.monotonic()
            files = files_of(scans[0])
            send(node.port, files[: len(files) // 2], abort=True)
            threads = [threading.Thread(target=_send_all, args=(node.port, transfers)) for _ in range(_SENDERS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            sending_s = time.monotonic() - began
            node.until(lambda: len(node.jobs(JobState.DONE)) >= count, seconds=60.0 * count)
            node.until_idle(jobs=count)
            total_s = time.monotonic() - began
            studies = [str(pydicom.dcmread(files_of(scan)[0]).StudyInstanceUID) for scan in scans]
            found = {
                modality: tuple(
                    len(archive.ask("/tools/find", _instances(study, modality))) for study in studies
                )
                for modality in ("SEG", "DOC")
            }
            images = sum(len(files_of(scan)) for scan in order) + len(files) // 2
            return Outcome(count, found["SEG"], found["DOC"], node.runs, images, sending_s, total_s)


def _instances(study: str, modality: str) -> dict[str, object]:
    return {"Level": "Instance", "Query": {"StudyInstanceUID": study, "Modality": modality}}


def _send_all(port: int, transfers: Queue[Path]) -> None:
    while True:
        try:
            scan = transfers.get_nowait()
        except Empty:
            return
        statuses = send(port, files_of(scan))
        if any(statuses):
            raise RuntimeError(f"an image was refused: {statuses}")


def main() -> None:
    """Send the studies, and print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50, help="studies")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="many-studies-"))
    try:
        outcome = send_many(folder, count=options.count)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(
        f"{outcome.studies} studies, each answered once: {outcome.each_once}. {outcome.images} images sent in "
        f"{outcome.sending_s:.1f} s, all results found in the archive after {outcome.total_s:.1f} s: "
        f"{outcome.total_s / outcome.studies:.2f} s a study."
    )


if __name__ == "__main__":
    main()
