"""What is installed, and whether it is whole."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import torch

from .. import __version__
from ..errors import DiffusionSegmentError
from ..models.manifest import list_models
from ..models.model import load_model


def check_installation() -> dict[str, Any]:
    """Versions, devices, models, and whether their weights are whole."""
    state = {}
    for name in list_models():
        try:
            load_model(name, "cpu")
            state[name] = "ok"
        except DiffusionSegmentError as error:
            state[name] = str(error)
    return {
        "software": __version__,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "cpu_cores": os.cpu_count(),
        "models": state,
    }
