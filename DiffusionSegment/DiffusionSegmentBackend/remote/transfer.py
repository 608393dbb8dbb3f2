"""Volumes to and from the server, slab by slab, several at once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import from_os_error
from ..protocol.buffers import open_buffer, write_part
from ..protocol.messages import VolumeReference
from ..protocol.slabs import Codec, decode_slab, encode_slab, slab_count, slab_range, volume_bytes
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
    """Moves volumes of one session, with the codecs that server and client have in common."""

    def __init__(self, client: ServerClient, codecs: Sequence[Codec]) -> None:
        self._client = client
        # Label maps are compressed better, and faster, than scans.
        self._up, self._down = _Choices(codecs), _Choices(codecs)

    def upload(self, reference: VolumeReference, path: str, watch: TransferWatch) -> None:
        """Send the voxels of a local file to the volume at `path` on the server; only the slabs that it lacks.

        Raises:
            DiffusionSegmentError: As `ServerClient.ask` and `open_buffer`.
        """
        declared = json.dumps({"shape": reference.shape, "dtype": reference.dtype}).encode()
        missing = json.loads(self._client.ask("PUT", path, declared, retrying=watch.retrying))["missing"]
        total = volume_bytes(reference.shape, reference.dtype)
        itemsize = np.dtype(reference.dtype).itemsize
        choice = self._up[itemsize]

        def send(index: int, voxels: memoryview) -> None:
            part = slab_range(total, index)
            codec, started = choice.next(), time.monotonic()
            encoded = encode_slab(voxels[part.start : part.stop], itemsize, codec)
            slab = f"{path}/slabs/{index}?codec={codec.value}"
            self._client.ask("PUT", slab, encoded, retrying=watch.retrying)
            choice.moved(codec, len(part), time.monotonic() - started)

        if missing:
            voxels = open_buffer(reference).data.cast("B")
            _each(lambda index: send(index, voxels), missing, watch.moved)

    def download(self, reference: VolumeReference, path: str, file: Path, watch: TransferWatch) -> VolumeReference:
        """Fetch the volume at `path` on the server into a file; the reference to it.

        Raises:
            DiffusionSegmentError: As `ServerClient.ask`; DISK_FULL or OUTPUT_UNWRITABLE; no partial file is left.
        """
        total = volume_bytes(reference.shape, reference.dtype)
        itemsize = np.dtype(reference.dtype).itemsize
        choice = self._down[itemsize]

        def fetch(index: int) -> None:
            codec, started, part = choice.next(), time.monotonic(), slab_range(total, index)
            slab = f"{path}/slabs/{index}?codec={codec.value}"
            encoded = self._client.ask("GET", slab, retrying=watch.retrying)
            data = decode_slab(encoded, itemsize, codec, len(part))
            write_part(file, part.start, data)
            choice.moved(codec, len(part), time.monotonic() - started)

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


class _Choices(dict[int, CodecChoice]):
    """The choice of a codec by the bytes of a value, made when it is first asked for."""

    def __init__(self, codecs: Sequence[Codec]) -> None:
        super().__init__()
        self._codecs = codecs

    def __missing__(self, itemsize: int) -> CodecChoice:
        choice = self[itemsize] = CodecChoice(self._codecs, itemsize=itemsize)
        return choice


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
