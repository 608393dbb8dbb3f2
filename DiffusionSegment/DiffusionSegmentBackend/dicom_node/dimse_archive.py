"""An archive that is reached by DIMSE: C-STORE of results, C-FIND to see that they arrived."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_context
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    EncapsulatedPDFStorage,
    SegmentationStorage,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from .destination import ObjectName, TransferError
from .settings import Address, TlsFiles
from .tls import client_context

CONNECTION_S, ACSE_S, DIMSE_S, NETWORK_S = 10.0, 30.0, 120.0, 120.0
_SUCCESS, _WARNINGS = 0x0000, range(0xB000, 0xC000)
_PENDING = (0xFF00, 0xFF01)
_FIND = StudyRootQueryRetrieveInformationModelFind
# A stored object keeps its own transfer syntax, which is explicit; a query may have either.
_STORED = (ExplicitVRLittleEndian,)
_SYNTAXES = dict.fromkeys((_FIND, Verification), (ExplicitVRLittleEndian, ImplicitVRLittleEndian))


class DimseArchive:
    """An archive at an address; `aet` is the AE title of the node."""

    def __init__(self, address: Address, *, aet: str, tls: TlsFiles | None = None) -> None:
        self._address = address
        self._tls = None if tls is None else (client_context(tls), address.host)
        self._entity = AE(ae_title=aet)
        self._entity.connection_timeout = CONNECTION_S
        self._entity.acse_timeout = ACSE_S
        self._entity.dimse_timeout = DIMSE_S
        self._entity.network_timeout = NETWORK_S

    def send(self, files: Sequence[Path]) -> None:
        """See `Destination`; all files travel on one association."""
        with self._association(SegmentationStorage, EncapsulatedPDFStorage) as association:
            for file in files:
                _store(association, file)

    def has(self, names: Sequence[ObjectName]) -> bool | None:
        """See `Destination`; None for an archive that does not offer C-FIND."""
        with self._association(_FIND, Verification) as association:
            if not _offers_find(association):
                return None
            return all(self._find(association, _instance_query(name)) for name in names)

    def images_of(self, study_uid: str, series_uid: str) -> int | None:
        """See `Destination`."""
        query = Dataset()
        query.QueryRetrieveLevel = "SERIES"
        query.StudyInstanceUID, query.SeriesInstanceUID = study_uid, series_uid
        query.NumberOfSeriesRelatedInstances = None
        with self._association(_FIND, Verification) as association:
            if not _offers_find(association):
                return None
            counts = [answer.get("NumberOfSeriesRelatedInstances") for answer in self._find(association, query)]
        stated = [int(count) for count in counts if count is not None]
        return max(stated, default=None)

    def _find(self, association: Association, query: Dataset) -> list[Dataset]:
        found = []
        for status, answer in association.send_c_find(query, _FIND):
            if not status or status.Status not in (_SUCCESS, *_PENDING):
                raise TransferError("FIND_FAILED")
            if answer is not None:
                found.append(answer)
        return found

    @contextmanager
    def _association(self, *classes: str) -> Iterator[Association]:
        association = self._entity.associate(
            self._address.host,
            self._address.port,
            contexts=[build_context(uid, list(_SYNTAXES.get(uid, _STORED))) for uid in classes],
            ae_title=self._address.aet,
            tls_args=self._tls,
        )
        if not association.is_established:
            raise TransferError("REJECTED" if association.is_rejected else "UNREACHABLE")
        try:
            yield association
        finally:
            if association.is_established:
                association.release()


def _store(association: Association, file: Path) -> None:
    """Send an object, and check that it was accepted; a warning (0xBxxx) is an acceptance."""
    try:
        answer = association.send_c_store(file)
    except ValueError as error:
        raise TransferError("CLASS_REFUSED") from error
    except RuntimeError as error:
        raise TransferError("INTERRUPTED") from error
    if "Status" not in answer:
        raise TransferError("INTERRUPTED")
    if answer.Status != _SUCCESS and answer.Status not in _WARNINGS:
        raise TransferError(f"STATUS_{answer.Status:04X}")


def _offers_find(association: Association) -> bool:
    return any(context.abstract_syntax == _FIND for context in association.accepted_contexts)


def _instance_query(name: ObjectName) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = "IMAGE"
    query.StudyInstanceUID, query.SeriesInstanceUID = name.study_uid, name.series_uid
    query.SOPInstanceUID = name.sop_uid
    return query
