"""What "Reload and Test" and ctest run inside Slicer: a small volume goes to the real worker, its answer comes back."""

import time

import numpy as np
from DiffusionSegmentBackend.errors import DiffusionSegmentError

from .worker.client import WorkerClient
from .worker.subprocess_transport import SubprocessTransport

_SECONDS = 120


def runSelfTest() -> None:
    """Send an empty scan to the worker; without torch or organs it must refuse in words, and then leave.

    Raises:
        AssertionError: the worker did not answer.
    """
    answers: list[DiffusionSegmentError] = []
    transport = SubprocessTransport()
    client = WorkerClient(lambda: transport)
    client.failed.connect(lambda _, error: answers.append(error))
    client.segment(np.full((8, 16, 16), -1000, np.int16), np.eye(4), samples=1, steps=1)
    end = time.monotonic() + _SECONDS
    while not answers and time.monotonic() < end:
        transport.poll(0.1)
    client.close()
    assert answers, "the worker did not answer"
    assert answers[0].hint, "the answer does not say what to do"
