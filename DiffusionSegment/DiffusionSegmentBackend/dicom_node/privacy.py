"""Keeps values of DICOM headers out of log and error output of a node's process, and its files private."""

from __future__ import annotations

import logging
import os

import pydicom.config
from pynetdicom import _config

# They log UIDs, AE titles, URLs with UIDs, and pydicom's warnings quote values such as names.
_LIBRARIES = ("pynetdicom", "pydicom", "py.warnings", "dicomweb_client", "urllib3", "requests", "asyncio")


def protect_patients() -> None:
    """Silence the libraries, read invalid values without warnings, and let new files be read by this user alone.

    To be called once, at the start of the process.
    """
    for name in _LIBRARIES:
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL + 1)
        logger.propagate = False
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False
    settings = pydicom.config.settings
    settings.reading_validation_mode = settings.writing_validation_mode = pydicom.config.IGNORE
    os.umask(0o077)
