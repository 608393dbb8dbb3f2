"""Settings of a DICOM node, and the parsing of its addresses."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import DiffusionSegmentError, ErrorCode
from ..schema.run_options import RunOptions

WORKER_COMMAND = (sys.executable, "-u", "-m", "DiffusionSegmentBackend", "worker")

MINUTE, HOUR = 60.0, 3600.0
# PS3.5, 6.2: 1 to 16 characters without backslash and control characters; leading and trailing spaces do not count.
_TITLE = re.compile(r"[!-\[\]-~](?:[ -\[\]-~]{0,14}[!-\[\]-~])?")
_MAX_PORT = 65535


@dataclass(frozen=True, kw_only=True)
class Address:
    """An application entity: its AE title, host and TCP port."""

    aet: str
    host: str
    port: int


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Who may open an association: an AE title, and the only host that may use it (None: any)."""

    aet: str
    host: str | None = None


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """Certificate and key of the node (PEM), and the authorities that certificates of peers must be signed by."""

    certificate: Path
    key: Path
    authorities: Path


@dataclass(frozen=True, kw_only=True)
class Listener:
    """Where a node listens, and for whom. `host` is the address of an interface, "" for all of them."""

    port: int
    host: str = ""
    peers: tuple[Peer, ...] = ()
    max_associations: int = 10
    tls: TlsFiles | None = None


@dataclass(frozen=True, kw_only=True)
class Dicomweb:
    """An archive with DICOMweb: the URL of its services, a file with the value of the header Authorization, authorities
    for HTTPS (PEM), and how many days back its studies are searched for new series.
    """

    url: str
    authorization_file: Path | None = None
    authorities: Path | None = None
    days: int = 2


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Seconds without a new image after which a series counts as complete.

    `quiet_s` after a released association and with evenly spaced slices; `silence_s` otherwise; `limit_s` after an
    interrupted association, or with fewer images than the archive has: what is there is then taken as incomplete.
    """

    quiet_s: float = 5.0
    silence_s: float = 60.0
    limit_s: float = 15 * MINUTE


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a node.

    Attributes:
        max_queue: series that may wait or run; further ones are refused with 0xA700.
        min_free_bytes: free space on the disk below which images are refused with 0xA700.
        min_slices: series with fewer images are not segmented.
        run_s: seconds after which reading or a run of the worker is stopped.
        max_runs: runs of a series whose worker died or took too long.
        retry_s: seconds before a failed run or transfer is tried again; the last value repeats.
        give_up_s: seconds after which a result that cannot be delivered is given up.
        retention_s: seconds after its end for which images, result and record of a series are kept.
    """

    max_queue: int = 500
    min_free_bytes: int = 2_000_000_000
    min_slices: int = 20
    run_s: float = 60 * MINUTE
    max_runs: int = 3
    retry_s: tuple[float, ...] = (1 * MINUTE, 5 * MINUTE, 30 * MINUTE)
    give_up_s: float = 72 * HOUR
    retention_s: float = 24 * HOUR


@dataclass(frozen=True, kw_only=True)
class NodeSettings:
    """Everything that a node is started with.

    Attributes:
        folder: images, results and ledger of the node; no other program uses it.
        aet: the AE title of the node.
        listener: the C-STORE service, or None for a node that only fetches.
        forward: where results of received series go by C-STORE; None: to `dicomweb`.
        forward_tls: certificates of these associations; None for associations without TLS.
        dicomweb: the archive that is searched for new series; their results go back to it.
        options: of every run.
        worker: the command of the worker process.
        poll_s: pause between two looks at the ledger, in s.
        search_s: pause between two searches of the archive, in s.
        health: host and port of metrics and health, None for none.
    """

    folder: Path
    aet: str = "DIFFSEG"
    worker: tuple[str, ...] = WORKER_COMMAND
    listener: Listener | None = None
    forward: Address | None = None
    forward_tls: TlsFiles | None = None
    dicomweb: Dicomweb | None = None
    patience: Patience = Patience()
    limits: Limits = Limits()
    options: RunOptions = field(default_factory=RunOptions)
    poll_s: float = 1.0
    search_s: float = 60.0
    health: tuple[str, int] | None = None


def ae_title(text: str) -> str:
    """A valid AE title without surrounding spaces.

    Raises:
        DiffusionSegmentError: OPTION.
    """
    if not _TITLE.fullmatch(title := text.strip()):
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"'{text}' is no AE title.",
            hint="An AE title has 1 to 16 letters, digits or signs, and no backslash.",
        )
    return title


def address(text: str) -> Address:
    """ "PACS@archive.example:104" as an address.

    Raises:
        DiffusionSegmentError: OPTION.
    """
    title, at, rest = text.partition("@")
    host, colon, port = rest.rpartition(":")
    if not (at and colon and host and port.isascii() and port.isdecimal() and 0 < int(port) <= _MAX_PORT):
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"'{text}' is no address of a DICOM node.", hint="Write AET@HOST:PORT."
        )
    return Address(aet=ae_title(title), host=host.strip("[]"), port=int(port))


def peer(text: str) -> Peer:
    """ "CT01" or "CT01@10.0.0.7" as a peer.

    Raises:
        DiffusionSegmentError: OPTION.
    """
    title, at, host = text.partition("@")
    if at and not host:
        raise DiffusionSegmentError(ErrorCode.OPTION, f"'{text}' names no host.", hint="Write AET or AET@HOST.")
    return Peer(aet=ae_title(title), host=host or None)
