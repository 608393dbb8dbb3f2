"""A worker that starts at once, because it imports nothing: each run waits to be cancelled. Standard library only."""

from __future__ import annotations

import json
import os
import sys


def say(**message: object) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    say(type="hello", pid=os.getpid(), protocol=5, version="", device="cpu", torch="")
    for line in sys.stdin:
        received = json.loads(line)
        if received["type"] == "shutdown":
            break
        if received["type"] == "cancel":
            say(type="cancelled", id=received["id"])
        else:
            say(type="progress", id=received["id"], stage="refine", done=0, total=1)
