"""`make demo`: the main job from a scan to organs with uncertainty, and a picture of it.

Without a scan the built-in phantom is segmented. A DICOM folder, NIfTI, NRRD or MHA file may be named.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from DiffusionSegmentBackend.cli.main import main as diffusion_segment

from .picture import drawResult

OUTPUT = Path("demo-output")


def main() -> int:
    """Segment and draw; the exit status is that of the command line."""
    parser = argparse.ArgumentParser(description="Segment a scan and draw the result.")
    parser.add_argument("scan", nargs="?", help="DICOM folder, NIfTI, NRRD or MHA (default: the phantom)")
    parser.add_argument("-o", "--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    scan = options.scan
    if not scan:
        status = diffusion_segment(["phantom", "-o", str(options.output / "phantom"), "--overwrite"])
        if status:
            return status
        scan = str(options.output / "phantom" / "ct.nii.gz")
    result = options.output / "result"
    status = diffusion_segment(["segment", scan, "-o", str(result), "--bodypart"])
    if status:
        return status
    picture = options.output / "result.png"
    drawResult(Path(scan), result, picture)
    print(f"Picture: {picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
