"""What the worker keeps between requests: the last model, the session of its last run, the last scan's features."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import DiffusionSegmentError, ErrorCode
from ..imaging.volume import Volume
from ..pipeline.progress import Progress
from ..protocol.buffers import geometry_of, open_buffer
from ..protocol.messages import Alternatives, Correct, Request, Review, Segment, VolumeReference
from ..schema.run_options import run_options_of

if TYPE_CHECKING:
    from ..models.model import Model
    from ..pipeline.interactive.similarity import DenseDescriptors
    from ..pipeline.session import Session

ShowPreview = Callable[[NDArray[np.uint8]], None]


class SessionCache:
    """One entry of each kind; its key is made of everything that decides the entry's values."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Drop every entry, so that its memory is free."""
        self._model_key: tuple[str, str] | None = None
        self._model: Model | None = None
        self._session_key: tuple[object, ...] | None = None
        self._session: Session | None = None
        self._features_key: str | None = None
        self._features: DenseDescriptors | None = None

    def drop_model(self, name: str) -> None:
        """Drop every entry where the model in memory has this name, because another was installed under it."""
        if self._model_key is not None and self._model_key[0] == name:
            self.clear()

    def model(self, request: Request, progress: Progress) -> Model:
        """The model of a request on its device.

        Raises:
            DiffusionSegmentError: As `load_model`.
        """
        from ..models.model import load_model

        progress("load", 0, 1)
        key = (request.model, request.device)
        if self._model is None or self._model_key != key:
            # Cleared first: two models at once may not fit into memory.
            self.clear()
            self._model = load_model(request.model, request.device)
            self._model_key = key
        progress("load", 1, 1)
        return self._model

    def new_session(self, request: Segment, model: Model, progress: Progress, preview: ShowPreview | None) -> Session:
        """Run the model on the scan, even if the cached session matches.

        Raises:
            DiffusionSegmentError: As `open_session`.
        """
        self._session_key = None
        return self._open(request, model, progress, preview=preview)

    def session(self, request: Segment, model: Model, progress: Progress) -> Session:
        """The cached session if its key matches, otherwise that of a new run.

        Raises:
            DiffusionSegmentError: As `open_session`.
        """
        return self._open(request, model, progress)

    def replace_session(self, session: Session) -> None:
        """Store the session as corrected."""
        self._session = session

    def features(self, request: Request, model: Model, progress: Progress) -> DenseDescriptors:
        """The dense features of the request's scan.

        Raises:
            DiffusionSegmentError: As `describe_scan`.
        """
        from ..pipeline.interactive.similarity import describe_scan

        volume = volume_of(request.volume)
        key = _digest(volume)
        if self._features is None or key != self._features_key:
            self._features_key = self._features = None
            self._features = describe_scan(volume, model, progress=progress)
            self._features_key = key
        return self._features

    def _open(
        self, request: Segment, model: Model, progress: Progress, *, preview: ShowPreview | None = None
    ) -> Session:
        from ..pipeline.options import options_for_scan, resolve
        from ..pipeline.segment import open_session

        volume = volume_of(request.volume)
        reviewed = reviewed_labels_of(request)
        options = options_for_scan(run_options_of(request), reviewed=None if reviewed is None else reviewed.array)
        key = (
            _digest(volume),
            resolve(options, model).session_key,
            None if reviewed is None else _digest(reviewed),
        )
        if self._session is None or key != self._session_key:
            self._session_key = self._session = None
            self._session = open_session(volume, model, options, progress=progress, preview=preview, maps_on_grid=True)
            self._session_key = key
        return self._session


def volume_of(reference: VolumeReference) -> Volume:
    """The volume in a buffer, mapped into memory."""
    return Volume(open_buffer(reference), geometry_of(reference))


def reviewed_labels_of(request: Segment) -> Volume | None:
    """The segmentation that a request reviews, or whose review it follows; None for one of the model's own.

    Raises:
        DiffusionSegmentError: PROTOCOL for labels of another type than uint8.
    """
    reference = request.labels if isinstance(request, Review) else None
    if isinstance(request, (Correct, Alternatives)):
        reference = request.reviewed
    if reference is None:
        return None
    labels = volume_of(reference)
    if labels.array.dtype != np.uint8:
        raise DiffusionSegmentError(ErrorCode.PROTOCOL, f"Labels of {labels.array.dtype} are not supported.")
    # A copy, because the session outlives the buffer.
    return Volume(np.array(labels.array), labels.index_to_lps)


def _digest(volume: Volume) -> str:
    """A hash of voxels and geometry."""
    digest = hashlib.blake2b(np.ascontiguousarray(volume.array).data, digest_size=16)
    digest.update(np.ascontiguousarray(volume.index_to_lps).data)
    return digest.hexdigest()
