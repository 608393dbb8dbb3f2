"""Volumes to and from the server, slab by slab, several at once."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DiffusionSegmentError, ErrorCode, from_os_error
from ..protocol.messages import VolumeReference
from ..protocol.slabs import decode_slab, encode_slab, slab_count, slab_range, volume_bytes
from .codec_choice import CodecChoice
from .http_client import ServerClient
from .patience import Retrying

_THREADS = 2

# Gets the slabs that were moved and their number; raises to stop.
Moved = Callable[[int, int], None]


@dataclass(frozen=True)
class TransferWatch:
    """What is told about a transfer: each slab, and each new attempt after a loss of the network."""

    moved: Moved
    retrying: Retrying


class Transfer:
    """Moves volumes of one session."""

    def __init__(self, client: ServerClient) -> None:
        self._client = client
        self._up, self._down = CodecChoice(), CodecChoice()

    def upload(self, reference: VolumeReference, path: str, watch: TransferWatch) -> None:
        """Send the voxels of a local file to the volume at `path` on the server; only the slabs that it lacks.

        Raises:
            DiffusionSegmentError: As `ServerClient.ask`; INPUT_MISSING for a file that is gone.
        """
        declared = json.dumps({"shape": reference.shape, "dtype": reference.dtype}).encode()
        missing = json.loads(self._client.ask("PUT", path, declared, retrying=watch.retrying))["missing"]
        total = volume_bytes(reference.shape, reference.dtype)
        itemsize = np.dtype(reference.dtype).itemsize

        def send(index: int) -> None:
            data = _read(reference.path, slab_range(total, index))
            codec, started = self._up.next(), time.monotonic()
            encoded = encode_slab(data, itemsize, codec)
            self._client.ask("PUT", f"{path}/slabs/{index}", encoded, retrying=watch.retrying)
            self._up.moved(codec, size=len(data), encoded=len(encoded), seconds=time.monotonic() - started)

        _each(send, missing, watch.moved)

    def download(self, reference: VolumeReference, path: str, file: Path, watch: TransferWatch) -> VolumeReference:
        """Fetch the volume at `path` on the server into a file; the reference to it.

        Raises:
            DiffusionSegmentError: As `ServerClient.ask`; DISK_FULL or OUTPUT_UNWRITABLE; no partial file is left.
        """
        total = volume_bytes(reference.shape, reference.dtype)
        itemsize = np.dtype(reference.dtype).itemsize

        def fetch(index: int) -> None:
            codec, started, part = self._down.next(), time.monotonic(), slab_range(total, index)
            slab = f"{path}/slabs/{index}?codec={codec.name.lower()}"
            encoded = self._client.ask("GET", slab, retrying=watch.retrying)
            data = decode_slab(encoded, itemsize, len(part))
            _write(file, part.start, data)
            self._down.moved(codec, size=len(part), encoded=len(encoded), seconds=time.monotonic() - started)

        try:
            with open(file, "wb") as made:
                made.truncate(total)
            _each(fetch, list(range(slab_count(total))), watch.moved)
        except BaseException as error:
            file.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise from_os_error(error, file) from error
            raise
        return VolumeReference(
            path=str(file), shape=reference.shape, dtype=reference.dtype, ijk_to_lps=reference.ijk_to_lps
        )


def _each(action: Callable[[int], None], indices: list[int], moved: Moved) -> None:
    """Call an action for all indices on several threads; the first failure ends them all."""
    with ThreadPoolExecutor(_THREADS) as pool:
        jobs = [pool.submit(action, index) for index in indices]
        try:
            for done, job in enumerate(jobs, start=1):
                job.result()
                moved(done, len(jobs))
        except BaseException:
            for job in jobs:
                job.cancel()
            raise


def _read(path: str, part: range) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            file.seek(part.start)
            data = file.read(len(part))
    except OSError as error:
        raise DiffusionSegmentError(ErrorCode.INPUT_MISSING, "The volume buffer is gone.") from error
    if len(data) != len(part):
        raise DiffusionSegmentError(ErrorCode.PROTOCOL, "The volume buffer has the wrong size.")
    return data


def _write(path: Path, start: int, data: memoryview) -> None:
    with open(path, "r+b", buffering=0) as file:
        file.seek(start)
        if file.write(data) != len(data):
            raise OSError(28, os.strerror(28))
