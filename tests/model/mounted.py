"""The same model on a real mount: every call goes through the kernel, and a crash is a kill -9.

The mount is served by a process of its own, over a directory as its store, with parts that are
small enough for small files to have many. What a test asks of the spool goes over a socket.
"""

import errno
import json
import os
import signal
import socket
import stat
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import trio
from model.writes import File, Model
from support.mounting import Mounted, clear, launched
from support.writing import opened

from backgate.fs.nurseries import open_nursery
from backgate.fs.tree import Changes, Entry, Tree
from backgate.gateway.config import RepositoryConfig
from backgate.gateway.errors import FileError
from backgate.gateway.providers.local import Local

T = TypeVar("T")
LINE = 1 << 20  # bytes of an answer


def driven(work: Coroutine[Any, Any, T]) -> T:
    """Run what never waits for anything but system calls."""
    try:
        work.send(None)
    except StopIteration as ended:
        result: T = ended.value
        return result
    raise RuntimeError("it waits for a loop")


class MountedFile:
    """A descriptor, as a `WritableFile`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def read_at(self, offset: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, offset)

    async def write_at(self, offset: int, data: bytes) -> None:
        assert os.pwrite(self._descriptor, data, offset) == len(data)

    async def change(self, changes: Changes) -> None:
        os.ftruncate(self._descriptor, changes.size or 0)

    async def synchronize(self) -> None:
        os.fsync(self._descriptor)

    async def flush(self) -> None:
        os.close(os.dup(self._descriptor))

    async def release(self) -> None:
        os.close(self._descriptor)


@dataclass(frozen=True, slots=True)
class _Page:
    entries: Sequence[Entry]
    cursor: None = None


class MountedTree:
    """A mounted directory as the part of a `WritableTree` that the model uses."""

    def __init__(self, top: Path, descriptors: set[int]) -> None:
        self._top, self._descriptors = top, descriptors

    async def root(self) -> Entry:
        return self._entry(self._top)

    async def child(self, directory: Entry, name: bytes) -> Entry:
        return self._entry(self._path(directory, name))

    async def children(self, directory: Entry, cursor: object = None) -> _Page:
        path = Path(directory.node)
        return _Page([self._entry(path / name) for name in os.listdir(path)])

    @asynccontextmanager
    async def open(self, file: Entry) -> AsyncIterator["_Bytes"]:
        yield _Bytes(Path(file.node).read_bytes())

    async def create(
        self, directory: Entry, name: bytes, *, mode: int, uid: int, gid: int, exclusive: bool
    ) -> tuple[None, MountedFile]:
        flags = os.O_RDWR | os.O_CREAT | (os.O_EXCL if exclusive else 0)
        return None, self._opened(self._path(directory, name), flags)

    async def open_for_writing(self, file: Entry, *, truncate: bool) -> MountedFile:
        return self._opened(Path(file.node), os.O_RDWR | (os.O_TRUNC if truncate else 0))

    async def change(self, file: Entry, changes: Changes) -> None:
        os.truncate(file.node, changes.size or 0)

    async def make_directory(self, directory: Entry, name: bytes, **_: int) -> None:
        self._try(os.mkdir, self._path(directory, name))

    async def make_symlink(self, directory: Entry, name: bytes, target: bytes, **_: int) -> None:
        self._try(os.symlink, os.fsdecode(target), self._path(directory, name))

    async def remove_directory(self, directory: Entry, name: bytes) -> None:
        self._try(os.rmdir, self._path(directory, name))

    async def unlink(self, directory: Entry, name: bytes) -> None:
        self._try(os.unlink, self._path(directory, name))

    async def rename(self, old: Entry, name: bytes, new: Entry, new_name: bytes) -> None:
        self._try(os.rename, self._path(old, name), self._path(new, new_name))

    def _opened(self, path: Path, flags: int) -> MountedFile:
        descriptor = self._try(os.open, path, flags, 0o600)
        self._descriptors.add(descriptor)
        return MountedFile(descriptor)

    def _path(self, directory: Entry, name: bytes) -> Path:
        return Path(directory.node) / os.fsdecode(name)

    def _entry(self, path: Path) -> Entry:
        status = self._try(os.lstat, path)
        is_link = stat.S_ISLNK(status.st_mode)
        return Entry(
            name=os.fsencode(path.name),
            mode=status.st_mode,
            size=status.st_size,
            uid=0,
            gid=0,
            mtime_ns=0,
            target=os.fsencode(os.readlink(path)) if is_link else None,
            node=str(path),
        )

    def _try(self, call: Callable[..., T], *arguments: object) -> T:
        try:
            return call(*arguments)
        except OSError as error:
            raise FileError(error.errno or 0, str(arguments[0])) from error


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self._data, self.size = data, len(data)

    async def read_at(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]


@dataclass(frozen=True, slots=True)
class _Pending:
    key: str
    state: str
    is_durable: bool


class MountedSpool:
    """What the model asks of a spool, asked of the process that has it."""

    def __init__(self, asked: socket.socket) -> None:
        self._asked = asked

    async def drained(self) -> None:
        self._ask("drain")

    def pending(self) -> list[_Pending]:
        return [_Pending(*one) for one in self._ask("pending")]

    def writing(self, key: str) -> _Pending | None:
        found = [one for one in self.pending() if one.key == key and one.state != "left over"]
        return found[0] if found else None

    def _ask(self, what: str) -> Any:
        self._asked.sendall(what.encode())
        return json.loads(self._asked.recv(LINE))


@dataclass
class MountedOpen:
    """What the model uses of an open repository."""

    mount: Mounted
    spool: MountedSpool
    provider: Local
    descriptors: set[int] = field(default_factory=set)

    @property
    def tree(self) -> MountedTree:
        return MountedTree(self.mount.path, self.descriptors)

    def stored_keys(self) -> list[str]:
        return [one.key for one in self.provider.page().objects if not one.key.endswith("/")]

    def content(self, key: str) -> bytes:
        return self.provider.get(key, 0, 2**62)


class MountedModel(Model):
    """The model, and a mount that is killed where the model crashes."""

    def __init__(self, folder: Path, config: RepositoryConfig) -> None:
        store = folder / "store"
        store.mkdir()
        super().__init__(folder, Local(str(store)), config)  # type: ignore[arg-type]
        self.crashes = 0

    def __enter__(self) -> "MountedModel":
        """Mount it."""
        driven(self._start())
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Compare everything, unless it went wrong, and leave nothing mounted."""
        driven(self.finish() if kind is None else self._stack.aclose())

    def do(self, verb: str, one: int, two: int, three: int) -> None:
        """Do one thing, and compare."""
        driven(self.step(verb, one, two, three))

    async def _start(self) -> None:
        self._open = await self._stack.enter_async_context(self._mounted())  # type: ignore[assignment]
        self._tree = self._open.tree

    def _refusal(self, old: str, new: str) -> int:
        exists = old in self._files or old in self._directories
        if exists and new.startswith(f"{old}/"):
            return errno.EINVAL  # whatever is there: the kernel looks at this first
        if exists and old.startswith(f"{new}/"):
            return errno.ENOTEMPTY
        return super()._refusal(old, new)

    def _truncated(self, file: File) -> None:
        if not any(handle.file is file for handle in self._handles):
            super()._truncated(file)  # else the kernel knows it as open, and somebody will close it

    async def _compare_room(self) -> None:
        """What only the process itself can see."""

    @asynccontextmanager
    async def _mounted(self) -> AsyncIterator[MountedOpen]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        folder, config = self._folder, self._config
        store = str(folder / "store")

        @asynccontextmanager
        async def serving(_: object) -> AsyncIterator[Tree]:
            async with (
                opened(folder, Local(store), config) as repository,  # type: ignore[arg-type]
                open_nursery() as nursery,
            ):
                nursery.start_soon(_answer, theirs, repository.spool)
                yield repository.tree
                nursery.cancel_scope.cancel()

        mount = launched(serving, folder)
        theirs.close()
        found = MountedOpen(mount, MountedSpool(ours), Local(store))
        try:
            yield found
        finally:
            mount.kill(signal.SIGKILL)
            mount.ended()
            clear(mount)
            for descriptor in found.descriptors:
                with suppress(OSError):
                    os.close(descriptor)
            ours.close()
            self.crashes += 1


async def _answer(connection: socket.socket, spool: Any) -> None:
    asked = trio.socket.from_stdlib_socket(connection)
    while what := await asked.recv(LINE):
        if what == b"drain":
            await spool.drained()
        durable = {file.number for file in spool.shelf if file.is_durable}
        pending = [(one.key, one.state, one.number in durable) for one in spool.pending()]
        await asked.send(json.dumps(pending).encode())
