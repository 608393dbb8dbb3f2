"""The states of the worker process as its client sees them, and the events that lead from one to the next."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from DiffusionSegmentBackend.errors import DiffusionSegmentError, ErrorCode


class WorkerState(Enum):
    """State of the worker process. BUSY and CANCELLING have a pending request, STARTING may have one."""

    STOPPED = "Stopped"
    STARTING = "Starting"
    READY = "Ready"
    BUSY = "Busy"
    CANCELLING = "Cancelling"
    FAILED = "Failed"


class WorkerEvent(Enum):
    """What changes the state of the worker process."""

    REQUEST = "a new request"
    CANCEL = "cancellation of the pending request"
    HELLO = "hello of the worker, no request pending"
    HELLO_PENDING = "hello of the worker, the pending request is sent"
    ANSWER = "answer, refusal or cancellation notice of the pending request"
    IDLE_EXIT = "exit of the idle worker"
    RESTART = "exit of the worker, another is started"
    LOSS = "exit of the worker, failed start or violation of the protocol"
    CLOSE = "end of the session"


_S, _E = WorkerState, WorkerEvent
_POSSIBLE: Mapping[WorkerState, Mapping[WorkerEvent, WorkerState]] = {
    _S.STOPPED: {_E.REQUEST: _S.STARTING},
    _S.STARTING: {
        _E.REQUEST: _S.STARTING,
        _E.CANCEL: _S.STARTING,
        _E.HELLO: _S.READY,
        _E.HELLO_PENDING: _S.BUSY,
        _E.LOSS: _S.FAILED,
    },
    _S.READY: {_E.REQUEST: _S.BUSY, _E.IDLE_EXIT: _S.STOPPED, _E.RESTART: _S.STARTING, _E.LOSS: _S.FAILED},
    _S.BUSY: {_E.CANCEL: _S.CANCELLING, _E.ANSWER: _S.READY, _E.RESTART: _S.STARTING, _E.LOSS: _S.FAILED},
    _S.CANCELLING: {_E.CANCEL: _S.CANCELLING, _E.ANSWER: _S.READY, _E.RESTART: _S.STARTING, _E.LOSS: _S.FAILED},
    _S.FAILED: {_E.REQUEST: _S.STARTING},
}
# None for an impossible event: the client never asks for it; if the worker causes one, it has violated the protocol.
TRANSITIONS: Mapping[WorkerState, Mapping[WorkerEvent, WorkerState | None]] = {
    # A comprehension, because no function may run at import.
    state: {**{event: None for event in WorkerEvent}, **possible, _E.CLOSE: _S.STOPPED}  # noqa: C420
    for state, possible in _POSSIBLE.items()
}


def nextState(state: WorkerState, event: WorkerEvent) -> WorkerState:
    """The state after an event.

    Raises:
        DiffusionSegmentError: PROTOCOL for an event that is impossible in this state.
    """
    after = TRANSITIONS[state][event]
    if after is None:
        raise DiffusionSegmentError(
            ErrorCode.PROTOCOL, f"The worker is {state.value.lower()}; unexpected: {event.value}.", hint="Click again."
        )
    return after
