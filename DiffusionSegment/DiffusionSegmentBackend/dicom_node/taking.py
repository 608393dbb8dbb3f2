"""An image that is taken, wherever it comes from: first its file, then its record."""

from __future__ import annotations

import hashlib

from .image_store import ImageStore
from .instance import Instance
from .ledger import Ledger, Origin, Receipt


def take(instance: Instance, data: bytes, origin: Origin, store: ImageStore, ledger: Ledger) -> Receipt:
    """Store and record an image; a file that is recorded already is not written again.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    path = store.path_of(instance.series_uid, instance.sop_uid)
    if ledger.digest_of(instance.sop_uid) is None:
        store.put(path, data)
    return ledger.receive(instance, hashlib.sha256(data).hexdigest(), origin, file=path)
