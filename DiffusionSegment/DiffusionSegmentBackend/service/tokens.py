"""The users of the server and their tokens, of which only the SHA-256 is stored."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ..errors import DiffusionSegmentError, ErrorCode, from_os_error

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TOKEN_BYTES = 32
_PRIVATE = 0o600


@dataclass(frozen=True)
class User:
    """A line of the token file: name, digest of the token, day on which it was made, and the first without it."""

    name: str
    digest: str
    created: str
    expires: str = ""

    def valid_on(self, day: str) -> bool:
        """Whether the token may be used on a day, YYYY-MM-DD."""
        return not self.expires or day < self.expires


def add_user(path: Path, name: str, *, days: int | None = None) -> str:
    """Make a token for a user, replacing an earlier one, and return it; it cannot be read from the file.

    Args:
        path: Token file; made if it does not exist.
        name: Letters, digits, dots, underscores and hyphens, at most 64.
        days: Days after which the token ends; None for never.

    Raises:
        DiffusionSegmentError: OPTION for the name; OUTPUT_UNWRITABLE or DISK_FULL; as `read_users`.
    """
    if not _NAME.fullmatch(name):
        raise DiffusionSegmentError(
            ErrorCode.OPTION, f"'{name}' is no name of a user.", hint="Use letters, digits, dots and hyphens."
        )
    token, today = secrets.token_urlsafe(_TOKEN_BYTES), _today()
    expires = (datetime.now(UTC) + timedelta(days=days)).date().isoformat() if days is not None else ""
    others = [user for user in (read_users(path) if path.exists() else ()) if user.name != name]
    _write_users(path, [*others, User(name, digest_of(token), today, expires)])
    return token


def _write_users(path: Path, users: list[User]) -> None:
    lines = [" ".join(filter(None, (user.name, user.digest, user.created, user.expires))) for user in users]
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE), "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise from_os_error(error, path) from error


def read_users(path: Path) -> tuple[User, ...]:
    """The users in a token file.

    Raises:
        DiffusionSegmentError: INPUT_MISSING; INPUT_UNREADABLE for a file that others may read, or a line that is no
            user.
    """
    try:
        mode = path.stat().st_mode
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        hint = "Make one with `diffusion-segment serve-token`."
        raise DiffusionSegmentError(ErrorCode.INPUT_MISSING, f"There is no token file {path}.", hint=hint) from error
    except (OSError, ValueError) as error:
        raise DiffusionSegmentError(ErrorCode.INPUT_UNREADABLE, f"{path} cannot be read.") from error
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise DiffusionSegmentError(
            ErrorCode.INPUT_UNREADABLE, f"Others may read the token file {path}.", hint=f"Run `chmod 600 {path}`."
        )
    return tuple(_user_of(line, number, path) for number, line in enumerate(lines, start=1) if line.strip())


def _user_of(line: str, number: int, path: Path) -> User:
    fields = line.split()
    if len(fields) not in (3, 4) or not _NAME.fullmatch(fields[0]) or not _DIGEST.fullmatch(fields[1]):
        raise DiffusionSegmentError(
            ErrorCode.INPUT_UNREADABLE,
            f"Line {number} of {path} is no user.",
            hint="A line has a name, a digest and a day.",
        )
    return User(*fields)


def digest_of(token: str) -> str:
    """The SHA-256 of a token, hexadecimal."""
    return hashlib.sha256(token.encode()).hexdigest()


class TokenFile:
    """The users of a token file, which is read again after it was changed."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            DiffusionSegmentError: As `read_users`.
        """
        self._path = path
        self._changed = _change_of(path)
        self._users = read_users(path)

    def user_of(self, token: str) -> str | None:
        """The name of the user with this token; None for a token that is unknown or has ended.

        Every user's digest is compared, in constant time, so that the time of an answer tells nothing.
        """
        self._refresh()
        digest, day, name = digest_of(token), _today(), None
        for user in self._users:
            if hmac.compare_digest(digest, user.digest) and user.valid_on(day):
                name = user.name
        return name

    def _refresh(self) -> None:
        changed = _change_of(self._path)
        if changed == self._changed:
            return
        self._changed = changed
        try:
            self._users = read_users(self._path)
        except DiffusionSegmentError:
            # Nobody is let in by a file that cannot be trusted.
            self._users = ()


def _change_of(path: Path) -> tuple[int, int]:
    try:
        state = path.stat()
    except OSError:
        return 0, 0
    return state.st_mtime_ns, state.st_mode


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
