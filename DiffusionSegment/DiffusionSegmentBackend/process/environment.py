"""Environment variables that libraries need and that a container, a notebook or a service may lack or set wrongly."""

from __future__ import annotations

import getpass
import os

# PyTorch's own lines of C++ go to standard error.
_DEFAULTS = {"TORCH_CPP_LOG_LEVEL": "ERROR"}
# A notebook names a backend of matplotlib that works inside it alone; nothing here opens a window.
_FIXED = {"MPLBACKEND": "agg"}


def prepare_environment() -> None:
    """Set what is missing or would mislead; called once a process, before the libraries are loaded."""
    os.environ.update({name: value for name, value in _DEFAULTS.items() if name not in os.environ})
    os.environ.update(_FIXED)
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):
        # A number without an entry in the table of users: MONAI, among others, asks for the name when it is loaded.
        os.environ["USER"] = "user"
