"""Runs a DICOM node until the process is asked to end."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from importlib.util import find_spec
from types import FrameType

from ..dicom_node.node import DicomNode
from ..dicom_node.privacy import protect_patients
from ..dicom_node.settings import NodeSettings
from ..errors import missing_package
from ..process.logs import configure_logging

_REPORT_PACKAGES = ("jinja2", "matplotlib")
_TICK_S = 1.0


def run_dicom_node(settings: NodeSettings, *, verbose: bool = False) -> None:
    """Serve until SIGTERM or SIGINT; a second node goes on where this one ended.

    Raises:
        DiffusionSegmentError: PACKAGE_MISSING, and what is wrong with the settings, the folder or a port.
    """
    _check_packages()
    protect_patients()
    configure_logging(show=True)
    logging.getLogger("DiffusionSegmentBackend").setLevel(logging.DEBUG if verbose else logging.INFO)
    ended = threading.Event()

    def end(signum: int, frame: FrameType | None) -> None:
        ended.set()

    node = DicomNode(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    try:
        port, health = node.start()
        if settings.listener is not None:
            print(f"Listening as {settings.aet} on port {port}.")
        if health is not None:
            print(f"Health and metrics on port {health}.")
        sys.stdout.flush()
        # Windows delivers signals only between two waits.
        while not ended.wait(_TICK_S):
            pass
    finally:
        node.stop()


def _check_packages() -> None:
    """Refuse to start without the packages of the report, which the worker would miss after the first run."""
    for name in _REPORT_PACKAGES:
        if find_spec(name) is None:
            raise missing_package(ModuleNotFoundError(name=name))
