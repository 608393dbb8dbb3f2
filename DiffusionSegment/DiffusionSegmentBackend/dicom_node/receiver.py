"""The services of a node that others call: C-STORE and C-ECHO, for known peers (PS3.4, B and A).

A handler runs in the thread of its association: it stores the image, records it and answers, nothing else.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections import Counter, defaultdict
from contextlib import suppress
from typing import Any

from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.events import Event
from pynetdicom.pdu import A_RELEASE_RQ
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from ..errors import DiffusionSegmentError, ErrorCode
from .completeness import Transfer
from .image_store import ImageStore
from .instance import Instance, read_instance
from .ledger import Ledger, Origin
from .settings import Limits, Listener, Peer
from .taking import take
from .tls import server_context
from .transfer_syntaxes import ACCEPTED_SYNTAXES

SUCCESS, OUT_OF_RESOURCES, WRONG_CLASS, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xA900, 0xC000
ACSE_S, DIMSE_S, NETWORK_S, CONNECTION_S = 30.0, 60.0, 60.0, 10.0
# A-ASSOCIATE-RJ: rejected permanently by the service user, calling AE title not recognized (PS3.8, 9.3.4).
_UNKNOWN_CALLER = (0x01, 0x01, 0x03)

_log = logging.getLogger(__name__)


class Receiver:
    """Listens for peers, and puts what they send into store and ledger.

    `counts` has the number of images by what became of them; `modality` is that of the scans to be segmented.
    """

    def __init__(
        self, aet: str, listener: Listener, limits: Limits, ledger: Ledger, store: ImageStore, *, modality: str
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._listener, self._limits = listener, limits
        self._ledger, self._store, self._modality = ledger, store, modality
        self._lock = threading.Lock()
        self._open: dict[str, set[int]] = defaultdict(set)
        self._broken: set[str] = set()
        self._entity = AE(ae_title=aet)

    def start(self) -> int:
        """Listen; returns the port.

        Raises:
            DiffusionSegmentError: OPTION for a port that is taken or an address that is none of this computer's.
        """
        entity = self._entity
        entity.require_called_aet = True
        entity.maximum_associations = self._listener.max_associations
        entity.acse_timeout, entity.dimse_timeout = ACSE_S, DIMSE_S
        entity.network_timeout, entity.connection_timeout = NETWORK_S, CONNECTION_S
        entity.maximum_pdu_size = 0
        entity.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(str(context.abstract_syntax), list(ACCEPTED_SYNTAXES))
        handlers: list[Any] = [
            (evt.EVT_REQUESTED, self._on_request),
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_C_ECHO, lambda event: SUCCESS),
            # Not EVT_RELEASED, which may come after the peer has closed the connection.
            (evt.EVT_PDU_RECV, self._on_pdu),
            (evt.EVT_ABORTED, lambda event: self._on_end(event, Transfer.INTERRUPTED)),
            (evt.EVT_CONN_CLOSE, lambda event: self._on_end(event, Transfer.INTERRUPTED)),
        ]
        tls = None if self._listener.tls is None else server_context(self._listener.tls)
        where = (self._listener.host, self._listener.port)
        try:
            server = entity.start_server(where, block=False, ssl_context=tls, evt_handlers=handlers)
        except OSError as error:
            raise DiffusionSegmentError(
                ErrorCode.OPTION,
                f"Port {self._listener.port} cannot be listened on ({error.strerror or error}).",
                hint="Choose another --port, or another address of this computer with --host.",
            ) from error
        assert server is not None
        return int(server.server_address[1])

    def stop(self) -> None:
        """Close the port and all associations."""
        # Threads of open associations would keep the process alive.
        self._entity.shutdown()

    def _on_request(self, event: Event) -> None:
        """Reject a caller that is not among the peers."""
        association = event.assoc
        request, host = association.requestor.primitive, association.requestor.address
        title = "" if request is None else str(request.calling_ae_title).strip()
        if any(_is_peer(peer, title, host) for peer in self._listener.peers):
            return
        self._count("association rejected")
        _log.warning("an association of an unknown peer was rejected")
        association.acse.send_reject(*_UNKNOWN_CALLER)
        association.kill()

    def _on_store(self, event: Event) -> int:
        try:
            data = event.encoded_dataset()
            instance = read_instance(data, modality=self._modality)
            stated = getattr(event.request, "AffectedSOPInstanceUID", None)
            if instance is None or instance.sop_uid != stated:
                self._count("unreadable")
                return CANNOT_UNDERSTAND
            if instance.set_aside:
                self._count(instance.set_aside)
                return SUCCESS
            return self._accept(instance, data, id(event.assoc))
        except OSError as error:
            _log.error("an image could not be stored (%s)", error.strerror)
            self._count("refused: disk")
            return OUT_OF_RESOURCES

    def _accept(self, instance: Instance, data: bytes, association: int) -> int:
        refusal = self._refusal(instance, len(data))
        if refusal:
            self._count(refusal)
            return OUT_OF_RESOURCES
        with self._lock:
            self._open[instance.series_uid].add(association)
        self._count(take(instance, data, Origin.DIMSE, self._store, self._ledger).value)
        return SUCCESS

    def _refusal(self, instance: Instance, size: int) -> str:
        """Why an image cannot be taken now; a series of which images are there already is not refused for the queue."""
        if self._store.free_bytes() - size < self._limits.min_free_bytes:
            return "refused: disk"
        if self._ledger.latest_job(instance.series_uid) is not None:
            return ""
        return "refused: queue" if self._ledger.unfinished() >= self._limits.max_queue else ""

    def _on_pdu(self, event: Event) -> None:
        if isinstance(event.pdu, A_RELEASE_RQ):
            self._on_end(event, Transfer.RELEASED)

    def _on_end(self, event: Event, transfer: Transfer) -> None:
        """Record how the last association of a series ended: interrupted if one of those open together was."""
        association = id(event.assoc)
        ended = []
        with self._lock:
            for series_uid in [uid for uid, members in self._open.items() if association in members]:
                self._open[series_uid].discard(association)
                if transfer is Transfer.INTERRUPTED:
                    self._broken.add(series_uid)
                if not self._open[series_uid]:
                    del self._open[series_uid]
                    broken = series_uid in self._broken
                    self._broken.discard(series_uid)
                    ended.append((series_uid, Transfer.INTERRUPTED if broken else Transfer.RELEASED))
        for series_uid, how in ended:
            self._ledger.end_transfer(series_uid, how)

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1


def _is_peer(peer: Peer, title: str, host: str) -> bool:
    return peer.aet == title and (peer.host is None or host in _addresses(peer.host))


def _addresses(host: str) -> set[str]:
    """The IP addresses of a host; only its name where it is not known."""
    found = {host}
    with suppress(OSError):
        found |= {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    return found
