"""TLS contexts of associations: both sides show a certificate (PS3.15, B.12: BCP 195)."""

from __future__ import annotations

import ssl

from ..errors import DiffusionSegmentError, ErrorCode
from .settings import TlsFiles


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """The context of the node as acceptor, which requires a certificate that the authorities signed.

    Raises:
        DiffusionSegmentError: INPUT_MISSING or INPUT_UNREADABLE for the files.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    return _loaded(context, files)


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """The context of the node as requestor, which checks the certificate and the host name of the archive.

    Raises:
        DiffusionSegmentError: INPUT_MISSING or INPUT_UNREADABLE for the files.
    """
    return _loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), files)


def _loaded(context: ssl.SSLContext, files: TlsFiles) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for path in (files.certificate, files.key, files.authorities):
        if not path.is_file():
            raise DiffusionSegmentError(ErrorCode.INPUT_MISSING, f"{path} does not exist.", hint="Check the path.")
    try:
        context.load_cert_chain(files.certificate, files.key)
        context.load_verify_locations(files.authorities)
    except (ssl.SSLError, OSError) as error:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_UNREADABLE,
            f"The certificate {files.certificate}, its key or the authorities cannot be used.",
            hint="All three are PEM files; the key is not encrypted and belongs to the certificate.",
        ) from error
    return context
