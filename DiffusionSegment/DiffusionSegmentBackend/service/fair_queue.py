"""The queue of runs: users take turns, and each waiting run knows how many are ahead of it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(eq=False)
class Ticket:
    """A waiting or admitted run of a user; `moved` gets the number of runs ahead whenever that changes."""

    user: str
    moved: Callable[[int], None]
    admitted: asyncio.Event = field(default_factory=asyncio.Event)
    ahead: int = -1


class FairQueue:
    """Admits `slots` runs at once, round robin over the users who wait."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._admitted: set[Ticket] = set()
        # In the order of the users' turns.
        self._waiting: dict[str, deque[Ticket]] = {}

    @property
    def waiting(self) -> int:
        """The number of waiting runs."""
        return sum(len(tickets) for tickets in self._waiting.values())

    @property
    def running(self) -> int:
        """The number of admitted runs."""
        return len(self._admitted)

    def enter(self, user: str, moved: Callable[[int], None]) -> Ticket:
        """Add a run; its ticket is admitted at once where a slot is free."""
        ticket = Ticket(user, moved)
        self._waiting.setdefault(user, deque()).append(ticket)
        self._admit()
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Remove a run, whether it waits or was admitted."""
        self._admitted.discard(ticket)
        tickets = self._waiting.get(ticket.user, deque())
        if ticket in tickets:
            tickets.remove(ticket)
        if not tickets:
            self._waiting.pop(ticket.user, None)
        self._admit()

    def _admit(self) -> None:
        while self._waiting and len(self._admitted) < self._slots:
            user = next(iter(self._waiting))
            tickets = self._waiting.pop(user)
            ticket = tickets.popleft()
            if tickets:
                # The user's next turn comes after those of all others.
                self._waiting[user] = tickets
            self._admitted.add(ticket)
            ticket.admitted.set()
        for ahead, ticket in enumerate(self._in_order(), start=len(self._admitted)):
            if ticket.ahead != ahead:
                ticket.ahead = ahead
                ticket.moved(ahead)

    def _in_order(self) -> list[Ticket]:
        """The waiting runs in the order in which they will be admitted."""
        rounds = max((len(tickets) for tickets in self._waiting.values()), default=0)
        queues = [list(tickets) for tickets in self._waiting.values()]
        return [tickets[turn] for turn in range(rounds) for tickets in queues if turn < len(tickets)]
