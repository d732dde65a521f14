"""The contract of an index: where questions about objects are answered, and changes are kept.

`local.LocalIndex` keeps one in a file, for the processes of one machine; `shared.SharedIndex` in a
PostgreSQL database, for any number of gateways. A question is a function of a `Database`, a change
one of a `Transaction`; either may be asked a second time, when the first attempt got lost.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from backgate.gateway.metadata.changes import Changes
from backgate.gateway.metadata.database import Database
from backgate.gateway.metadata.file import Transaction

P = ParamSpec("P")
T = TypeVar("T")

Question = Callable[Concatenate[Database, P], T]
Change = Callable[Concatenate[Transaction, P], T]


class Index(Protocol):
    """One index as this process has it open, for any number of tasks.

    All methods that are awaited raise `StoreError` when the index is of no use for now; what they
    were asked has then not happened, or will be asked of the store again.
    """

    @property
    def changes(self) -> Changes:
        """What has changed lately, as far as this process knows."""

    @property
    def openings(self) -> int:
        """A number that grows when the index is replaced: what was read before counts no more."""

    @property
    def trouble(self) -> str | None:
        """What is wrong with where it is kept."""

    @property
    def generation(self) -> int:
        """The number of the last change that this process knows of."""

    def patient(self, patience: float) -> "Index":
        """Return the same index for callers who wait no longer than `patience` seconds for it."""

    async def read(self, question: Question[P, T], *a: P.args, **k: P.kwargs) -> T:
        """Return the answer to a quick question."""

    async def read_behind(self, question: Question[P, T], *a: P.args, **k: P.kwargs) -> T:
        """Return the answer to a long question; nobody waits for it but the caller."""

    async def write(self, change: Change[P, T], *a: P.args, **k: P.kwargs) -> T:
        """Make a small change; it is committed when this returns."""

    async def write_behind(self, size: int, change: Change[P, T], *a: P.args, **k: P.kwargs) -> T:
        """Make a change of about `size` rows; nobody waits for it but the caller."""

    async def note(self, change: Change[P, T], *a: P.args, **k: P.kwargs) -> T:
        """Make a small change that must not be lost, for the store has made it too.

        Where it could not be made, or was cancelled, the index doubts what it knows.
        """

    async def news(self, seconds: float) -> None:
        """Return when others may have changed something, in `seconds` at the latest."""

    async def poll(self) -> None:
        """Look what others have done, and show them that this process is alive."""

    async def tidy(self, settled: int) -> None:
        """Forget what no longer matters once changes up to `settled` show, if there is much."""

    async def check(self) -> None:
        """Look through all of it for damage, and replace it if there is any."""

    async def size(self) -> int | None:
        """Return how many bytes it takes; None where nobody here can say."""

    def turn(self) -> AbstractAsyncContextManager[bool]:
        """Try to be the one who crawls; the turn ends with the context, or with the process."""

    async def aclose(self) -> None:
        """Close it; what was written is kept when this returns."""
