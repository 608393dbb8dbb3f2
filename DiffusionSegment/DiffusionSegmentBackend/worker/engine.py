"""Dispatches each request to its handler; model, session and features are kept between requests."""

from __future__ import annotations

from ..errors import DiffusionSegmentError, ErrorCode, missing_package
from ..pipeline.progress import Progress
from ..protocol.messages import Task
from .answer import EngineAnswer, SendEarly
from .handlers import HANDLERS, HandlerContext
from .session_cache import SessionCache


class PipelineEngine:
    """The engine of the worker, of a server, and of tests."""

    def __init__(self) -> None:
        self._cache = SessionCache()

    def __call__(self, request: Task, progress: Progress, send_early: SendEarly) -> EngineAnswer:
        """Run the handler of a request; `send_early` takes what can be shown before the answer.

        Raises:
            DiffusionSegmentError: NO_TORCH, PACKAGE_MISSING, PROTOCOL for a request without a handler, and whatever the
                handler raises.
        """
        handler = HANDLERS.get(type(request))
        if handler is None:
            raise DiffusionSegmentError(ErrorCode.PROTOCOL, f"There is no handler for '{request.type}'.")
        try:
            return handler(request, HandlerContext(self._cache, progress, send_early))
        except ModuleNotFoundError as error:
            raise missing_package(error) from error
