"""A worker with a fault: it sends hello, reads one request, and then fails as its argument says."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "DiffusionSegment"))

from DiffusionSegmentBackend.protocol.messages import PROTOCOL_VERSION


def send(**message: object) -> None:
    print(json.dumps(message), flush=True)


def main(fault: str) -> None:
    protocol = 99 if fault == "other version" else PROTOCOL_VERSION
    send(type="hello", pid=os.getpid(), protocol=protocol, version="0", device="auto", torch="")
    request = json.loads(sys.stdin.readline() or "null")
    if fault == "rubbish":
        print("this is no message", flush=True)
    if fault == "new code":
        send(type="error", id=request["id"], code="CODE_OF_A_LATER_VERSION", message="A later error.", hint="Wait.")
    if fault == "unresponsive":
        time.sleep(60)
    if fault == "crossing":
        sys.stdin.readline()
        empty = {"path": "/nonexistent", "shape": [1, 1, 1], "dtype": "uint8", "ijk_to_lps": [0.0] * 16}
        maps = dict.fromkeys(("labels", "uncertainty", "mutual_information"), empty)
        send(type="result", id=request["id"], report={}, **maps)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
