"""Tests of `gateway/recovery.py`: whenever the gateway dies, what was acknowledged is whole."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
import trio
from support.writing import CONFIG, PART, Open, make_directory, memory, opened, place, rename

from backgate.gateway.providers.memory import Memory
from backgate.gateway.records import HIDDEN

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


async def test_a_spool_is_private(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as repository:
        await make_directory(repository.tree, "d")
        for path in (tmp_path / "spool").rglob("*"):
            assert os.stat(path).st_mode & 0o077 == 0
