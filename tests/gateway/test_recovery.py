"""Tests of `gateway/recovery.py`: whenever the gateway dies, what was acknowledged is whole."""

import errno
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
import trio
from support.writing import (
    CONFIG,
    PART,
    Open,
    create,
    entry_at,
    make_directory,
    memory,
    names,
    opened,
    place,
    rename,
    until,
    write,
)

from backgate.gateway import recovery
from backgate.gateway.errors import Refused, Unreachable
from backgate.gateway.providers.memory import Fault, Memory
from backgate.gateway.records import HIDDEN, Record

ROOMY = CONFIG
PRESSED = msgspec.structs.replace(CONFIG, spool=16 * PART)
LAZY = msgspec.structs.replace(CONFIG, durability="journal")

Acknowledged = dict[str, bytes]  # what must be whole in the store, by key


class Killer(trio.abc.Instrument):
    """Ends everything after so many steps of any task, as a crash does."""

    def __init__(self, steps: int) -> None:
        self.scope = trio.CancelScope()
        self._left = steps

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._left -= 1
        if self._left == 0:
            self.scope.cancel()


async def write_as_restic(repository: Open, acknowledged: Acknowledged) -> None:
    """A temporary name, fsync, close, rename, fsync of the directory; packs before index."""
    tree = repository.tree
    root = await tree.root()
    for name, size in (("pack1", 3 * PART), ("pack2", 30 * PART), ("index", 100)):
        data = content(name, size)
        _, file = await tree.create(
            root, f"{name}-tmp-1".encode(), mode=0o600, uid=1, gid=1, exclusive=True
        )
        await file.write_at(0, data)
        await file.synchronize()
        await file.flush()
        await file.release()
        await rename(tree, f"{name}-tmp-1", name)
        acknowledged[name] = data
        await tree.synchronize(root)


async def write_as_borg(repository: Open, acknowledged: Acknowledged) -> None:
    """Segments under their final names, synchronized; a lock directory that is renamed."""
    tree = repository.tree
    root = await tree.root()
    await make_directory(tree, "lock.tmp")
    _, file = await tree.create(
        await tree.child(root, b"lock.tmp"), b"me", mode=0o600, uid=1, gid=1, exclusive=True
    )
    await file.flush()
    await file.release()
    await rename(tree, "lock.tmp", "lock")
    acknowledged["lock/me"] = b""
    for number in range(3):
        data = content(f"segment{number}", 20 * PART)
        name = f"segment{number}".encode()
        _, file = await tree.create(root, name, mode=0o600, uid=1, gid=1, exclusive=True)
        for start in range(0, len(data), PART):
            await file.write_at(start, data[start : start + PART])
        await file.synchronize()
        await file.flush()
        await file.release()
        acknowledged[name.decode()] = data
    acknowledged.pop("lock/me")
    await tree.unlink(*await place(tree, "lock/me"))


def content(name: str, size: int) -> bytes:
    return (name.encode() * (size // len(name) + 1))[:size]


WHOLE = {
    "pack1": content("pack1", 3 * PART),
    "pack2": content("pack2", 30 * PART),
    "index": content("index", 100),
    "lock/me": b"",
    "lock.tmp/me": b"",
    **{f"segment{number}": content(f"segment{number}", 20 * PART) for number in range(3)},
}

Tool = Callable[[Open, Acknowledged], Awaitable[None]]


async def run_and_die(
    folder: Path, provider: Memory, config: object, tool: Tool, steps: int
) -> tuple[Acknowledged, bool]:
    """Run `tool` until it ends or `steps` have been taken; returns what it was told is stored."""
    acknowledged: Acknowledged = {}
    killer = Killer(steps)
    with killer.scope:
        async with opened(folder, provider, config) as repository:  # type: ignore[arg-type]
            trio.lowlevel.add_instrument(killer)
            try:
                await tool(repository, acknowledged)
            finally:
                trio.lowlevel.remove_instrument(killer)
            return acknowledged, True
    return acknowledged, False


@pytest.mark.slow
@pytest.mark.parametrize("tool", [write_as_restic, write_as_borg])
@pytest.mark.parametrize("config", [ROOMY, PRESSED, LAZY], ids=["roomy", "pressed", "lazy"])
async def test_whenever_the_gateway_dies_what_was_acknowledged_is_whole(
    tmp_path: Path, config: object, tool: Tool
) -> None:
    is_lazy = config is LAZY
    steps, is_finished, deaths = 1, False, 0
    while not is_finished:
        provider, folder = memory(), tmp_path / str(steps)
        folder.mkdir()
        acknowledged, is_finished = await run_and_die(folder, provider, config, tool, steps)
        found = {key: provider.get(key, 0, 1 << 40) for key in keys_of(provider)}
        if not is_lazy:
            assert {key: found.get(key) for key in acknowledged} == acknowledged, steps
        assert "index" not in found or {"pack1", "pack2"} <= found.keys(), steps

        async with opened(folder, provider, config) as repository:  # type: ignore[arg-type]
            await repository.spool.drained()
            found = {key: repository.content(key) for key in keys_of(provider)}

            assert {key: found.get(key) for key in acknowledged} == acknowledged, steps
            assert {key: WHOLE[key] for key in found} == found, steps
            assert provider.uploads() == []
            assert not ({"lock/me", "lock.tmp/me"} <= found.keys())
        deaths += 1
        steps += 1 + steps // 12
    assert deaths > 30


def keys_of(provider: Memory) -> list[str]:
    keys = [info.key for info in provider.page().objects]
    return [key for key in keys if not key.endswith("/") and not key.startswith(HIDDEN)]


class Power:
    """Notes how much of a journal was synchronized, so that a loss of power can be played."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._spool, self._monkeypatch = folder / "spool", monkeypatch
        self._journal, self._kept = self._spool / "journal", folder / "kept"
        self._synchronized: dict[int, int] = {}  # inode -> bytes
        fsync = os.fsync

        def noted(descriptor: int) -> None:
            status = os.fstat(descriptor)
            fsync(descriptor)
            self._synchronized[status.st_ino] = status.st_size

        monkeypatch.setattr(os, "fsync", noted)

    def keep(self) -> None:
        """Have the disk know nothing of files that are deleted from now on."""
        shutil.copytree(self._spool / "files", self._kept)

    def lose(self) -> None:
        """Leave of the journal what was synchronized, and start the machine again."""
        shutil.copytree(self._kept, self._spool / "files", dirs_exist_ok=True)
        os.truncate(self._journal, self._synchronized[self._journal.stat().st_ino])
        self._monkeypatch.setattr(recovery, "boot_id", lambda: "another")


async def cannot_be_stored(repository: Open, provider: Memory, path: str, data: bytes) -> None:
    provider.faults = [Fault(verb="put", key=path, error=lambda: Refused("no"))]
    with pytest.raises(Refused):
        await write(repository.tree, path, data)
    provider.faults = []


async def test_what_a_rename_replaced_does_not_come_back_after_a_loss_of_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider, power = memory(), Power(tmp_path, monkeypatch)
    async with opened(tmp_path, provider) as repository:
        await cannot_be_stored(repository, provider, "a", b"old")
        power.keep()
        await write(repository.tree, "b.tmp", b"new")
        await rename(repository.tree, "b.tmp", "a")
        power.lose()

    async with opened(tmp_path, provider) as repository:
        await repository.spool.drained()
        assert repository.content("a") == b"new"


async def test_what_a_rename_in_the_store_replaced_does_not_come_back_after_a_loss_of_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider, power = memory(), Power(tmp_path, monkeypatch)
    async with opened(tmp_path, provider) as repository:
        await write(repository.tree, "b", b"new")
        await cannot_be_stored(repository, provider, "a", b"old")
        power.keep()
        await rename(repository.tree, "b", "a")
        power.lose()

    async with opened(tmp_path, provider) as repository:
        await repository.spool.drained()
        assert repository.content("a") == b"new"


async def test_what_a_crash_left_unsynchronized_is_synchronized_before_it_counts_as_safe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, memory()) as repository:
        await write(repository.tree, "a.tmp", b"content")
    local = tmp_path / "spool" / "files" / "1"
    synchronized: list[int] = []
    fsync = os.fsync
    async with opened(tmp_path, memory()) as repository:
        spooled = repository.spool.writing("a.tmp")
        assert spooled is not None
        monkeypatch.setattr(
            os, "fsync", lambda fd: (synchronized.append(os.fstat(fd).st_ino), fsync(fd))
        )

        await repository.spool.synchronize(spooled)

        assert spooled.is_durable
        assert local.stat().st_ino in synchronized


async def test_a_file_that_the_journal_cannot_hold_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    async with opened(tmp_path, memory()) as repository:
        with monkeypatch.context() as patched:
            patched.setattr(repository.spool.journal, "append", full)
            with pytest.raises(OSError, match="no space"):
                await create(repository, "a")

        assert await names(repository.tree) == []
        assert repository.spool.pending() == []
        await write(repository.tree, "a", b"content")
        assert repository.content("a") == b"content"


async def test_what_is_open_when_the_spool_closes_is_told_and_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    provider, before = memory(), len(os.listdir("/proc/self/fd"))
    async with opened(tmp_path, provider) as repository:
        file = await create(repository, "half")
        await file.write_at(0, b"half of it")

    assert "1 files are still open for writing" in caplog.text
    assert len(os.listdir("/proc/self/fd")) == before
    async with opened(tmp_path, provider) as repository:
        (pending,) = repository.spool.pending()
        assert (pending.key, pending.state, pending.size) == ("half", "left over", 10)
        assert keys_of(provider) == []


async def test_a_spool_is_private(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as repository:
        await make_directory(repository.tree, "d")
        for path in (tmp_path / "spool").rglob("*"):
            assert os.stat(path).st_mode & 0o077 == 0


@pytest.mark.parametrize("size", [2 * PART, 12 * PART])
async def test_what_was_stored_over_its_own_beginning_before_a_crash_is_stored(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cut_off(*_: object) -> None:
        await trio.sleep_forever()

    provider = memory()
    async with opened(tmp_path, provider, LAZY) as repository:
        await write(repository.tree, "a", bytes(size))
        await repository.spool.drained()
        entry = await entry_at(repository.tree, "a")
        file = await repository.tree.open_for_writing(entry, truncate=False)
        await file.write_at(10, b"changed")
        monkeypatch.setattr(repository.metadata, "stored", cut_off)
        await file.flush()
        await file.release()
        await until(lambda: provider.get("a", 10, 17) == b"changed")

    async with opened(tmp_path, provider, LAZY) as repository:
        with trio.fail_after(120):
            await repository.spool.drained()

        assert repository.content("a") == bytes(10) + b"changed" + bytes(size - 17)
        assert repository.spool.pending() == []


async def test_a_crash_amid_a_rename_leaves_one_of_the_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = memory()
    async with opened(tmp_path, provider, LAZY) as repository:
        provider.faults = [Fault(verb="put", error=lambda: Unreachable("away"))]
        await write(repository.tree, "file", b"old")
        await write(repository.tree, "file.tmp", b"new")
        journal, known = repository.spool.journal, list[set[str]]()
        append = journal.append

        def noted(record: Record) -> None:
            append(record)
            known.append({file.key for file in journal.state.files.values()})

        monkeypatch.setattr(journal, "append", noted)
        await rename(repository.tree, "file.tmp", "file")

        assert known
        assert all("file" in keys for keys in known)


async def test_a_file_synchronized_while_its_directory_is_renamed_is_whole_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = memory()
    async with opened(tmp_path, provider) as repository:
        tree = repository.tree
        await make_directory(tree, "old")
        await write(tree, "old/file", content("old", 20 * PART))
        file = await tree.open_for_writing(await entry_at(tree, "old/file"), truncate=False)
        await file.write_at(0, b"new")
        spooled = repository.spool.writing("old/file")
        assert spooled is not None
        synchronize = spooled.synchronize

        async def synchronize_late() -> None:
            await rename(tree, "old", "new")
            await synchronize()

        monkeypatch.setattr(spooled, "synchronize", synchronize_late)
        await file.synchronize()

    async with opened(tmp_path, provider) as repository:
        await repository.spool.drained()

        assert repository.stored_keys() == ["new/file"]
        assert repository.content("new/file") == b"new" + content("old", 20 * PART)[3:]
