"""Whether the server is the one that was meant: certificate authorities, a file of one's own, or a fingerprint."""

from __future__ import annotations

import hashlib
import hmac
import os
import ssl

from ..errors import DiffusionSegmentError, ErrorCode
from ..protocol.connection import ServerConnection

_HINT = "Ask the administrator of the server for its certificate."


def tls_context(connection: ServerConnection) -> ssl.SSLContext:
    """The TLS settings: version 1.2 or newer, certificate and host name checked.

    With a fingerprint the certificate itself is compared, by `check_fingerprint`, instead of who issued it and for
    which name.

    Raises:
        DiffusionSegmentError: SERVER_CERTIFICATE for a file that is missing or holds no certificate.
    """
    if connection.fingerprint:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        path = os.path.expanduser(connection.certificate)
        try:
            context = ssl.create_default_context(cafile=path or None)
        except (OSError, ValueError) as error:
            raise DiffusionSegmentError(
                ErrorCode.SERVER_CERTIFICATE,
                f"{path} holds no certificate.",
                hint="Choose a PEM file, or write the 64 digits of a SHA-256 fingerprint.",
            ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def check_fingerprint(connection: ServerConnection, tls: ssl.SSLSocket) -> None:
    """Compare the server's certificate with the fingerprint, where one is given.

    Raises:
        DiffusionSegmentError: SERVER_CERTIFICATE for another certificate.
    """
    if not connection.fingerprint:
        return
    actual = hashlib.sha256(tls.getpeercert(binary_form=True) or b"").hexdigest()
    if not hmac.compare_digest(actual, connection.fingerprint):
        raise DiffusionSegmentError(
            ErrorCode.SERVER_CERTIFICATE,
            f"The server has another certificate: its SHA-256 is {actual}, expected was {connection.fingerprint}.",
            hint="Do not go on unless the administrator of the server confirms the new one.",
        )


def untrusted(error: ssl.SSLCertVerificationError) -> DiffusionSegmentError:
    """The error (SERVER_CERTIFICATE) of a certificate that the TLS library refuses."""
    reason = error.verify_message or "unknown reason"
    return DiffusionSegmentError(
        ErrorCode.SERVER_CERTIFICATE, f"The certificate of the server is not trusted ({reason}).", hint=_HINT
    )
