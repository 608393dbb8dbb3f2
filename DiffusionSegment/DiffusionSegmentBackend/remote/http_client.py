"""Requests to the server over connections that are kept, repeated while the network is away."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..errors import DiffusionSegmentError, ErrorCode
from ..protocol.connection import ServerConnection
from ..protocol.slabs import Bytes
from .patience import Patience, Retrying
from .trust import check_fingerprint, tls_context, untrusted

CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0
RETRY_SECONDS = 90.0
_MAX_ERROR_BYTES = 65536
_TYPES = ("application/json", "application/octet-stream", "application/x-ndjson")


class ServerClient:
    """A client of one server; every method may be called from several threads."""

    def __init__(self, connection: ServerConnection, *, retry_seconds: float = RETRY_SECONDS) -> None:
        """Prepare, without a connection yet.

        Raises:
            DiffusionSegmentError: As `tls_context`.
        """
        self._connection = connection
        self._retry_seconds = retry_seconds
        self._tls = tls_context(connection) if connection.secure else None
        self._streaming: socket.socket | None = None
        self._free: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def ask_once(self, method: str, path: str, body: Bytes = b"") -> bytes:
        """Send a request and return the body of the answer.

        Raises:
            DiffusionSegmentError: SERVER_UNREACHABLE, SERVER_CERTIFICATE, SERVER_ANSWER, or what the server answers.
        """
        with self._connected() as channel:
            response = self._send(channel, method, path, body)
            return response.read()

    def ask(self, method: str, path: str, body: Bytes = b"", *, retrying: Retrying) -> bytes:
        """As `ask_once`, repeated for up to `retry_seconds` while the server cannot be reached.

        The server treats a repeated request as the same one.

        Raises:
            DiffusionSegmentError: As `ask_once`; what `retrying` raises.
        """
        patience = Patience(self._retry_seconds, retrying)
        while True:
            try:
                return self.ask_once(method, path, body)
            except DiffusionSegmentError as error:
                if error.code is not ErrorCode.SERVER_UNREACHABLE or not patience.wait():
                    raise

    def patience(self, retrying: Retrying) -> Patience:
        """For a caller that repeats requests itself."""
        return Patience(self._retry_seconds, retrying)

    def lines(self, path: str) -> Iterator[bytes]:
        """The lines of a streamed answer as they arrive, empty ones too.

        Raises:
            DiffusionSegmentError: As `ask_once`; SERVER_UNREACHABLE also for an end within a line.
        """
        with self._connected() as channel:
            response = self._send(channel, "GET", path, b"")
            self._streaming = channel.sock
            while line := response.readline():
                if not line.endswith(b"\n"):
                    raise _unreachable("the connection ended")
                yield line

    def interrupt(self) -> None:
        """End the stream that another thread reads, which may wait for a server that is away."""
        if self._streaming is not None:
            with suppress(OSError):
                self._streaming.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            channels, self._free = self._free, []
        for channel in channels:
            channel.close()

    @contextmanager
    def _connected(self) -> Iterator[http.client.HTTPConnection]:
        """A connection, kept for the next request if this one was answered to its end."""
        with self._lock:
            channel = self._free.pop() if self._free else None
        channel = channel or self._connect()
        try:
            yield channel
        except ssl.SSLCertVerificationError as error:
            channel.close()
            raise untrusted(error) from error
        except (OSError, http.client.HTTPException) as error:
            channel.close()
            raise _unreachable(_reason(error)) from error
        except BaseException:
            channel.close()
            raise
        with self._lock:
            self._free.append(channel)

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._connection.host, self._connection.port
        channel: http.client.HTTPConnection
        if self._tls is None:
            channel = http.client.HTTPConnection(host, port, timeout=CONNECT_SECONDS)
        else:
            channel = http.client.HTTPSConnection(host, port, timeout=CONNECT_SECONDS, context=self._tls)
        try:
            channel.connect()
            if isinstance(channel.sock, ssl.SSLSocket):
                # Before the token is sent.
                check_fingerprint(self._connection, channel.sock)
            channel.sock.settimeout(READ_SECONDS)
        except ssl.SSLCertVerificationError as error:
            channel.close()
            raise untrusted(error) from error
        except OSError as error:
            channel.close()
            raise _unreachable(_reason(error)) from error
        except DiffusionSegmentError:
            channel.close()
            raise
        return channel

    def _send(
        self, channel: http.client.HTTPConnection, method: str, path: str, body: Bytes
    ) -> http.client.HTTPResponse:
        headers = {"Authorization": f"Bearer {self._connection.token}", "Accept-Encoding": "identity"}
        try:
            channel.request(method, path, body=body or None, headers=headers)
        except (BrokenPipeError, ConnectionResetError):
            # A server that refuses does not read on; its answer may have arrived.
            if channel.sock is None:
                raise
        response = channel.getresponse()
        kind = response.headers.get_content_type()
        if response.status >= 400:
            raise _refusal(response.status, kind, response.read(_MAX_ERROR_BYTES))
        if kind not in _TYPES:
            raise _foreign(response.status)
        return response


def _refusal(status: int, kind: str, body: bytes) -> DiffusionSegmentError:
    """The server's error; what is no error of this server comes from another one in between."""
    try:
        if kind != "application/json":
            raise ValueError
        values = json.loads(body)
        return DiffusionSegmentError(ErrorCode(values["code"]), str(values["message"]), hint=str(values["hint"]))
    except (ValueError, KeyError, TypeError):
        if status == 503:
            return DiffusionSegmentError(ErrorCode.SERVER_FULL, "The server has too many connections.", hint=_LATER)
        return _foreign(status)


def _foreign(status: int) -> DiffusionSegmentError:
    return DiffusionSegmentError(
        ErrorCode.SERVER_ANSWER,
        f"Another program than the segmentation server answered (status {status}).",
        hint="Check the address; a proxy in between must let it pass.",
    )


_LATER = "Try again in a few minutes."


def _unreachable(reason: str) -> DiffusionSegmentError:
    return DiffusionSegmentError(
        ErrorCode.SERVER_UNREACHABLE,
        f"The server cannot be reached ({reason}).",
        hint="Check the network and the address, or run on this computer.",
    )


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return f"no encrypted connection, {error.reason or 'TLS'}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "the connection ended" if isinstance(error, http.client.HTTPException) else type(error).__name__
