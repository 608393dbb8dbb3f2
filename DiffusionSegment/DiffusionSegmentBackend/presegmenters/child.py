"""The child process of a presegmenter: `python -m DiffusionSegmentBackend.presegmenters.child REQUEST.json`.

The request holds `kind`, `folder`, `scan`, `output` and `device`. The last line that is printed names an error.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path

from ..errors import DiffusionSegmentError, one_line
from ..process.environment import prepare_environment
from .registry import PRESEGMENTERS


def main(arguments: list[str]) -> int:
    """Segment the scan of a request; returns the exit status."""
    prepare_environment()
    request = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    plugin = PRESEGMENTERS[request["kind"]]
    try:
        model = plugin.describe(Path(request["folder"]))
        plugin.segment(model, Path(request["scan"]), Path(request["output"]), device=request["device"])
    except DiffusionSegmentError as error:
        print(error, flush=True)
        return 1
    except Exception as error:
        traceback.print_exc()
        sys.stderr.flush()
        print(summary_of(error), flush=True)
        return 1
    return 0


def summary_of(error: BaseException) -> str:
    """An error and the first one that led to it, in one line."""
    cause: BaseException | None = error
    while cause is not None and cause.__cause__ is not None:
        cause = cause.__cause__
    chain = [error] if cause is error else [error, cause]
    return ", because of ".join(one_line(f"{type(item).__name__}: {item}").rstrip(". ") for item in chain)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
