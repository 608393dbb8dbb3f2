"""Where segmentations run: on this computer, or on a server; its address and token are in memory alone."""

from __future__ import annotations

from collections.abc import Callable

from DiffusionSegmentBackend.protocol.connection import ServerConnection, server_connection


class ServerChoice:
    """The chosen server. `connection` holds what the user typed, None for this computer."""

    def __init__(self) -> None:
        self.connection: ServerConnection | None = None

    def preparation(self, installLocally: Callable[[], None]) -> Callable[[], None]:
        """What to call before a request: checks address and token, or prepares this computer.

        The function raises DiffusionSegmentError: SERVER_ADDRESS, SERVER_TOKEN, or what `installLocally` raises.
        """

        def prepare() -> None:
            typed = self.connection
            if typed is None:
                installLocally()
            else:
                server_connection(typed.address, typed.token, typed.certificate)

        return prepare
