"""The command line of `diffusion-segment dicom-node`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DiffusionSegmentError, ErrorCode
from ..schema.run_options import run_options_of
from .command_parser import examples
from .run_options import add_run_options

if TYPE_CHECKING:
    from ..dicom_node.settings import Address, Dicomweb, Limits, Listener, NodeSettings, TlsFiles

_MINUTE, _HOUR, _GB = 60.0, 3600.0, 1e9


def add_dicom_node_command(commands: Any) -> None:
    """Add the command to the subparsers of `diffusion-segment`."""
    parser = commands.add_parser(
        "dicom-node",
        help="receive CT series, segment them, and send DICOM SEG and report back",
        epilog=examples(
            "dicom-node --aet DIFFSEG --port 11112 --forward PACS@10.0.0.5:104",
            "dicom-node --aet DIFFSEG --port 11112 --forward PACS@10.0.0.5:104 --peer CT01@10.0.0.7 --peer PACS",
            "dicom-node --dicomweb https://archive.example/dicom-web --dicomweb-authorization token.txt",
        ),
    )
    _add_services(parser)
    _add_dicomweb(parser)
    _add_completeness(parser)
    _add_limits(parser)
    add_run_options(parser, without=("region", "bodypart"))
    parser.set_defaults(run=_run)


def _add_services(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--aet", default="DIFFSEG", metavar="NAME", help="AE title of the node (default: %(default)s)")
    parser.add_argument("--port", type=int, metavar="P", help="port of C-STORE and C-ECHO (default: receive nothing)")
    parser.add_argument(
        "--host", default="", metavar="ADDRESS", help="address of this computer to listen on (default: all)"
    )
    parser.add_argument("--forward", metavar="AET@HOST:PORT", help="archive that results are sent to by C-STORE")
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="AET[@HOST]",
        help="who may send, several times (default: AE title and host of --forward)",
    )
    parser.add_argument(
        "--max-associations", type=int, default=10, metavar="N", help="associations at a time (default: %(default)s)"
    )
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="PEM certificate: TLS on all associations")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="PEM key of the certificate")
    parser.add_argument("--tls-ca", type=Path, metavar="FILE", help="PEM authorities that sign certificates of peers")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("dicom-node"),
        metavar="DIR",
        help="images, results and ledger, for this node alone (default: %(default)s)",
    )
    parser.add_argument("--health-port", type=int, metavar="P", help="HTTP port of /metrics, /healthz and /readyz")
    parser.add_argument(
        "--health-host", default="127.0.0.1", metavar="ADDRESS", help="address of that port (default: %(default)s)"
    )


def _add_dicomweb(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dicomweb", metavar="URL", help="archive that is searched for new series; their results go back to it"
    )
    parser.add_argument(
        "--dicomweb-authorization", type=Path, metavar="FILE", help="file with the value of the header Authorization"
    )
    parser.add_argument("--dicomweb-ca", type=Path, metavar="FILE", help="PEM authorities of its HTTPS certificate")
    parser.add_argument(
        "--search-days", type=int, default=2, metavar="N", help="studies of the last N days (default: %(default)s)"
    )
    parser.add_argument(
        "--search-seconds", type=float, default=60.0, metavar="S", help="between two searches (default: %(default)s)"
    )


def _add_completeness(parser: argparse.ArgumentParser) -> None:
    for name, default, text in (
        ("--quiet-seconds", 5.0, "without an image, after which an evenly spaced series is complete"),
        ("--silence-seconds", 60.0, "without an image, after which any series is complete"),
        ("--limit-seconds", 900.0, "without an image, after which an interrupted series is taken as incomplete"),
    ):
        parser.add_argument(name, type=float, default=default, metavar="S", help=f"{text} (default: %(default)s)")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    for name, kind, default, metavar, text in (
        ("--min-slices", int, 20, "N", "series with fewer images are not segmented"),
        ("--max-queue", int, 500, "N", "series that may wait; further ones are refused"),
        ("--min-free", float, 2.0, "GB", "free space on the disk below which images are refused"),
        ("--time-limit", float, 60.0, "MINUTES", "after which a run is stopped and tried again"),
        ("--give-up", float, 72.0, "HOURS", "after which an undeliverable result is given up"),
        ("--retention", float, 24.0, "HOURS", "for which images are kept after the end"),
    ):
        parser.add_argument(name, type=kind, default=default, metavar=metavar, help=f"{text} (default: %(default)s)")


def _run(options: argparse.Namespace) -> None:
    settings = node_settings(options)
    from ..commands.dicom_node import run_dicom_node

    run_dicom_node(settings, verbose=options.verbose)


def node_settings(options: argparse.Namespace) -> NodeSettings:
    """The settings that a command line asks for.

    Raises:
        DiffusionSegmentError: OPTION, MODEL_UNKNOWN.
    """
    from ..dicom_node.settings import NodeSettings, Patience, address, ae_title
    from ..models.manifest import find_model, read_description

    read_description(find_model(options.model))
    forward = address(options.forward) if options.forward else None
    if options.port is None and not options.dicomweb:
        raise _wrong("The node would receive nothing.", "Name a --port to listen on, or an archive with --dicomweb.")
    if forward is None and not options.dicomweb:
        raise _wrong("There is nowhere to send results.", "Name an archive with --forward or --dicomweb.")
    tls = _tls(options)
    return NodeSettings(
        folder=options.folder,
        aet=ae_title(options.aet),
        listener=None if options.port is None else _listener(options, forward, tls),
        forward=forward,
        forward_tls=tls,
        dicomweb=_dicomweb(options),
        patience=Patience(
            quiet_s=options.quiet_seconds, silence_s=options.silence_seconds, limit_s=options.limit_seconds
        ),
        limits=_limits(options),
        options=run_options_of(options),
        search_s=options.search_seconds,
        health=None if options.health_port is None else (options.health_host, options.health_port),
    )


def _listener(options: argparse.Namespace, forward: Address | None, tls: TlsFiles | None) -> Listener:
    from ..dicom_node.settings import Listener, Peer, peer

    peers = tuple(peer(text) for text in options.peer)
    if not peers and forward is None:
        raise _wrong("Nobody may send to the node.", "Name those who may with --peer AET or --peer AET@HOST.")
    if not 0 <= options.port <= 65535:
        raise _wrong(f"{options.port} is no port.", "Choose 1 to 65535.")
    return Listener(
        port=options.port,
        host=options.host,
        peers=peers or (Peer(aet=forward.aet, host=forward.host),) if forward else peers,
        max_associations=options.max_associations,
        tls=tls,
    )


def _tls(options: argparse.Namespace) -> TlsFiles | None:
    from ..dicom_node.settings import TlsFiles

    files = (options.tls_cert, options.tls_key, options.tls_ca)
    if not any(files):
        return None
    if not all(files):
        raise _wrong("TLS needs three files.", "Give --tls-cert, --tls-key and --tls-ca.")
    return TlsFiles(certificate=options.tls_cert, key=options.tls_key, authorities=options.tls_ca)


def _dicomweb(options: argparse.Namespace) -> Dicomweb | None:
    from ..dicom_node.settings import Dicomweb

    if not options.dicomweb:
        return None
    return Dicomweb(
        url=options.dicomweb,
        authorization_file=options.dicomweb_authorization,
        authorities=options.dicomweb_ca,
        days=options.search_days,
    )


def _limits(options: argparse.Namespace) -> Limits:
    from ..dicom_node.settings import Limits

    return Limits(
        max_queue=options.max_queue,
        min_free_bytes=int(options.min_free * _GB),
        min_slices=options.min_slices,
        run_s=options.time_limit * _MINUTE,
        give_up_s=options.give_up * _HOUR,
        retention_s=options.retention * _HOUR,
    )


def _wrong(message: str, hint: str) -> DiffusionSegmentError:
    return DiffusionSegmentError(ErrorCode.OPTION, message, hint=hint)
