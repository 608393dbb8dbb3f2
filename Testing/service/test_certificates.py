"""Certificates: authorities, fingerprints, and what is wrong with a server that is another."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode
from DiffusionSegmentBackend.protocol.connection import ServerConnection, server_connection
from DiffusionSegmentBackend.remote.bridge import greeting
from DiffusionSegmentBackend.remote.http_client import ServerClient
from DiffusionSegmentBackend.service.server import ServiceOptions, serve
from fixtures.running_service import RunningService


class Authority:
    """A certificate authority and the servers that it vouches for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = trustme.CA()
        self.file = folder / f"ca-{id(self)}.pem"
        self._authority.cert_pem.write_to_path(self.file)

    def issue(self, host: str = "127.0.0.1", **options: Any) -> str:
        """Certificate and key of a server in one file."""
        certificate = self._authority.issue_cert(host, **options)
        path = self._folder / f"{host}-{id(certificate)}.pem"
        certificate.private_key_and_cert_chain_pem.write_to_path(path)
        return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder)


@pytest.fixture(scope="module")
def service(folder: Path, authority: Authority) -> Iterator[RunningService]:
    file = authority.issue()
    started = RunningService(folder, tls_cert=file, tls_key=file)
    yield started
    started.close()


def refusal(connection: ServerConnection) -> DiffusionSegmentError:
    with pytest.raises(DiffusionSegmentError) as raised:
        greeting(ServerClient(connection))
    return raised.value


def fingerprint_of(service: RunningService) -> str:
    context = ssl._create_unverified_context()
    with socket.create_connection(("127.0.0.1", service.port)) as plain, context.wrap_socket(plain) as tls:
        certificate = tls.getpeercert(binary_form=True)
    assert certificate is not None
    return hashlib.sha256(certificate).hexdigest()


def test_a_known_authority_and_a_known_fingerprint_are_trusted(
    service: RunningService, authority: Authority, openClient: Callable
) -> None:
    greeting(ServerClient(service.connection(certificate=str(authority.file))))
    digits = fingerprint_of(service)
    for text in (digits, digits.upper(), "sha256:" + digits, ":".join(digits[n : n + 2] for n in range(0, 64, 2))):
        client = ServerClient(server_connection(service.address, service.tokens["alice"], text))
        assert "abdomen-ct" in greeting(client).models
    client = openClient(service.connection(certificate=str(authority.file)))
    client.segment(steps=2)
    client.first("finished")


def test_an_unknown_authority_or_another_fingerprint_is_refused(service: RunningService, folder: Path) -> None:
    for certificate in ("", str(Authority(folder).file), "ab" * 32):
        assert refusal(service.connection(certificate=certificate)).code is ErrorCode.SERVER_CERTIFICATE
    assert fingerprint_of(service) in refusal(service.connection(certificate="ab" * 32)).message
    assert refusal(service.connection(certificate=str(folder / "none.pem"))).code is ErrorCode.SERVER_CERTIFICATE


@pytest.mark.parametrize("fault", ["host", "expired"])
def test_the_host_name_and_the_dates_are_checked(fault: str, folder: Path, authority: Authority) -> None:
    host = "elsewhere.example.org" if fault == "host" else "127.0.0.1"
    yesterday = datetime.now(UTC) - timedelta(days=1)
    file = authority.issue(host, not_after=yesterday) if fault == "expired" else authority.issue(host)
    (folder / fault).mkdir()
    service = RunningService(folder / fault, tls_cert=file, tls_key=file)
    try:
        error = refusal(service.connection(certificate=str(authority.file)))
    finally:
        service.close()
    assert error.code is ErrorCode.SERVER_CERTIFICATE
    assert ("mismatch" if fault == "host" else "expired") in error.message


def test_the_token_is_not_sent_to_another_server() -> None:
    """A stand-in for an impostor: it speaks TLS and keeps what it receives."""
    authority, received = trustme.CA(), []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def listen() -> None:
            plain, _ = listening.accept()
            with context.wrap_socket(plain, server_side=True) as tls:
                received.append(tls.recv(4096))

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        address = f"https://127.0.0.1:{listening.getsockname()[1]}"
        assert refusal(server_connection(address, "secret", "ab" * 32)).code is ErrorCode.SERVER_CERTIFICATE
        thread.join(5)
    assert received == [b""]


def test_old_tls_and_no_tls_are_refused(service: RunningService, authority: Authority) -> None:
    context = ssl._create_unverified_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", service.port)) as plain, pytest.raises(OSError, match=r"SSL|reset"):
        context.wrap_socket(plain)
    error = refusal(server_connection(f"http://127.0.0.1:{service.port}", "token"))
    assert error.code is ErrorCode.SERVER_UNREACHABLE


def test_a_server_that_others_can_reach_needs_a_certificate(tmp_path: Path) -> None:
    with pytest.raises(DiffusionSegmentError, match="no certificate"):
        serve(ServiceOptions(host="0.0.0.0", port=0, token_file=tmp_path / "tokens"))


def test_an_answer_of_another_program_is_no_server() -> None:
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\n<p/>"
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(page)

        threading.Thread(target=answer, daemon=True).start()
        error = refusal(server_connection(f"http://127.0.0.1:{listening.getsockname()[1]}", "token"))
    assert error.code is ErrorCode.SERVER_ANSWER
