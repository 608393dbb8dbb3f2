"""The command line of `diffusion-segment serve | serve-token | remote`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .command_parser import examples

_PORT = 8443


def add_service_commands(commands: Any) -> None:
    """Add the commands to the subparsers of `diffusion-segment`."""
    parser = commands.add_parser(
        "serve",
        help="serve several users over HTTPS (see docs/SERVICE.md)",
        epilog=examples("serve --host 0.0.0.0 --token-file tokens --tls-cert cert.pem --tls-key key.pem"),
    )
    parser.add_argument("--host", default="127.0.0.1", metavar="H", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=_PORT, metavar="P", help="port to listen on (default: %(default)s)")
    parser.add_argument("--token-file", type=Path, required=True, metavar="FILE", help="users and their tokens")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate chain, PEM")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="private key of the certificate, PEM")
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:N (default: %(default)s)")
    parser.add_argument("--work-dir", type=Path, metavar="DIR", help="private folder (default: a temporary one)")
    parser.add_argument("--max-sessions", type=int, default=8, metavar="N", help="of all users (default: %(default)s)")
    parser.add_argument(
        "--sessions-per-user", type=int, default=2, metavar="N", help="of one user (default: %(default)s)"
    )
    parser.add_argument("--runs-at-once", type=int, default=1, metavar="N", help="others wait (default: %(default)s)")
    parser.add_argument(
        "--idle-seconds", type=float, default=600.0, metavar="S", help="until a session ends (default: %(default)s)"
    )
    parser.add_argument(
        "--max-volume-gb", type=float, default=2.0, metavar="GB", help="of one volume (default: %(default)s)"
    )
    parser.add_argument("--address", metavar="RAY", help="Ray cluster for the runs, such as 10.0.0.5:6379")
    parser.add_argument(
        "--cpus-per-session",
        type=float,
        default=1.0,
        metavar="N",
        help="reserved on the cluster (default: %(default)s)",
    )
    parser.add_argument(
        "--gpus-per-session", type=float, metavar="F", help="reserved on the cluster (default: 1 if it has cards)"
    )
    parser.set_defaults(run=_run_serve)
    _add_token_command(commands)
    remote = commands.add_parser(
        "remote",
        help="serve a worker's JSON lines by a server over HTTPS; the first line names it (used by Slicer)",
        epilog=examples("remote"),
    )
    remote.set_defaults(run=_run_remote)


def _add_token_command(commands: Any) -> None:
    parser = commands.add_parser(
        "serve-token",
        help="make the token of a user and print it once; an earlier one of the user ends",
        epilog=examples("serve-token alice --token-file tokens --days 365"),
    )
    parser.add_argument("name", metavar="NAME", help="name of the user")
    parser.add_argument("--token-file", type=Path, required=True, metavar="FILE", help="file that keeps its digest")
    parser.add_argument("--days", type=int, metavar="N", help="days until it ends (default: never)")
    parser.set_defaults(run=_run_token)


def _run_serve(options: argparse.Namespace) -> None:
    from ..process.logs import configure_logging
    from ..service.limits import ServiceLimits
    from ..service.server import ServiceOptions, serve
    from .namespace import from_namespace

    configure_logging(show=True, verbose=options.verbose)
    limits = from_namespace(ServiceLimits, options, max_volume_bytes=int(options.max_volume_gb * 1024**3))
    serve(from_namespace(ServiceOptions, options, limits=limits))


def _run_token(options: argparse.Namespace) -> None:
    from ..service.tokens import add_user

    print(add_user(options.token_file, options.name, days=options.days))


def _run_remote(_: argparse.Namespace) -> None:
    from ..remote.bridge import main

    main()
