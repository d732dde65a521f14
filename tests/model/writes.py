"""Random operations on a writable repository, and what a plain dict says they must have done."""

import errno
import random
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import trio
from support.writing import Open, entry_at, names, opened, place, read, until

from backgate.fs.repository_file import RepositoryFile
from backgate.fs.tree import Changes
from backgate.gateway.config import RepositoryConfig
from backgate.gateway.errors import FileError, NotFound
from backgate.gateway.providers.memory import Memory
from backgate.gateway.records import HIDDEN

STAGED = ".tmp"  # what the model knows of staged names


@dataclass(eq=False)
class File:
    """A file as it should be."""

    data: bytearray = field(default_factory=bytearray)
    is_dirty: bool = True  # the store does not have it
    is_closed: bool = False  # its last close came after its last change
    stored: bytes | None = None  # what the store has under its name
    synced: bytes | None = None  # what a crash must spare
    touched: set[int] = field(default_factory=set)  # offsets changed since then
    was_staged: bool = False  # it was closed under a staged name before its last change
    is_link: bool = False  # a symlink, with its target as its bytes
    is_vague: bool = False  # truncated since: its size after a crash may be the one or the other


@dataclass(eq=False)
class Handle:
    file: File
    real: RepositoryFile


class Model:
    """A repository and its model, driven by numbers; any number means something."""

    def __init__(self, folder: Path, provider: Memory, config: RepositoryConfig) -> None:
        self._folder, self._provider, self._config = folder, provider, config
        self._files: dict[str, File] = {}
        self._directories = {""}
        self._handles: list[Handle] = []
        self._stack = AsyncExitStack()
        self._open: Open
        self._is_lazy = config.durability == "journal"
        self.log: list[str] = []

    async def step(self, verb: str, one: int, two: int, three: int) -> None:
        """Do one thing."""
        self.log.append(f"{verb} {one} {two} {three}")
        await getattr(self, f"_{verb}")(one, two, three)

    async def run(self, steps: list[tuple[str, int, int, int]]) -> None:
        """Open the repository, take `steps`, and compare everything at the end."""
        await self._start()
        try:
            for step in steps:
                await self.step(*step)
        finally:
            await self.finish()

    async def finish(self) -> None:
        """Compare everything, with files open and without."""
        try:
            await self._compare(0, 0, 0)
            for handle in list(self._handles):
                await self._close(handle)
            await self._drain(0, 0, 0)
            await self._compare(0, 0, 0)
            await self._compare_room()
        finally:
            await self._stack.aclose()

    async def _start(self) -> None:
        self._open = await self._stack.enter_async_context(
            opened(self._folder, self._provider, self._config)
        )
        self._tree = self._open.tree

    # Every operation takes three numbers and makes of them what it needs.

    async def _create(self, one: int, two: int, three: int) -> None:
        path = self._path(one)
        directory, name = await self._place(path)
        is_exclusive = bool(two % 2) or self._is_link(path)
        exists = path in self._files or path in self._directories
        expected = 0
        if path in self._directories:
            expected = errno.EEXIST if is_exclusive else errno.EISDIR
        elif exists and is_exclusive:
            expected = errno.EEXIST
        made = await self._try(
            self._tree.create(directory, name, mode=0o600, uid=1, gid=1, exclusive=is_exclusive),
            expected,
        )
        if made is not None:
            file = self._files.setdefault(path, File())
            self._handles.append(Handle(file, made[1]))

    async def _reopen(self, one: int, two: int, three: int) -> None:
        path = self._existing(one)
        if path is None or self._is_link(path):
            return
        truncate = two % 4 == 0
        entry = await entry_at(self._tree, path)
        real = await self._tree.open_for_writing(entry, truncate=truncate)
        file = self._files[path]
        self._handles.append(Handle(file, real))
        if truncate and file.data:
            self._cut(file, 0)

    async def _write(self, one: int, two: int, three: int) -> None:
        handle = self._handle(one)
        if handle is None:
            return
        offset, length = two % 40_000, 1 + three % 12_000
        data = random.Random(three).randbytes(length)
        await handle.real.write_at(offset, data)
        file = handle.file
        if offset > len(file.data):
            file.touched.update(range(len(file.data), offset))
            file.data += bytes(offset - len(file.data))
        file.data[offset : offset + length] = data
        file.touched.update(range(offset, offset + length))
        file.is_dirty, file.is_closed = True, False

    async def _append(self, one: int, two: int, three: int) -> None:
        handle = self._handle(one)
        if handle is not None and len(handle.file.data) < 150_000:
            await self._write(one, len(handle.file.data), three)

    async def _truncate(self, one: int, two: int, three: int) -> None:
        handle = self._handle(one)
        if handle is None:
            return
        size = two % 50_000
        await handle.real.change(Changes(size=size))
        if size != len(handle.file.data):
            self._cut(handle.file, size)

    async def _truncate_path(self, one: int, two: int, three: int) -> None:
        """By its name, which is stored when the call returns."""
        path = self._existing(one)
        if path is None or self._is_link(path):
            return
        size = two % 50_000
        await self._tree.change(await entry_at(self._tree, path), Changes(size=size))
        if size != len(self._files[path].data):
            self._cut(self._files[path], size)
        self._truncated(self._files[path])

    def _truncated(self, file: File) -> None:
        """A call by name opens and closes."""
        self._flushed(file)

    async def _symlink(self, one: int, two: int, three: int) -> None:
        path, target = self._path(one), f"target-{two}"
        exists = path in self._files or path in self._directories
        directory, name = await self._place(path)
        made = self._tree.make_symlink(directory, name, target.encode(), uid=1, gid=1)
        await self._try(made, errno.EEXIST if exists else 0)
        if not exists:
            data = target.encode()
            self._files[path] = File(bytearray(data), is_dirty=False, stored=data, is_link=True)

    async def _read(self, one: int, two: int, three: int) -> None:
        handle = self._handle(one)
        if handle is None:
            return
        offset, length = two % 60_000, three % 30_000
        found = bytes(await handle.real.read_at(offset, length))
        assert found == handle.file.data[offset : offset + length]

    async def _flush(self, one: int, two: int, three: int) -> None:
        handle = self._handle(one)
        if handle is not None:
            await handle.real.flush()
            self._flushed(handle.file)

    async def _close_one(self, one: int, two: int, three: int) -> None:
        handle = self._handle(one)
        if handle is not None:
            await self._close(handle)

    async def _synchronize(self, one: int, two: int, three: int) -> None:
        handle = self._handle(one)
        if handle is not None:
            await handle.real.synchronize()
            self._synced(handle.file)

    async def _unlink(self, one: int, two: int, three: int) -> None:
        path = self._path(one)
        expected = 0 if path in self._files else errno.ENOENT
        expected = errno.EISDIR if path in self._directories else expected
        await self._try(self._tree.unlink(*await self._place(path)), expected)
        self._files.pop(path, None)

    def _refusal(self, old: str, new: str) -> int:
        """Return the errno that a rename must fail with; 0: none."""
        is_directory = old in self._directories
        if old not in self._files and not is_directory:
            return errno.ENOENT
        if old == new:
            return 0
        if is_directory and new in self._files:
            return errno.ENOTDIR
        if is_directory and new.startswith(f"{old}/"):
            return errno.EINVAL
        if is_directory and new in self._directories and self._below(new):
            return errno.ENOTEMPTY
        return errno.EISDIR if not is_directory and new in self._directories else 0

    async def _rename(self, one: int, two: int, three: int) -> None:
        old, new = self._path(one), self._path(two)
        is_directory, expected = old in self._directories, self._refusal(old, new)
        await self._try(
            self._tree.rename(*await self._place(old), *await self._place(new)), expected
        )
        if expected or old == new:
            return
        if is_directory:
            self._move(old, new)
            return
        file = self._files.pop(old)
        replaced = self._files.get(new)
        self._files[new] = file
        only_here = file.stored is None
        if only_here and new.endswith(STAGED) and (replaced is None or replaced.stored is None):
            if file.synced is not None:
                self._synced(file)
            return
        if not file.is_link:
            file.is_closed = file.is_dirty = True
            self._acknowledged(file)

    async def _mkdir(self, one: int, two: int, three: int) -> None:
        path = self._path(one)
        exists = path in self._files or path in self._directories
        made = self._tree.make_directory(*await self._place(path), mode=0o755, uid=1, gid=1)
        await self._try(made, errno.EEXIST if exists else 0)
        if not exists:
            self._directories.add(path)

    async def _rmdir(self, one: int, two: int, three: int) -> None:
        path = self._path(one)
        expected = 0
        if path not in self._directories:
            expected = errno.ENOTDIR if path in self._files else errno.ENOENT
        elif self._below(path):
            expected = errno.ENOTEMPTY
        await self._try(self._tree.remove_directory(*await self._place(path)), expected)
        if not expected:
            self._directories.discard(path)

    async def _drain(self, one: int, two: int, three: int) -> None:
        """What umount waits for; what was staged by an earlier run stays."""
        await self._open.spool.drained()
        pending = self._pending()
        for path, file in self._files.items():
            if file.is_dirty and file.is_closed and path not in pending:
                self._stored(file)

    async def _crash(self, one: int, two: int, three: int) -> None:
        """Lose all that is in memory, as kill -9 does, and start again."""
        await self._stack.aclose()
        self._handles.clear()
        await self._start()
        await self._open.spool.drained()
        for path, file in list(self._files.items()):
            await self._recovered(path, file)

    async def _recovered(self, path: str, file: File) -> None:
        if file.is_link:
            return
        if not file.is_dirty:
            expected: bytes | None = bytes(file.data)
        elif file.is_closed:  # staged
            expected = bytes(file.data)
        elif file.synced is not None:
            found = await read(self._tree, path)
            if not file.is_vague:
                kept = [at for at in range(len(file.synced)) if at not in file.touched]
                assert len(found) == len(file.synced)
                assert all(found[at] == file.synced[at] for at in kept)
            expected = found
        elif file.was_staged and path in self._pending():
            expected = await read(self._tree, path)  # as it was closed, or partly newer
        elif self._is_lazy:
            await self._adopt(path)  # as it was closed last, or opened first
            return
        else:
            expected = file.stored
        if expected is None:
            assert path not in self._pending()
            del self._files[path]
            return
        assert await read(self._tree, path) == expected
        self._begin_anew(path, expected, file.stored)

    async def _adopt(self, path: str) -> None:
        try:
            found = await read(self._tree, path)
        except FileError:
            del self._files[path]
            return
        self._begin_anew(path, found, None)

    def _begin_anew(self, path: str, data: bytes, stored: bytes | None) -> None:
        """Take `path` as the crash left it: stored, or still in the spool."""
        spooled = self._open.spool.writing(path)
        self._files[path] = File(
            data=bytearray(data),
            is_dirty=spooled is not None,
            is_closed=True,
            stored=data if spooled is None else stored,
            synced=data if spooled is not None and spooled.is_durable else None,
            was_staged=spooled is not None,
        )

    async def _compare(self, one: int, two: int, three: int) -> None:
        """The tree shows what it should, and the store holds what it should."""
        if self._is_lazy:
            await self._drain(0, 0, 0)
        for prefix in sorted(self._directories):
            expected = {
                path.rpartition("/")[2]
                for path in [*self._files, *self._directories]
                if path and path.rpartition("/")[0] == prefix
            }
            found = await names(self._tree, prefix)
            assert sorted(found) == sorted(expected), prefix
        for path, file in self._files.items():
            if file.is_link:
                assert (await entry_at(self._tree, path)).target == bytes(file.data), path
            else:
                assert await read(self._tree, path) == file.data, path
        for path, file in self._files.items():
            if not (file.is_dirty and self._is_lazy):
                self._compare_stored(path, file)
        if self._is_lazy:
            return
        keys = {path for path, file in self._files.items() if file.stored is not None}
        assert keys == {key for key in self._open.stored_keys() if not key.startswith(HIDDEN)}

    async def _compare_room(self) -> None:
        """Only what waits takes room, and it is counted right."""
        spool = self._open.spool
        await until(lambda: not any(file.is_sending for file in spool.shelf))  # staged, leaving
        left = [one.file for one in spool.left_over.values() if one.file is not None]
        assert all(file.is_waiting for file in spool.shelf)
        assert spool.used == sum(file.local.total for file in [*spool.shelf, *left])
        needed = {key for file in spool.shelf for key in file.hidden}
        needed |= {key for one in spool.left_over.values() for key in one.hidden}
        assert {key for key in self._open.stored_keys() if key.startswith(HIDDEN)} <= needed

    def _compare_stored(self, path: str, file: File) -> None:
        try:
            content: bytes | None = self._open.content(path)
        except NotFound:
            content = None
        assert content == file.stored, path

    def _pending(self) -> set[str]:
        pending = self._open.spool.pending()
        return {one.key for one in pending if one.state != "left over"}

    async def _close(self, handle: Handle) -> None:
        self._handles.remove(handle)
        await handle.real.flush()
        self._flushed(handle.file)
        await handle.real.release()

    def _flushed(self, file: File) -> None:
        path = next((path for path, one in self._files.items() if one is file), None)
        if not file.is_dirty or path is None:
            return
        file.is_closed = True
        if path.endswith(STAGED):
            file.was_staged = True
            if file.synced is not None:  # what a crash spares is never older than the last close
                self._synced(file)
        else:
            self._acknowledged(file)

    def _acknowledged(self, file: File) -> None:
        if self._is_lazy:
            self._synced(file)
        else:
            self._stored(file)

    def _synced(self, file: File) -> None:
        file.synced, file.is_vague = bytes(file.data), False
        file.touched.clear()

    def _stored(self, file: File) -> None:
        file.is_dirty, file.stored = False, bytes(file.data)
        file.synced, file.is_vague, file.was_staged = None, False, False
        file.touched.clear()

    def _cut(self, file: File, size: int) -> None:
        file.touched.update(range(min(size, len(file.data)), max(size, len(file.data))))
        file.is_vague = True
        file.data = file.data[:size] + bytes(max(0, size - len(file.data)))
        file.is_dirty, file.is_closed = True, False

    def _move(self, old: str, new: str) -> None:
        for path in [one for one in self._files if one.startswith(f"{old}/")]:
            self._files[new + path.removeprefix(old)] = self._files.pop(path)
        for path in [one for one in self._directories if one == old or one.startswith(f"{old}/")]:
            self._directories.discard(path)
            self._directories.add(new + path.removeprefix(old))

    def _below(self, path: str) -> list[str]:
        everything = [*self._files, *self._directories]
        return [one for one in everything if one.startswith(f"{path}/")]

    def _path(self, number: int) -> str:
        directories = sorted(self._directories)
        prefix = directories[number % len(directories)]
        prefix = prefix if prefix.count("/") < 2 else ""
        name = ("a", "b", "a-", "d", "c.tmp")[number // 7 % 5]
        return f"{prefix}/{name}" if prefix else name

    def _existing(self, number: int) -> str | None:
        paths = sorted(self._files)
        return paths[number % len(paths)] if paths else None

    def _is_link(self, path: str) -> bool:
        return path in self._files and self._files[path].is_link

    def _handle(self, number: int) -> Handle | None:
        return self._handles[number % len(self._handles)] if self._handles else None

    async def _place(self, path: str):  # type: ignore[no-untyped-def]
        return await place(self._tree, path)

    async def _try(self, work: Awaitable[object], expected: int):  # type: ignore[no-untyped-def]
        """Await `work`; it must fail with the errno `expected`, or not at all if that is 0."""
        try:
            result = await work
        except FileError as error:
            assert error.errno == expected, f"{error}: expected {errno.errorcode.get(expected)}"
            return None
        assert not expected, f"expected {errno.errorcode[expected]}"
        return result


VERBS = (
    "create", "reopen", "write", "append", "truncate", "read", "flush", "close_one",
    "synchronize", "unlink", "rename", "mkdir", "rmdir", "drain", "crash", "compare",
    "truncate_path", "symlink",
)  # fmt: skip
WEIGHTS = (6, 3, 8, 8, 3, 5, 3, 6, 3, 3, 6, 3, 2, 1, 1, 1, 1, 1)


def random_steps(seed: int, count: int) -> list[tuple[str, int, int, int]]:
    """Return `count` random steps."""
    numbers = random.Random(seed)
    return [
        (verb, numbers.getrandbits(20), numbers.getrandbits(20), numbers.getrandbits(20))
        for verb in numbers.choices(VERBS, WEIGHTS, k=count)
    ]


__all__ = ["VERBS", "Model", "random_steps", "trio"]
