"""TLS on all associations: both sides show a certificate that an authority signed."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from DiffusionSegmentBackend.dicom_node.destination import ObjectName, TransferError
from DiffusionSegmentBackend.dicom_node.dimse_archive import DimseArchive
from DiffusionSegmentBackend.dicom_node.settings import Address, Listener, Peer, TlsFiles
from DiffusionSegmentBackend.dicom_node.tls import server_context
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from fixtures.orthanc import free_port
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]

from .conftest import RunningNode
from .sending import SENDER, associate

NAME = ObjectName(study_uid="1", series_uid="2", sop_uid="3", sop_class_uid="4")


class Certificates:
    """An authority with certificates, as files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder, self._authority = folder, trustme.CA()
        self.authorities = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.authorities))

    def of(self, host: str) -> TlsFiles:
        issued = self._authority.issue_cert(host)
        certificate, key = self._folder / f"{host}.pem", self._folder / f"{host}.key"
        issued.cert_chain_pems[0].write_to_path(str(certificate))
        issued.private_key_pem.write_to_path(str(key))
        return TlsFiles(certificate=certificate, key=key, authorities=self.authorities)


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path / "certificates")


def context_of(files: TlsFiles | None, authorities: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authorities))
    if files is not None:
        context.load_cert_chain(files.certificate, files.key)
    return context


@pytest.mark.parametrize(("caller", "accepted"), [("signed", True), ("none", False), ("other authority", False)])
def test_only_callers_with_a_certificate_are_accepted(
    start_node: Callable[..., RunningNode], certificates: Certificates, tmp_path: Path, caller: str, accepted: bool
) -> None:
    tls = certificates.of("127.0.0.1")
    listener = Listener(port=free_port(), host="127.0.0.1", peers=(Peer(aet=SENDER),), tls=tls)
    node = start_node(listener=listener)
    files = {
        "signed": certificates.of("scanner"),
        "none": None,
        "other authority": Certificates(tmp_path / "other").of("scanner"),
    }[caller]
    association = associate(node.port, tls_args=(context_of(files, certificates.authorities), "127.0.0.1"))
    assert association.is_established is accepted
    if accepted:
        assert association.send_c_echo().Status == 0
        association.release()
    # A caller without TLS waits for an answer that never comes, and others are served meanwhile.
    assert node.node.status().faults == ()


@pytest.fixture
def secure_archive(certificates: Certificates) -> Iterator[int]:
    """An archive that answers queries over TLS, with a certificate for 127.0.0.1."""
    entity = AE(ae_title="PACS")
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    handlers = [(evt.EVT_C_FIND, lambda event: iter([(0x0000, None)]))]
    context = server_context(certificates.of("127.0.0.1"))
    server = entity.start_server(("127.0.0.1", 0), block=False, ssl_context=context, evt_handlers=handlers)
    assert server is not None
    yield int(server.server_address[1])
    server.shutdown()


def test_results_travel_to_an_archive_with_the_right_certificate(
    secure_archive: int, certificates: Certificates, tmp_path: Path
) -> None:
    own = certificates.of("node")
    archive = DimseArchive(Address(aet="PACS", host="127.0.0.1", port=secure_archive), aet="DIFFSEG", tls=own)
    assert archive.has([NAME]) is False
    other = Certificates(tmp_path / "other").of("node")
    for host, files in (("localhost", own), ("127.0.0.1", other)):
        refused = DimseArchive(Address(aet="PACS", host=host, port=secure_archive), aet="DIFFSEG", tls=files)
        with pytest.raises(TransferError) as caught:
            refused.has([NAME])
        assert caught.value.code == "UNREACHABLE"


def test_files_that_are_no_certificates_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pem"
    path.write_text("no certificate", encoding="utf-8")
    for files, code in (
        (TlsFiles(certificate=path, key=path, authorities=path), ErrorCode.INPUT_UNREADABLE),
        (TlsFiles(certificate=path, key=tmp_path / "none", authorities=path), ErrorCode.INPUT_MISSING),
    ):
        with pytest.raises(DiffusionSegmentError) as caught:
            server_context(files)
        assert caught.value.code is code
