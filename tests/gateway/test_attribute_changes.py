"""Attributes are kept where the kind of a repository says, whatever happens at the same time."""

import contextlib
import errno
from dataclasses import replace
from pathlib import Path
from typing import Literal

import msgspec
import pytest
import trio
from support.writing import (
    CONFIG,
    PART,
    SMALL,
    create,
    entry_at,
    make_directory,
    memory,
    names,
    opened,
    read,
    until,
    write,
)
from support.writing import rename as renamed

from backgate.fs.tree import Changes
from backgate.gateway.attributes import Attributes
from backgate.gateway.config import RepositoryConfig
from backgate.gateway.errors import FileError, Replaced, Unreachable
from backgate.gateway.namespace import Name, Namespace
from backgate.gateway.provider import NO_METADATA, ObjectInfo, Provider
from backgate.gateway.providers.memory import Fault

MIRROR = msgspec.structs.replace(CONFIG, kind="mirror")


def kept(provider: Provider, key: str, name: str) -> str | None:
    """Return what the store keeps with an object."""
    return (provider.head(key).metadata or NO_METADATA).get(name)


async def test_a_large_object_has_the_attributes_that_were_set_last(tmp_path: Path) -> None:
    provider = memory(limits=replace(SMALL, copy_max=8 * PART))
    async with opened(tmp_path, provider, MIRROR) as repository:
        file = await create(repository, "file")
        await file.write_at(0, bytes(20 * PART))
        await trio.testing.wait_all_tasks_blocked()
        await file.change(Changes(mtime_ns=77, xattrs={b"user.a": b"1"}))
        await file.flush()
        await file.release()

        assert kept(provider, "file", "mtime") == "0.000000077"
        assert kept(provider, "file", "xattr")
        assert repository.content("file") == bytes(20 * PART)


async def test_attributes_that_change_while_the_file_is_stored_are_kept(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider, MIRROR) as repository:
        file = await create(repository, "file")
        await file.write_at(0, b"content")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.flush)
            nursery.start_soon(file.change, Changes(mtime_ns=77))
        await file.release()

        assert kept(provider, "file", "mtime") == "0.000000077"


async def test_a_file_that_is_renamed_meanwhile_keeps_its_attributes(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider, MIRROR) as repository:
        tree = repository.tree
        await write(tree, "old", b"content")
        file = await tree.open_for_writing(await entry_at(tree, "old"), truncate=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(renamed, tree, "old", "new")
            nursery.start_soon(file.change, Changes(mtime_ns=77))
        await file.release()

        assert kept(provider, "new", "mtime") == "0.000000077"
        assert repository.stored_keys() == ["new"]


async def test_what_the_store_refuses_changes_nothing(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider, MIRROR) as repository:
        tree = repository.tree
        await write(tree, "file", b"content")
        await make_directory(tree, "directory")
        for name in ("file", "directory"):
            with pytest.raises(FileError) as refused:
                await tree.change(
                    await entry_at(tree, name), Changes(xattrs={b"user.a": bytes(3000)})
                )
            assert refused.value.errno == errno.E2BIG
            assert not (await entry_at(tree, name)).has_xattrs


async def test_a_fault_leaves_the_attributes_as_they_were(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider, MIRROR) as repository:
        tree = repository.tree
        await write(tree, "file", b"content")
        before = (await entry_at(tree, "file")).mtime_ns
        provider.faults.append(Fault(verb="copy", error=lambda: OSError(errno.EIO, "a fault")))

        with pytest.raises(OSError):
            await tree.change(await entry_at(tree, "file"), Changes(mtime_ns=77))
        assert (await entry_at(tree, "file")).mtime_ns == before
        provider.faults.clear()
        assert repository.content("file") == b"content"


async def test_a_directory_changes_while_a_file_below_is_being_stored(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider, MIRROR) as repository:
        tree = repository.tree
        await make_directory(tree, "directory")
        async with repository.spool.claims.claim("directory/file"):
            with trio.fail_after(120):
                await tree.change(await entry_at(tree, "directory"), Changes(mtime_ns=77))

        assert kept(provider, "directory/", "mtime") == "0.000000077"


@pytest.mark.parametrize("durability", ["store", "journal"])
async def test_what_is_set_before_a_crash_is_stored_after_it(
    tmp_path: Path, durability: Literal["store", "journal"]
) -> None:
    provider = memory()
    config = msgspec.structs.replace(MIRROR, durability=durability)
    provider.faults.append(Fault(verb="put", key="file", error=lambda: Unreachable("no answer")))
    async with opened(tmp_path, provider, config) as repository:
        file = await create(repository, "file")
        await file.write_at(0, b"content")
        await file.synchronize()
        with contextlib.suppress(Unreachable):
            await file.flush()
        await file.change(Changes(mtime_ns=77, xattrs={b"user.a": b"1"}))
        await file.release()

    provider.faults.clear()
    async with opened(tmp_path, provider, config) as repository:
        await repository.spool.drained()

        assert repository.content("file") == b"content"
        assert kept(provider, "file", "mtime") == "0.000000077"
        assert kept(provider, "file", "xattr")


async def test_a_file_is_read_while_its_object_is_copied_onto_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = memory(limits=replace(SMALL, copy_max=8 * PART))
    async with opened(tmp_path, provider, MIRROR) as repository, trio.open_nursery() as nursery:
        tree, found = repository.tree, list[bytes]()
        await write(tree, "file", b"content" * 3 * PART)
        stored = repository.metadata.stored

        async def read() -> None:
            found.append(bytes(await source.read_at(0, 7)))

        async def stored_late(info: ObjectInfo, attributes: Attributes | None) -> None:
            nursery.start_soon(read)  # the object is another one already
            await trio.testing.wait_all_tasks_blocked()
            await stored(info, attributes)

        async with tree.open(await entry_at(tree, "file")) as source:
            provider.requests.clear()
            monkeypatch.setattr(repository.metadata, "stored", stored_late)
            await tree.change(await entry_at(tree, "file"), Changes(mtime_ns=77))
            await until(lambda: found != [])

        assert found == [b"content"]
        assert [verb for verb, _ in provider.requests].count("get") == 2


@pytest.mark.parametrize("config", [CONFIG, MIRROR])
async def test_a_directory_that_is_renamed_meanwhile_does_not_come_back(
    tmp_path: Path, config: RepositoryConfig
) -> None:
    provider = memory()
    async with opened(tmp_path, provider, config) as repository:
        tree = repository.tree
        await make_directory(tree, "directory")
        entry = await entry_at(tree, "directory")

        async def change() -> None:
            with pytest.raises(FileError) as refused:
                await tree.change(entry, Changes(mtime_ns=77))
            assert refused.value.errno == errno.ENOENT

        async with trio.open_nursery() as nursery, repository.spool.claims.claim("directory"):
            nursery.start_soon(change)
            await trio.testing.wait_all_tasks_blocked()
            await repository.spool.renames.rename("directory/", "new/", lambda *_: None)

        assert await names(tree) == ["new"]
        assert [info.key for info in provider.page().objects] == ["new/"]


@pytest.mark.parametrize("config", [CONFIG, MIRROR])
async def test_a_file_that_is_opened_meanwhile_is_stored_with_its_new_mode(
    tmp_path: Path, config: RepositoryConfig
) -> None:
    provider = memory()
    async with opened(tmp_path, provider, config) as repository:
        tree, spool = repository.tree, repository.spool
        await write(tree, "file", b"content")
        entry = await entry_at(tree, "file")
        known = await repository.metadata.look_up("file")
        assert known.attributes is not None
        async with trio.open_nursery() as nursery, spool.claims.claim("file"):
            nursery.start_soon(tree.change, entry, Changes(mode=0o600))
            await trio.testing.wait_all_tasks_blocked()
            file = spool.open(known.info, known.attributes)
        await spool.write(file, 0, b"changed")
        await spool.flush(file)
        await spool.release(file)

        assert kept(provider, "file", "mode") == str(0o100600)


async def test_what_others_keep_with_a_large_object_goes_along_when_it_is_renamed(
    tmp_path: Path,
) -> None:
    provider = memory(limits=replace(SMALL, copy_max=8 * PART))
    told = {"mtime": "7.000000000", "md5chksum": "of another tool"}
    provider.put("old", bytes(20 * PART), told)
    async with opened(tmp_path, provider, MIRROR) as repository:
        tree = repository.tree
        await entry_at(tree, "old")
        await renamed(tree, "old", "new")

        assert kept(provider, "new", "md5chksum") == "of another tool"
        assert kept(provider, "new", "mtime") == "7.000000000"


async def test_a_file_open_for_writing_is_read_while_its_object_is_copied_onto_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = memory(limits=replace(SMALL, copy_max=8 * PART))
    async with opened(tmp_path, provider, MIRROR) as repository, trio.open_nursery() as nursery:
        tree, found = repository.tree, list[bytes]()
        await write(tree, "file", b"content" * 3 * PART)
        stored = repository.metadata.stored
        file = await tree.open_for_writing(await entry_at(tree, "file"), truncate=False)

        async def read() -> None:
            found.append(bytes(await file.read_at(0, 7)))

        async def stored_late(info: ObjectInfo, attributes: Attributes | None) -> None:
            nursery.start_soon(read)  # the object is another one already
            await trio.testing.wait_all_tasks_blocked()
            await stored(info, attributes)

        monkeypatch.setattr(repository.metadata, "stored", stored_late)
        await file.change(Changes(mtime_ns=77))
        await until(lambda: found != [])
        await file.release()

        assert found == [b"content"]


@pytest.mark.parametrize("config", [CONFIG, MIRROR])
async def test_a_mode_set_while_the_directory_is_renamed_goes_along(
    tmp_path: Path, config: RepositoryConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, memory(), config) as repository, trio.open_nursery() as nursery:
        tree, copies = repository.tree, repository.spool.renames.copies
        await make_directory(tree, "old")
        await write(tree, "old/file", b"content")
        file = await tree.open_for_writing(await entry_at(tree, "old/file"), truncate=False)
        copy = copies.copy

        async def copy_late(
            info: ObjectInfo, attributes: Attributes | None, key: str
        ) -> ObjectInfo:
            nursery.start_soon(file.change, Changes(mode=0o600))
            await trio.testing.wait_all_tasks_blocked()
            return await copy(info, attributes, key)

        monkeypatch.setattr(copies, "copy", copy_late)
        await renamed(tree, "old", "new")
        await trio.testing.wait_all_tasks_blocked()
        await file.release()

        assert (await entry_at(tree, "new/file")).mode == 0o100600


async def test_a_mode_set_while_the_index_is_told_of_the_file_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, memory()) as repository:
        tree, stored = repository.tree, repository.metadata.stored
        file = await create(repository, "file")
        await file.write_at(0, b"content")

        async def stored_late(info: ObjectInfo, attributes: Attributes | None) -> None:
            await stored(info, attributes)
            monkeypatch.undo()
            await file.change(Changes(mode=0o640))

        monkeypatch.setattr(repository.metadata, "stored", stored_late)
        await file.flush()
        await file.release()

        assert (await entry_at(tree, "file")).mode == 0o100640


async def test_a_mode_is_not_given_to_a_file_that_took_the_name_meanwhile(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider, MIRROR) as repository:
        tree, spool, metadata = repository.tree, repository.spool, repository.metadata
        await write(tree, "file", b"content")
        await write(tree, "other", b"of another")
        entry = await entry_at(tree, "file")
        file = await tree.open_for_writing(entry, truncate=False)
        async with trio.open_nursery() as nursery, spool.claims.claim("file", "other"):
            nursery.start_soon(tree.change, entry, Changes(mode=0o600))
            await trio.testing.wait_all_tasks_blocked()
            await file.release()
            before = Name("file", spool.writing("file"), await metadata.look_up("file"))
            other = Name("other", None, await metadata.look_up("other"))
            await Namespace(spool).rename(other, before, no_replace=False)

        assert repository.content("file") == b"of another"
        assert kept(provider, "file", "mode") == str(0o100644)


async def test_attributes_that_are_accepted_are_stored(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider, MIRROR) as repository:
        tree, size = repository.tree, 2000
        await write(tree, "file", bytes(20 * PART))
        while True:
            try:
                await tree.change(
                    await entry_at(tree, "file"), Changes(xattrs={b"user.a": bytes(size)})
                )
                break
            except FileError:
                size -= 3  # bytes of which base64 makes four

        file = await tree.open_for_writing(await entry_at(tree, "file"), truncate=False)
        await file.write_at(0, b"changed")
        await file.flush()
        await file.release()

        assert repository.content("file")[:7] == b"changed"
        assert (await entry_at(tree, "file")).has_xattrs


async def test_a_large_file_whose_change_had_no_answer_is_read_once_it_is_opened_anew(
    tmp_path: Path,
) -> None:
    provider = memory(limits=replace(SMALL, copy_max=8 * PART))
    async with opened(tmp_path, provider, MIRROR) as repository:
        tree = repository.tree
        await write(tree, "file", b"content" * 3 * PART)
        provider.faults = [Fault(verb="commit_upload", is_lost=True)]
        with pytest.raises(Unreachable):
            await tree.change(await entry_at(tree, "file"), Changes(mtime_ns=77))
        provider.faults = []

        with pytest.raises(Replaced):
            await read(tree, "file")

        assert await read(tree, "file") == b"content" * 3 * PART
        assert (await entry_at(tree, "file")).mtime_ns == 77
