"""Starts the server: address, certificate, private folder, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DiffusionSegmentError, ErrorCode
from .limits import ServiceLimits
from .worker import MakeWorker
from .worker_process import WORKER_COMMAND, WorkerProcess, worker_environment

_GRACEFUL_SECONDS = 5
_BACKLOG = 256
_KEEP_SECONDS = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ServiceOptions:
    """How to serve.

    `device` is auto, cpu, cuda or cuda:N. `work_dir` is the private folder; None for one among the temporary files.
    `worker_command` starts a worker process. With `address`, that of a Ray cluster, workers run on its computers, and
    each session with a worker reserves CPUs, and a share of a graphics card (None for one where there are any).
    """

    host: str
    port: int
    token_file: Path
    tls_cert: Path | None = None
    tls_key: Path | None = None
    device: str = "auto"
    work_dir: Path | None = None
    limits: ServiceLimits = field(default_factory=ServiceLimits)
    worker_command: Sequence[str] = WORKER_COMMAND
    address: str | None = None
    cpus_per_session: float = 1.0
    gpus_per_session: float | None = None


def serve(options: ServiceOptions) -> None:
    """Serve until the process is asked to end.

    Raises:
        DiffusionSegmentError: OPTION for an address that others can reach without a certificate, or that is in use;
            as `TokenFile`, `private_folder` and `cluster.connected`; INPUT_UNREADABLE for a certificate or key.
    """
    from .private_folder import default_folder, private_folder
    from .tokens import TokenFile

    _check_certificate(options)
    device, card = _device(options.device)
    tokens = TokenFile(options.token_file)
    listening = _listen(options.host, options.port)
    port = listening.getsockname()[1]
    os.umask(0o077)
    _forbid_core_dumps()
    with (
        contextlib.closing(listening),
        private_folder(options.work_dir or default_folder(port)) as folder,
        _workers(options, card) as make_worker,
    ):
        server = _make_server(options, tokens, folder, make_worker, device=device)
        scheme = "https" if options.tls_cert else "http"
        print(f"Serving on {scheme}://{_in_address(options.host)}:{port}", flush=True)
        server.run(sockets=[listening])


@contextlib.contextmanager
def _workers(options: ServiceOptions, card: str) -> Iterator[MakeWorker]:
    """Makes workers on this computer, which see one `card` alone if it is named, or on a cluster."""
    if options.address is None:
        environment = worker_environment() | ({"CUDA_VISIBLE_DEVICES": card} if card else {})
        yield lambda folder, _: WorkerProcess(options.worker_command, folder, environment)
        return
    from .cluster import SessionShare, connected
    from .cluster_worker import ClusterWorker

    if card:
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"--device {options.device} is for one computer.", hint="Give cuda: Ray chooses the card."
        )
    share = SessionShare(cpus=options.cpus_per_session, gpus=options.gpus_per_session)
    # The paths of this computer say nothing about the others.
    command = None if options.worker_command is WORKER_COMMAND else options.worker_command
    with connected(options.address, command, share) as cluster:
        yield lambda folder, make_room: ClusterWorker(cluster, folder, make_room)


def _make_server(
    options: ServiceOptions, tokens: Any, folder: Path, make_worker: MakeWorker, *, device: str
) -> Any:
    import uvicorn
    from starlette.routing import Router

    from .guard import Guard
    from .http_protocol import connection_options
    from .metrics import Metrics
    from .routes import Routes
    from .sessions import Sessions

    limits = options.limits
    sessions = Sessions(folder, make_worker, limits)
    metrics, stopping = Metrics(sessions), asyncio.Event()

    @contextlib.asynccontextmanager
    async def lifespan(_: Router) -> AsyncIterator[None]:
        keeper = asyncio.create_task(sessions.keep(min(_KEEP_SECONDS, limits.idle_seconds / 2)))
        yield
        keeper.cancel()
        await sessions.drop_all()

    # Not the class Starlette, which answers failures itself, before the guard sees them.
    routes = Routes(sessions, metrics, device, stopping).table()
    app = Router(routes, redirect_slashes=False, lifespan=lifespan)

    class StoppingServer(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:
            # Not uvicorn's own, which raises the signal again at its end, before the private folder is emptied.
            stopping.set()
            self.force_exit = self.should_exit and sig == signal.SIGINT
            self.should_exit = True

    config = uvicorn.Config(
        Guard(app, tokens, limits.failures_per_minute, metrics),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        workers=1,
        timeout_graceful_shutdown=_GRACEFUL_SECONDS,
        ssl_certfile=options.tls_cert,
        ssl_keyfile=options.tls_key,
        **connection_options(limits),
    )
    _load(config)
    return StoppingServer(config)


def _load(config: Any) -> None:
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_UNREADABLE,
            f"Certificate or key cannot be used ({error.strerror or type(error).__name__}).",
            hint="Both are PEM files that belong together.",
        ) from error
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2


def _check_certificate(options: ServiceOptions) -> None:
    if (options.tls_cert is None) != (options.tls_key is None):
        raise DiffusionSegmentError(ErrorCode.OPTION, "--tls-cert and --tls-key belong together.")
    if options.tls_cert is None and not _is_loopback(options.host):
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            f"{options.host} can be reached by others, and there is no certificate.",
            hint="Add --tls-cert and --tls-key, or serve on 127.0.0.1.",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _in_address(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        # At once, so that nobody is refused who comes after the address was printed.
        listening.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"{host}:{port} cannot be served ({reason}).", hint="Choose another --host or --port."
        ) from error
    return listening


def _device(device: str) -> tuple[str, str]:
    """The device as requests name it, and the number of the chosen card, or nothing."""
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (number and (kind != "cuda" or not number.isdigit())):
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"There is no device '{device}'.", hint="Choose auto, cpu, cuda or cuda:1."
        )
    return kind, number


def _forbid_core_dumps() -> None:
    """A core dump would hold the voxels of scans."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
