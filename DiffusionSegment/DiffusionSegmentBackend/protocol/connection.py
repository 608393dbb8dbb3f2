"""The first line that the process `remote` reads: which server, with which token (standard library only).

It comes on standard input, so that the token is in no argument, environment variable or file.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ..errors import DiffusionSegmentError, ErrorCode

_DEFAULT_PORT = 8443
_FINGERPRINT = re.compile(r"(?:sha256:)?((?:[0-9a-f]{2}:?){32})", re.IGNORECASE)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, kw_only=True)
class ServerConnection:
    """How a server is reached.

    `address` is https://host:port, or http:// on this computer alone. `certificate` is empty for the certificate
    authorities of the system, the path of a PEM file with others, or the SHA-256 of the server's certificate.
    """

    address: str
    token: str = field(repr=False)
    certificate: str = ""

    @property
    def secure(self) -> bool:
        """Whether the connection is encrypted."""
        return urlsplit(self.address).scheme == "https"

    @property
    def host(self) -> str:
        """Name or number of the server."""
        return urlsplit(self.address).hostname or ""

    @property
    def port(self) -> int:
        """Its port."""
        return urlsplit(self.address).port or _DEFAULT_PORT

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the certificate that is expected, 64 hexadecimal digits; empty where none is given."""
        match = _FINGERPRINT.fullmatch(self.certificate.strip())
        return match[1].replace(":", "").lower() if match else ""


def server_connection(address: str, token: str, certificate: str = "") -> ServerConnection:
    """A connection from what the user typed.

    Raises:
        DiffusionSegmentError: SERVER_ADDRESS for an address that is none, or is not encrypted; SERVER_TOKEN without
            a token, or for one that cannot be a token.
    """
    text = address.strip()
    if "://" not in text:
        text = f"https://{text}"
    try:
        parts = urlsplit(text)
        valid = bool(parts.hostname) and parts.scheme in ("http", "https") and (parts.port is None or parts.port > 0)
        valid = valid and not any((parts.path.strip("/"), parts.query, parts.fragment, parts.username, parts.password))
    except ValueError:
        valid = False
    if not valid:
        raise DiffusionSegmentError(
            ErrorCode.SERVER_ADDRESS,
            "This is no address of a server.",
            hint="Write it as https://server.example.org:8443.",
        )
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise DiffusionSegmentError(
            ErrorCode.SERVER_ADDRESS, "The connection would not be encrypted.", hint="Use an address with https://."
        )
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise DiffusionSegmentError(
            ErrorCode.SERVER_TOKEN, "The token is missing or incomplete.", hint="Copy it as you received it."
        )
    return ServerConnection(address=f"{parts.scheme}://{parts.netloc}", token=token, certificate=certificate.strip())


def write_connection(connection: ServerConnection) -> bytes:
    """The line, newline included."""
    values = {"address": connection.address, "token": connection.token, "certificate": connection.certificate}
    return (json.dumps(values) + "\n").encode()


def read_connection(line: bytes) -> ServerConnection:
    """The connection on a line.

    Raises:
        DiffusionSegmentError: PROTOCOL for another line; as `server_connection`.
    """
    try:
        values = json.loads(line)
        address, token, certificate = (str(values[name]) for name in ("address", "token", "certificate"))
    except (ValueError, KeyError, TypeError, RecursionError):
        # Without the cause, whose text may hold the token.
        raise DiffusionSegmentError(ErrorCode.PROTOCOL, "The first line names no server.") from None
    return server_connection(address, token, certificate)
