"""A Ray cluster on which the workers of sessions run: whether it fits, and new actors on it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil

from ..errors import DiffusionSegmentError, ErrorCode
from ..process.ray_cluster import ray_cluster, require_version, unable_computer
from .session_actor import SessionActor
from .worker import MakeRoom

# An actor that does not start for so long may have no room, and a worker that is idle ends; then it is given up.
_ROOM_SECONDS = 3.0
_READY_SECONDS = 60.0
_NEEDED = "All need the same version of this package, of Ray and of Python."


@dataclass(frozen=True, kw_only=True)
class SessionShare:
    """What a session reserves: CPUs, and a share of a graphics card, None for one where the cluster has any."""

    cpus: float = 1.0
    gpus: float | None = None


class Cluster:
    """Starts actors, one for each session with a worker.

    Args:
        ray: The package ray, connected.
        command: Command of a worker process on every computer; None for that of the package there.
        share: What an actor reserves.

    Raises:
        DiffusionSegmentError: NO_DEVICE where no computer has as much.
    """

    def __init__(self, ray: Any, command: Sequence[str] | None, share: SessionShare) -> None:
        self.ray = ray
        self._command = command
        gpus = share.gpus if share.gpus is not None else float(ray.cluster_resources().get("GPU", 0) > 0)
        computers = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(has.get("CPU", 0) >= share.cpus and has.get("GPU", 0) >= gpus for has in computers):
            raise DiffusionSegmentError(
                ErrorCode.NO_DEVICE,
                f"No computer of the Ray cluster has {share.cpus:g} CPUs and {gpus:g} graphics cards.",
                hint="Give a smaller --cpus-per-session or --gpus-per-session.",
            )
        # Not restarted by Ray: the session starts another one, and sends its volumes again.
        self._class = ray.remote(num_cpus=share.cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0)(SessionActor)

    async def start_actor(self, make_room: MakeRoom) -> Any:
        """A new actor that answers; where none starts, idle ones end one after the other.

        Raises:
            DiffusionSegmentError: SERVER_FULL where no computer has room; OPTION for one that does not fit.
        """
        await asyncio.to_thread(self.check_encryption)
        actor = self._class.remote(self._command)
        described = asyncio.ensure_future(actor.describe.remote())
        try:
            async with asyncio.timeout(_READY_SECONDS):
                while not (await asyncio.wait((described,), timeout=_ROOM_SECONDS))[0]:
                    await make_room()
            require_version(described.result(), hint=_NEEDED)
        except BaseException as error:
            described.cancel()
            self.ray.kill(actor)
            raise self._words(error) from error
        return actor

    async def try_out(self) -> None:
        """Start an actor and end it.

        Raises:
            DiffusionSegmentError: As `start_actor`.
        """
        actor = await self.start_actor(_no_room)
        await actor.close.remote()
        self.ray.kill(actor)

    def check_encryption(self) -> None:
        """Refuse a cluster over whose network voxels would travel unencrypted.

        Raises:
            DiffusionSegmentError: OPTION.
        """
        addresses = [node["NodeManagerAddress"] for node in self.ray.nodes() if node["Alive"]]
        own = {address.address for addresses in psutil.net_if_addrs().values() for address in addresses}
        require_encryption(addresses, own, os.environ)

    def _words(self, error: BaseException) -> BaseException:
        if isinstance(error, TimeoutError):
            return DiffusionSegmentError(
                ErrorCode.SERVER_FULL,
                "The cluster has no free processor or graphics card.",
                hint="Try again in a few minutes.",
            )
        if isinstance(error, self.ray.exceptions.RayError):
            return unable_computer(error, hint=_NEEDED)
        return error


@contextmanager
def connected(address: str, command: Sequence[str] | None, share: SessionShare) -> Iterator[Cluster]:
    """Connect to a cluster, and start and end one actor on it, so that what does not fit is known at once.

    Raises:
        DiffusionSegmentError: OPTION for an address without a cluster, one without token or encryption, or computers
            that do not fit; NO_DEVICE where no computer is large enough, SERVER_FULL where none is free.
    """
    require_token(os.environ)
    with ray_cluster(address) as ray:
        cluster = Cluster(ray, command, share)
        asyncio.run(cluster.try_out())
        yield cluster


async def _no_room() -> None:
    """Nothing of this server can end."""


def require_token(environment: Mapping[str, str]) -> None:
    """Refuse a cluster that would run programs of anybody, and so show them the scans.

    Raises:
        DiffusionSegmentError: OPTION.
    """
    if environment.get("RAY_AUTH_MODE") != "token":
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            "A Ray cluster without a token runs programs of anybody who reaches it.",
            hint="Start the cluster, and this server, with RAY_AUTH_MODE=token and RAY_AUTH_TOKEN.",
        )


def require_encryption(addresses: Collection[str], own: Collection[str], environment: Mapping[str, str]) -> None:
    """Refuse computers other than this one where Ray does not encrypt its connections.

    Raises:
        DiffusionSegmentError: OPTION.
    """
    if not set(addresses) <= set(own) and environment.get("RAY_USE_TLS") != "1":
        raise DiffusionSegmentError(
            ErrorCode.OPTION,
            "Scans would travel unencrypted to the other computers of the Ray cluster.",
            hint="Start all of it with RAY_USE_TLS=1 and certificates, and this server too.",
        )
