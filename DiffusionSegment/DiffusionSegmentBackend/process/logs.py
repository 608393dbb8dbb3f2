"""Logging of the program and of libraries.

Modules log by `logging.getLogger(__name__)`. The command line shows the log with --verbose; the worker writes it to
standard error, whose last lines the panel copies with *Copy details*.
"""

from __future__ import annotations

import logging
import sys

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_OURS = "DiffusionSegmentBackend"


def configure_logging(*, show: bool, verbose: bool = False) -> None:
    """Send the log of this process, the libraries' logs and their warnings to standard error, or nowhere.

    With `show`, own messages from INFO and warnings of libraries are written; with `verbose`, all own messages and INFO
    of libraries.
    A second call replaces the configuration of the first.
    """
    logging.captureWarnings(True)
    handler: logging.Handler = logging.StreamHandler(sys.stderr) if show else logging.NullHandler()
    handler.setFormatter(logging.Formatter(_FORMAT, "%H:%M:%S"))
    root = logging.getLogger()
    for other in [old for old in root.handlers if getattr(old, "of_diffusion_segment", False)]:
        root.removeHandler(other)
    handler.of_diffusion_segment = True  # type: ignore[attr-defined]
    root.addHandler(handler)
    root.setLevel(logging.INFO if verbose else logging.WARNING)
    logging.getLogger(_OURS).setLevel(logging.DEBUG if verbose else logging.INFO)
