"""Answer every request: with its result, or with the errno that its error means.

An exception that is not a `FUSEError` would end the whole mount, so every handler runs in here.
What the operator must know is logged once, not once per request; and whoever waits for a store can
be freed.
"""

import errno
import functools
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import pyfuse3
import trio
from cachetools import LRUCache

from backgate.fs.nurseries import leaves
from backgate.gateway.errors import (
    AlreadyThere,
    BackgateError,
    Damaged,
    FileError,
    InvalidKey,
    NotFound,
    PasswordNeeded,
    Refused,
    Replaced,
    StoreFull,
    Unsupported,
)

CHANGES = frozenset(
    [
        "setattr",
        "create",
        "mknod",
        "mkdir",
        "symlink",
        "link",
        "unlink",
        "rmdir",
        "rename",
        "setxattr",
        "removexattr",
        "write",
        "flush",
        "fsync",
        "fsyncdir",
        "release",
    ]
)
IN_DIRECTORIES = frozenset(  # with a directory locked until they are answered
    [
        "lookup",
        "readdir",
        "fsyncdir",
        "setattr",
        "setxattr",
        "removexattr",
        "create",
        "mknod",
        "mkdir",
        "symlink",
        "link",
        "unlink",
        "rmdir",
        "rename",
    ]
)
REPEAT_AFTER = 30.0  # seconds for which more errors of one kind are only counted
KINDS_MAX = 1000  # kinds of errors remembered for that
NAME_MAX = 255  # bytes

_CODES: tuple[tuple[type[BackgateError], int], ...] = (
    (NotFound, errno.ENOENT),
    (AlreadyThere, errno.EEXIST),
    (Refused, errno.EACCES),
    (PasswordNeeded, errno.EACCES),
    (StoreFull, errno.EDQUOT),
    (Replaced, errno.ESTALE),
    (Unsupported, errno.EOPNOTSUPP),
)
_DISK_CODES = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE}
_QUIET = (FileError, NotFound, AlreadyThere, InvalidKey)  # answers to a caller, not faults

log = logging.getLogger(__name__)
Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")


class Answering(Protocol):
    """Who has handlers marked with `answered`."""

    replies: "Replies"


Owner = TypeVar("Owner", bound=Answering)
Handler = Callable[Concatenate[Owner, Parameters], Coroutine[Any, Any, Result]]


def answered(handler: Handler[Owner, Parameters, Result]) -> Handler[Owner, Parameters, Result]:
    """Make a method of an `Answering` object one that raises nothing but `FUSEError`."""

    @functools.wraps(handler)
    async def answering(
        owner: Owner, /, *arguments: Parameters.args, **options: Parameters.kwargs
    ) -> Result:
        return await owner.replies.answer(handler.__name__, handler(owner, *arguments, **options))

    return answering


@dataclass(slots=True)
class _Said:
    at: float  # seconds, monotonic
    unsaid: int = 0  # errors of the same kind since


class Replies:
    """The errors of one mount's requests: counted, logged, and turned into an errno."""

    def __init__(self) -> None:
        self.errors: Counter[str] = Counter()  # errno name -> answers
        self._waiting: dict[trio.CancelScope, str] = {}  # requests without an answer
        self._answered = trio.Event()  # set, and replaced, when somebody waits for answers
        self._is_watched = False
        self._is_closed = False  # nothing is answered but with EIO
        self._said: LRUCache[Any, _Said] = LRUCache(KINDS_MAX)

    @property
    def waiting(self) -> int:
        """How many requests have no answer yet."""
        return len(self._waiting)

    @property
    def holds_directories(self) -> bool:
        """True when somebody waits with a directory locked; for any thread."""
        return not IN_DIRECTORIES.isdisjoint(list(self._waiting.values()))

    def abort(self) -> int:
        """Answer every waiting request with EIO, and return how many there were."""
        waiting = list(self._waiting)
        for scope in waiting:
            scope.cancel()
        return len(waiting)

    def close(self) -> int:
        """Answer every request that waits, and every one that comes, with EIO; return the first."""
        self._is_closed = True
        return self.abort()

    async def changes_answered(self) -> None:
        """Return when no request that changes something waits for its answer."""
        self._is_watched = True
        while not CHANGES.isdisjoint(self._waiting.values()):
            await self._answered.wait()

    async def answer(self, request: str, work: Awaitable[Result]) -> Result:
        """Return what `work` returns; raises `FUSEError` for any error, and when aborted."""
        scope = trio.CancelScope()
        if self._is_closed:
            scope.cancel()
        self._waiting[scope] = request
        try:
            with scope:
                return await work
        except pyfuse3.FUSEError as error:
            self._count(error.errno)
            raise
        except Exception as error:
            raise self._refusal(request, error) from None
        finally:
            del self._waiting[scope]
            if self._is_watched:
                self._answered.set()
                self._answered = trio.Event()
        self._count(errno.EIO)
        raise pyfuse3.FUSEError(errno.EIO)

    async def contained(
        self, task: str, work: Awaitable[object], is_ours: Callable[[], bool]
    ) -> None:
        """Run `work` to its end; once `is_ours`, an error of it is logged and goes no further."""
        try:
            await work
        except Exception as error:
            if not is_ours():
                raise
            self.log(task, _first(error))

    def log(self, request: str, error: BaseException) -> None:
        """Log `error` if the operator must know it, and has not just been told of one like it."""
        if isinstance(error, _QUIET):
            log.debug("%s: %s", request, error)
            return
        kind = (type(error), error.where) if isinstance(error, Damaged) else type(error)
        said, now = self._said.get(kind), time.monotonic()
        if said is not None and now < said.at + REPEAT_AFTER:
            said.unsaid += 1
            return
        more = f" (and {said.unsaid} more like it)" if said is not None and said.unsaid else ""
        self._said[kind] = _Said(now)
        if isinstance(error, BackgateError):
            log.error("%s: %s%s", request, error, more)
        else:
            log.error("%s: unexpected%s", request, more, exc_info=error)

    def _refusal(self, request: str, error: Exception) -> pyfuse3.FUSEError:
        cause = _first(error)
        code = errno_of(cause)
        self._count(code)
        self.log(request, cause)
        return pyfuse3.FUSEError(code)

    def _count(self, code: int) -> None:
        self.errors[errno.errorcode.get(code, str(code))] += 1


async def explained(what: str, work: Awaitable[Result]) -> Result:
    """Return what `work` returns; raises `BackgateError` for any error, and logs a bug."""
    try:
        return await work
    except Exception as error:
        cause = _first(error)
        if isinstance(cause, BackgateError):
            raise cause from None
        log.exception("%s: unexpected", what)
        raise BackgateError(f"{what}: unexpected {type(cause).__name__}: see the log") from cause


def errno_of(error: BaseException) -> int:
    """Return the errno that tells a caller of `error`; EIO for what has none."""
    if isinstance(error, FileError):
        return error.errno
    if isinstance(error, InvalidKey):
        last = (error.key or "").rstrip("/").rpartition("/")[2]
        return errno.ENAMETOOLONG if len(last.encode()) > NAME_MAX else errno.EINVAL
    if isinstance(error, OSError) and error.errno in _DISK_CODES:
        return error.errno
    return next((code for kind, code in _CODES if isinstance(error, kind)), errno.EIO)


def _first(error: BaseException) -> BaseException:
    """Return the error itself, or of a group the one to tell: the first that we have a name for."""
    found = list(leaves(error))
    return next((leaf for leaf in found if isinstance(leaf, BackgateError)), found[0])
