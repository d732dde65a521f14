"""What lies in a spool and is not in the store, for people to look at; while a gateway runs, and
without one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from backgate.gateway.journal import read_journal
from backgate.gateway.records import Spooled
from backgate.gateway.staged import StagedNames

FILES = "files"  # the folder of the local files, named by their number

State: TypeAlias = Literal["open", "staged", "waiting", "failed", "left over"]

UNSYNCED = "neither closed nor synchronized when the gateway ended"
UNKNOWN = "bytes that the journal does not know"


@dataclass(frozen=True, slots=True)
class Pending:
    """One file of the spool."""

    number: int  # names it among all that the spool ever held
    key: str
    size: int  # bytes
    state: State
    reason: str  # why it is still there
    since_ns: int  # nanoseconds since 1970


@dataclass(frozen=True, slots=True)
class WaitedFor:
    """What has to be stored until everything whose close has returned is."""

    files: int
    bytes: int  # that are still to be sent
    first: str  # key of the file that is next
    reason: str  # why it takes long; empty: it does not


def read_pending(directory: Path, more_staged: list[str]) -> list[Pending]:
    """Return what lies in the spool `directory` that no gateway is using now."""
    if not directory.is_dir():
        return []
    state, torn = read_journal(directory)
    staged, is_same_boot = StagedNames(more_staged), boot_id() == state.header.boot
    found = list(_pending(directory / FILES, state.files, staged, is_same_boot))
    if is_same_boot and not torn:
        return found  # each file was known before it held anything: the others are done with
    unknown = local_files(directory / FILES).keys() - state.files.keys()
    return found + [left_over(directory / FILES / str(number), None) for number in sorted(unknown)]


def is_kept(record: Spooled, *, is_same_boot: bool) -> bool:
    """True when the bytes of `record` are as the tool was told they are."""
    return record.is_durable or (record.is_closed and is_same_boot)


def boot_id() -> str:
    """Return what names this run of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def left_over(path: Path, record: Spooled | None) -> Pending:
    """Return how a file is listed that no tool was told is safe."""
    status = path.stat()
    return Pending(
        int(path.name),
        record.key if record else "?",
        status.st_size,
        "left over",
        UNSYNCED if record else UNKNOWN,
        status.st_mtime_ns,
    )


def local_files(directory: Path) -> dict[int, Path]:
    """Return the local files in the folder `directory`, by number."""
    return {int(path.name): path for path in directory.glob("*") if path.name.isdigit()}


def _pending(
    directory: Path, records: dict[int, Spooled], staged: StagedNames, is_same_boot: bool
) -> Iterator[Pending]:
    files = local_files(directory)
    for number, record in records.items():
        path = files.pop(number, None)
        if is_kept(record, is_same_boot=is_same_boot):
            since_ns = path.stat().st_mtime_ns if path else record.attributes.mtime_ns
            state: State = "staged" if staged.matches(record.key) else "waiting"
            state = "failed" if record.reason else state
            yield Pending(number, record.key, record.size, state, record.reason, since_ns)
        elif path is not None:
            yield left_over(path, record)
