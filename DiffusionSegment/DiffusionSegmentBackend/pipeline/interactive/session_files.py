"""`session.zip`: the session of a run in its result folder, from which corrections need no new run.

A zip file of raw little-endian arrays and `session.json`, which identifies model, scan and options. The arrays are
those of the prediction, inside the box around the body: the start of the samples, the ensemble and its mutual
information, the islands, the samples' label maps, and the body coordinates. Image and grid are recomputed from the
scan. Probabilities are rounded to multiples of 1/2048, the precision of half floats between 0.5 and 1; body coordinates
are half floats (0.25 mm at 500 mm).
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...imaging.volume import Grid, Volume, model_grid
from ...models.model import Model, weights_sha256
from ...models.tile_shape import Sides
from ..memory import MemoryPlan
from ..options import SegmentOptions, resolve, run_plan_of
from ..prepare import network_input
from ..session import Prediction, Session

_HEADER = "session.json"
_FORMAT = 1
_MAX_HEADER_BYTES = 2**20
_PROBABILITY_STEPS = 2048
_HALF, _BYTE = np.dtype("<f2"), np.dtype("u1")
# Raised on reading damaged files.
_DAMAGE = (
    *(OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError),
    *(ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError),
)


class UnusableSessionError(Exception):
    """A session file that cannot be used for this result; the message is the end of a sentence."""


@dataclass(frozen=True)
class _Layout:
    """Name, type and shape of the arrays of a session file."""

    classes: int
    samples: int
    box: Sides

    def arrays(self) -> dict[str, tuple[np.dtype[Any], Sides]]:
        """Type and shape by entry of the zip file, without the header: one per class, sample or axis."""
        halves = [f"{name}/{n}" for name in ("start", "ensemble") for n in range(self.classes)]
        halves += ["mutual_information", *(f"coordinates/{n}" for n in range(3))]
        labels = ["islands", *(f"samples/{n}" for n in range(self.samples))]
        return {**dict.fromkeys(halves, (_HALF, self.box)), **dict.fromkeys(labels, (_BYTE, self.box))}


def write_session(session: Session, volume: Volume, model: Model, options: SegmentOptions, path: Path) -> None:
    """Write the session of a run on `volume`, without the corrections applied to it.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    prediction = session.prediction
    header = {
        "format": _FORMAT,
        **_identity(volume, model, options),
        "offset": list(prediction.offset),
        "box": list(prediction.pre.shape[1:]),
        "tiled_shape": list(prediction.tiled_shape),
        "sample_maps": len(prediction.sample_labels),
        "warnings": list(prediction.warnings),
        "seconds": session.seconds,
        "way": _memory_plan_json(session.memory_plan),
        "notice": session.notice,
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as file:
        file.writestr(_HEADER, json.dumps(header))
        for name, array in _arrays(prediction):
            file.writestr(name, np.ascontiguousarray(array).tobytes())


def read_session(path: Path, volume: Volume, model: Model, options: SegmentOptions) -> Session:
    """Read a session written by `write_session` for the same scan, model and options.

    Raises:
        UnusableSessionError: the file is missing, damaged, or of another run.
    """
    if not path.is_file():
        raise UnusableSessionError("none was kept")
    try:
        with zipfile.ZipFile(path) as file:
            header = _header(file)
            for what, value in _identity(volume, model, options).items():
                if header.get(what) != value:
                    raise UnusableSessionError(f"it is of another {_WORDS[what]}")
            grid = model_grid(volume, spacing=model.description.spacing_mm)
            prediction = _prediction(file, header, grid, model)
            seconds = {str(stage): float(value) for stage, value in header["seconds"].items()}
            memory_plan, notice = _memory_plan(header["way"]), str(header["notice"])
    except _DAMAGE as error:
        raise UnusableSessionError("it is damaged") from error
    return Session(
        grid=grid,
        image=torch.from_numpy(network_input(volume, grid, model.description)),
        prediction=prediction,
        run=run_plan_of(options, model),
        wanted=[model.description.label_named(name).value for name in options.organs or ()],
        voxel_ml=volume.voxel_ml,
        seconds=seconds,
        memory_plan=memory_plan,
        notice=notice,
        reviewed=options.reviewed,
    )


_WORDS = {"format": "version", "sha256": "model", "scan": "scan", "run": "run"}


def _identity(volume: Volume, model: Model, options: SegmentOptions) -> dict[str, Any]:
    """The inputs that determine the arrays, as JSON values."""
    run: dict[str, object] = dict(resolve(options, model).session_key)
    given = options.presegmentation
    run["presegmentation"] = None if given is None else _digest(given)
    if options.reviewed is not None:
        run["reviewed"] = _digest(options.reviewed)
    identity = {
        "format": _FORMAT,
        "sha256": weights_sha256(model.description),
        "scan": _digest(volume.array, volume.index_to_lps),
        "run": run,
    }
    return dict(json.loads(json.dumps(identity)))


def _digest(*arrays: NDArray[Any]) -> str:
    """A hash of the shapes and values of arrays, independent of their type."""
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(repr(array.shape).encode())
        for part in array:
            digest.update(np.ascontiguousarray(part, dtype=np.float64).tobytes())
    return digest.hexdigest()


def _arrays(prediction: Prediction) -> Iterator[tuple[str, NDArray[Any]]]:
    """The arrays of `_Layout`, one at a time to limit memory."""
    z, y, x = (slice(o, o + n) for o, n in zip(prediction.offset, prediction.pre.shape[1:], strict=True))
    for name, maps in (("start", prediction.start), ("ensemble", prediction.ensemble)):
        for n, probability in enumerate(maps):
            yield f"{name}/{n}", _rounded(probability)
    yield "mutual_information", _rounded(prediction.mutual_information)
    for n, axis in enumerate(prediction.coordinates_mm[:, z, y, x]):
        yield f"coordinates/{n}", axis.numpy().astype(_HALF)
    yield "islands", prediction.islands.numpy()
    for n, labels in enumerate(prediction.sample_labels):
        yield f"samples/{n}", labels.numpy()


def _rounded(values: Tensor) -> NDArray[np.float16]:
    """Values 0..1 rounded to multiples of 1/2048: smaller differences of half floats would not compress."""
    return (values.float().mul(_PROBABILITY_STEPS).round().div(_PROBABILITY_STEPS)).numpy().astype(_HALF)


def _header(file: zipfile.ZipFile) -> dict[str, Any]:
    if file.getinfo(_HEADER).file_size > _MAX_HEADER_BYTES:
        raise ValueError("header")
    header = json.loads(file.read(_HEADER))
    if not isinstance(header, dict):
        raise TypeError("header")
    return header


def _prediction(file: zipfile.ZipFile, header: Mapping[str, Any], grid: Grid, model: Model) -> Prediction:
    """The arrays of a file, read after a check of all sizes."""
    offset, box = _sides(header["offset"], low=0), _sides(header["box"], low=1)
    tiled_shape = _sides(header["tiled_shape"], low=1)
    if any(o + n > size for o, n, size in zip(offset, box, grid.shape, strict=True)):
        raise ValueError("box")
    if tiled_shape != tuple(model.tile.covering(box)):
        raise ValueError("tiled_shape")
    classes = model.description.classes
    layout = _Layout(classes, _integer(header["sample_maps"], low=1, high=64), box)
    known = {name: file.getinfo(name) for name in layout.arrays()}
    for name, (dtype, shape) in layout.arrays().items():
        if known[name].file_size != int(np.prod(shape, dtype=np.int64)) * dtype.itemsize:
            raise ValueError(name)

    def read(name: str) -> Tensor:
        dtype, shape = layout.arrays()[name]
        # A copy, because torch needs a writable array; in native byte order.
        array = np.frombuffer(file.read(name), dtype=dtype).reshape(shape).astype(dtype.newbyteorder("="))
        if (dtype == _HALF and not np.isfinite(array).all()) or (dtype == _BYTE and array.max() >= classes):
            raise ValueError(name)
        return torch.from_numpy(array)

    z, y, x = (slice(o, o + n) for o, n in zip(offset, box, strict=True))
    coordinates = torch.zeros((3, *grid.shape))
    for n in range(3):
        coordinates[n, z, y, x] = read(f"coordinates/{n}").float()
    start = torch.stack([read(f"start/{n}") for n in range(classes)])
    return Prediction(
        # The probe's own probabilities are not stored: nothing that is made from a session needs them.
        pre=start,
        start=start,
        ensemble=torch.stack([read(f"ensemble/{n}") for n in range(classes)]),
        islands=read("islands"),
        mutual_information=read("mutual_information"),
        sample_labels=tuple(read(f"samples/{n}") for n in range(layout.samples)),
        coordinates_mm=coordinates,
        offset=offset,
        tiled_shape=tiled_shape,
        warnings=tuple(str(text) for text in header["warnings"]),
    )


def _memory_plan_json(plan: MemoryPlan) -> dict[str, Any]:
    return {"most_slices": plan.max_slices, "on_disk": plan.on_disk, "bytes": plan.bytes}


def _memory_plan(value: Mapping[str, Any]) -> MemoryPlan:
    slices = value["most_slices"]
    return MemoryPlan(
        max_slices=None if slices is None else _integer(slices, low=1, high=2**31),
        on_disk=bool(value["on_disk"]),
        bytes=_integer(value["bytes"], low=0, high=2**63),
    )


def _sides(value: object, *, low: int) -> Sides:
    if not isinstance(value, list) or len(value) != 3:
        raise TypeError(f"{value!r:.40}")
    z, y, x = (_integer(side, low=low, high=2**31) for side in value)
    return z, y, x


def _integer(value: object, *, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{value!r:.40}")
    return value
