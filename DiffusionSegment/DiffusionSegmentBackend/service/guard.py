"""What stands before every route: the token, and failures that nobody foresaw."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import DiffusionSegmentError, ErrorCode
from .answers import error_answer
from .metrics import Metrics
from .rate_window import RateWindow
from .tokens import TokenFile

# Open to everybody, because they say nothing.
OPEN_PATHS = ("/healthz", "/readyz")

_log = logging.getLogger(__name__)


class _Answer:
    """The answer of one request, and whether it has begun."""

    def __init__(self, send: Send, metrics: Metrics) -> None:
        self._send = send
        self._metrics = metrics
        self.started = False

    async def send(self, message: Message) -> None:
        """Send a part."""
        if message["type"] == "http.response.start":
            self.started = True
            self._metrics.answered(message["status"])
        await self._send(message)


class Guard:
    """ASGI middleware: `scope["user"]` is the user of the token.

    Not Starlette's BaseHTTPMiddleware, which hides from a route that its client is gone.
    """

    def __init__(self, app: ASGIApp, tokens: TokenFile, failures_per_minute: int, metrics: Metrics) -> None:
        self._app = app
        self._tokens = tokens
        self._metrics = metrics
        self._failures = RateWindow(failures_per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            answer = _Answer(send, self._metrics)
            refusal = self._refusal(scope)
            if refusal is None:
                refusal = await self._served(scope, receive, answer)
            if refusal is not None:
                await refusal(scope, receive, answer.send)

    async def _served(self, scope: Scope, receive: Receive, answer: _Answer) -> Response | None:
        """Let the route answer; returns the answer to a request that failed before it began to."""
        try:
            await self._app(scope, receive, answer.send)
            return None
        except DiffusionSegmentError as error:
            self._metrics.failures.labels(code=error.code.value).inc()
            _log.warning("a request of %s was refused: %s", scope["user"], error.code.value)
            failure = error
        except Exception as error:
            _log.error("%s at %s", type(error).__name__, _places(error))
            failure = DiffusionSegmentError(ErrorCode.INTERNAL, "The server could not answer.")
        return None if answer.started else error_answer(failure)

    def _refusal(self, scope: Scope) -> Response | None:
        """The answer to a request without a valid token; None with one."""
        if scope["path"] in OPEN_PATHS:
            scope["user"] = ""
            return None
        address = scope["client"][0] if scope.get("client") else ""
        if self._failures.exceeded(address):
            error = DiffusionSegmentError(
                ErrorCode.SERVER_TOKEN, "Too many refused tokens.", hint="Wait a minute, then check the token."
            )
            return error_answer(error, status=429, headers={"retry-after": "60"})
        user = self._tokens.user_of(_token(scope))
        if user is None:
            self._failures.add(address)
            self._metrics.refused_tokens.inc()
            _log.warning("a token from %s was refused", address)
            error = DiffusionSegmentError(
                ErrorCode.SERVER_TOKEN, "The server refuses the token.", hint="Check the token, or ask for a new one."
            )
            return error_answer(error, headers={"www-authenticate": "Bearer"})
        scope["user"] = user
        return None


def _token(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"authorization":
            kind, _, token = value.decode("latin-1").partition(" ")
            return token.strip() if kind.lower() == "bearer" else ""
    return ""


def _places(error: Exception) -> str:
    """Where an exception was raised, without its text."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))
