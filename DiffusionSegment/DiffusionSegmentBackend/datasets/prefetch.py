"""Prefetch the batches of the next training steps in a background thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
_POLL_SECONDS = 0.5


@contextmanager
def prefetched(make: Callable[[int], Item], *, start: int = 0, depth: int = 4) -> Iterator[Iterator[Item]]:
    """Context of an infinite iterator over make(start), make(start + 1), ..., with up to `depth` results prefetched.

    The thread uses one core. An exception in `make` is raised by the iterator.
    """
    ready: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(depth)
    stop = threading.Event()

    def put(result: tuple[Item | None, BaseException | None]) -> None:
        while not stop.is_set():
            try:
                ready.put(result, timeout=_POLL_SECONDS)
                return
            except queue.Full:
                continue

    def work() -> None:
        torch.set_num_threads(1)
        number = start
        while not stop.is_set():
            try:
                put((make(number), None))
            except BaseException as error:
                put((None, error))
                return
            number += 1

    def items() -> Iterator[Item]:
        while True:
            result, error = ready.get()
            if error is not None:
                raise error
            yield result  # type: ignore[misc]

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        yield items()
    finally:
        stop.set()
        thread.join()
