"""The process of a worker of a cohort: `python -m DiffusionSegmentBackend.cohort.worker_main`.

It is the worker behind the panel with another engine: requests on standard input, answers on standard output.
"""

from __future__ import annotations

from ..worker.server import main
from .worker_engine import CohortEngine

if __name__ == "__main__":
    main(CohortEngine())
