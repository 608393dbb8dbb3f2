"""The command `dicom-node` with a stand-in worker and short pauses, as a process that a test can kill.

Arguments: the folder that controls the stand-in worker, then those of the command.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "DiffusionSegment"))

from DiffusionSegmentBackend.cli.dicom_node import node_settings
from DiffusionSegmentBackend.cli.main import build_parser
from DiffusionSegmentBackend.commands.dicom_node import run_dicom_node

if __name__ == "__main__":
    settings = node_settings(build_parser().parse_args(["dicom-node", *sys.argv[2:]]))
    worker = (sys.executable, "-u", str(Path(__file__).with_name("stand_in_worker.py")), sys.argv[1])
    limits = replace(settings.limits, retry_s=(0.2,), min_free_bytes=1)
    run_dicom_node(replace(settings, worker=worker, poll_s=0.03, search_s=0.2, limits=limits), verbose=True)
