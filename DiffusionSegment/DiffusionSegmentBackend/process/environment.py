"""Environment variables for libraries, which a container, a notebook or a service may lack or set wrongly."""

from __future__ import annotations

import getpass
import os

# PyTorch's C++ log goes to standard error.
_DEFAULTS = {"TORCH_CPP_LOG_LEVEL": "ERROR"}
# A notebook sets a backend of matplotlib that works only inside it; no window is ever opened.
_FIXED = {"MPLBACKEND": "agg"}


def prepare_environment() -> None:
    """Set missing or unsuitable variables; to be called once per process, before the libraries are imported."""
    os.environ.update({name: value for name, value in _DEFAULTS.items() if name not in os.environ})
    os.environ.update(_FIXED)
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):
        # A user ID without an entry in the password database; MONAI, among others, needs the name when imported.
        os.environ["USER"] = "user"
