"""Every error that Backgate raises on purpose, as one tree.

An error is raised where its cause is known, with the store, key or offset in its message; a foreign
library's error is translated once, at its edge. `str(error)` is for an administrator: who, what,
why.
"""

import os


class BackgateError(Exception):
    """The root: anything that Backgate says went wrong."""


class UsageError(BackgateError):
    """The command was called in a way that cannot mean anything (exit code 2)."""


class ConfigError(UsageError):
    """The configuration is wrong; the message names the file, the key and what would be right."""


class StoreError(BackgateError):
    """A store answered no, or something that cannot be used."""

    def __init__(self, message: str, *, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


class NotFound(StoreError):
    """The store said that there is no such object or upload; without a key: no such bucket."""


class Unreachable(StoreError):
    """A fault that a retry may mend: no connection, a time-out, a 5xx, "slow down".

    The only error that is retried, with its kinds, and only in `retry.py`.
    """

    def __init__(
        self, message: str, *, key: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, key=key)
        self.retry_after = retry_after  # seconds that the store asked us to wait


class NotAsSent(Unreachable):
    """What arrived is not what was sent: damaged on its way, and to be sent again.

    `is_stored` says that the store has it all the same: it was its answer that told.
    """

    def __init__(self, message: str, *, key: str | None = None, is_stored: bool = False) -> None:
        super().__init__(message, key=key)
        self.is_stored = is_stored


class Refused(StoreError):
    """Credentials or permissions do not suffice."""


class WrongCredentials(Refused):
    """The credentials themselves are no longer, or not yet, known: expired, replaced, mistyped."""


class WrongClock(Refused):
    """Requests are signed at a time that is not the store's."""


class Denied(Refused):
    """The store knows who asks, and does not let him do this."""


class Unsupported(StoreError):
    """The provider does not implement the request (501 and the like)."""


class AlreadyThere(StoreError):
    """A conditional write found the object present."""


class Replaced(StoreError):
    """The object is another version than the one asked for."""


class StoreFull(StoreError):
    """A quota or the medium is exhausted."""


class InvalidKey(StoreError):
    """The store cannot hold an object under this key."""


class Damaged(BackgateError):
    """Bytes do not hold together: a MAC, hash, length or structure is wrong.

    `where` names the object (or image), `offset` the byte, so that the message can be acted on.
    """

    def __init__(self, where: str, offset: int | None, reason: str) -> None:
        at = "" if offset is None else f" at byte {offset}"
        super().__init__(f"{where}{at}: {reason}")
        self.where, self.offset, self.reason = where, offset, reason


class PasswordNeeded(BackgateError):
    """A backup repository is encrypted and none of the given secrets opens it."""


class FileError(BackgateError):
    """A file system's own answer, with its errno: no such file, not empty, is a directory."""

    def __init__(self, code: int, path: object = "", reason: str = "") -> None:
        name = path.decode("utf-8", "backslashreplace") if isinstance(path, bytes) else str(path)
        super().__init__(": ".join(part for part in (name, reason or os.strerror(code)) if part))
        self.errno = code
