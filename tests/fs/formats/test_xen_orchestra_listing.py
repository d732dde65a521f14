"""How the backups of Xen Orchestra are found, named and listed; and what its key is for."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from contracts.format_contract import found, surroundings
from support.extract import content
from support.objects import FolderObjects
from support.xen_orchestra import BLOCK, KEY, T1, T2, T3, Writer, disk, unpack_sample

from backgate.fs.format import Backup
from backgate.fs.formats.xen_orchestra.format import XenOrchestraFormat
from backgate.fs.formats.xen_orchestra.vms import disk_names
from backgate.gateway.errors import Denied, NotFound, Replaced, StoreError
from backgate.gateway.provider import ObjectInfo

SMALL = disk(BLOCK, "s")
OTHER_VM = "aaaaaaaa-0000-4000-8000-000000000001"
DISK = b"disks/xvda-root/disk.raw"


async def listed(store: Path, cache: Path, key: bytes | None = KEY) -> list[Backup]:
    """Return all that is found."""
    async with surroundings(store, cache, key) as lent:
        return await found(XenOrchestraFormat(lent))


async def test_a_backup_lies_under_its_vm_s_name_and_its_time(tmp_path: Path) -> None:
    Writer(tmp_path / "store" / "dc1" / "xo").back_up(T1, {"root": SMALL})

    (backup,) = await listed(tmp_path / "store", tmp_path / "cache")

    assert backup.path == ("dc1", "xo", "web", "2026-08-01T01-00-00Z")
    assert backup.time_ns == 1_785_546_000_000_000_000
    assert backup.has_latest
    assert backup.notes["disk xvda-root"] == "2.0 MiB"


async def test_two_vms_of_one_name_are_told_apart_by_their_uuids(tmp_path: Path) -> None:
    one = Writer(tmp_path / "store", name="a/b")
    two = Writer(tmp_path / "store", name="a:b", vm=OTHER_VM)
    for writer in (one, two):
        writer.back_up(T1, {"root": SMALL})

    backups = await listed(tmp_path / "store", tmp_path / "cache")

    assert {backup.path[0] for backup in backups} == {f"a_b {one.vm}", f"a_b {OTHER_VM}"}


@pytest.mark.parametrize(
    "name", ["a/b", "..", ".", "", "x" * 300, "\u00fc" * 200, "a\nb\x7f", "con:1", "latest", "   "]
)
async def test_whatever_two_vms_are_called_each_has_a_directory_of_its_own(
    name: str, tmp_path: Path
) -> None:
    one = Writer(tmp_path / "store", name=name)
    two = Writer(tmp_path / "store", name=name, vm=OTHER_VM)
    three = Writer(tmp_path / "store", name=f"{name} {OTHER_VM}", vm=OTHER_VM[:-1] + "3")
    for writer in (one, two, three):
        writer.back_up(T1, {"root": SMALL})

    backups = await listed(tmp_path / "store", tmp_path / "cache")

    directories = {backup.path[0] for backup in backups}
    assert len(directories) == 3
    for shown in directories:
        assert len(shown.encode()) <= 255
        assert shown not in ("", ".", "..")
        assert not set(shown) & {"/", "\0", "\n", "\x7f"}


async def test_a_vm_is_called_what_it_was_called_last(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "store", name="old")
    writer.back_up(T1, {"root": SMALL})
    writer.name = "new"
    writer.back_up(T2, {"root": SMALL})

    assert {one.path[0] for one in await listed(tmp_path / "store", tmp_path / "cache")} == {"new"}


async def test_an_unreadable_backup_is_listed_beside_the_others_with_the_reason(
    tmp_path: Path,
) -> None:
    writer = Writer(tmp_path / "store")
    for time in (T1, T2):
        writer.back_up(time, {"root": SMALL})
    (tmp_path / "store" / writer.top / f"{T2}.json").write_bytes(b"{")

    one, two = await listed(tmp_path / "store", tmp_path / "cache")

    assert one.is_complete
    assert two.path == ("web", "2026-08-02T01-00-00Z")
    assert "not the JSON" in two.reason


async def test_a_backup_whose_disk_is_gone_is_not_complete(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "store")
    writer.back_up(T1, {"root": SMALL})
    (tmp_path / "store" / writer.top / writer.images["root", T1].path).unlink()

    (backup,) = await listed(tmp_path / "store", tmp_path / "cache")

    assert "'xvda-root' is missing" in backup.reason


async def test_an_archive_without_metadata_is_unfinished(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "store")
    writer.put(f"{writer.top}/{T1}.xva", b"x")

    (backup,) = await listed(tmp_path / "store", tmp_path / "cache")

    assert not backup.is_complete
    assert f"{T1}.json is missing" in backup.reason


async def test_disks_that_wait_to_be_merged_are_no_backup(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "store")
    for time in (T1, T2):
        writer.back_up(time, {"root": SMALL})
    (tmp_path / "store" / writer.top / f"{T1}.json").unlink()

    one, two = await listed(tmp_path / "store", tmp_path / "cache")

    assert "until they are merged" in one.reason
    assert two.is_complete


async def test_locks_queues_caches_and_temporary_files_are_no_landmarks(tmp_path: Path) -> None:
    async with surroundings(tmp_path / "store", tmp_path / "cache") as lent:
        format_ = XenOrchestraFormat(lent)
        vm = "xo-vm-backups/f0c1"
        for key in (
            f"xo-vm-backups/.queue/clean-vm/{T1}-abc",
            f"{vm}/cache.json.gz",
            f"{vm}.lock/{T1}.json/x",
            f"{vm}/vdis/job/vdi/.1785720000000.{T1}.vhd",
            f"{vm}/vdis/job/vdi/data/{T1}.vhd/blocks/0/1",
            f"{vm}/{T1}.xva.checksum",
            f"{vm}/notes.json",
            "encryption.json",
            "immutability.json",
        ):
            assert not format_.is_landmark(key), key
        assert format_.is_landmark(f"a/b/{vm}/{T1}.json")


async def test_disks_of_one_name_and_without_a_device_are_told_apart(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "store")
    writer.back_up(T1, {"root": SMALL, "data": SMALL})
    path = tmp_path / "store" / writer.top / f"{T1}.json"
    document = json.loads(path.read_bytes())
    document["vbds"] = {}
    for vdi in document["vdis"].values():
        vdi["name_label"] = "same/name"
    path.write_text(json.dumps(document))

    (backup,) = await listed(tmp_path / "store", tmp_path / "cache")

    assert [name for name in backup.notes if name.startswith("disk ")] == [
        "disk same_name",
        "disk 1-same_name",
    ]


async def test_disks_that_a_release_stored_wrongly_are_warned_of(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "store")
    writer.back_up(T1, {"root": SMALL})
    path = tmp_path / "store" / writer.top / f"{T1}.json"
    document = json.loads(path.read_bytes())
    document["vdis"]["OpaqueRef:root"]["sm_config"] = {"image-format": "qcow2"}
    path.write_text(json.dumps(document))

    (before,) = await listed(tmp_path / "store", tmp_path / "cache")
    path.write_text(json.dumps(document | {"includeNonNbdQcow2Fix": True}))
    (after,) = await listed(tmp_path / "store", tmp_path / "cache")

    assert "zeros" in before.notes["warning"]
    assert "warning" not in after.notes


@pytest.mark.parametrize("key", [None, b"short", b"X" * 32])
async def test_a_repository_that_the_key_does_not_open_says_what_to_do(
    key: bytes | None, tmp_path: Path
) -> None:
    writer = Writer(tmp_path / "store", algorithm="chacha20-poly1305")
    writer.back_up(T1, {"root": SMALL})

    (backup,) = await listed(tmp_path / "store", tmp_path / "cache", key)

    assert not backup.is_complete
    assert "key" in backup.reason
    assert b"secrets = { xen-orchestra" in backup.files["KEY-NEEDED.txt"]


async def test_damage_is_not_taken_for_a_wrong_key(tmp_path: Path) -> None:
    store = tmp_path / "store"
    writer = Writer(store, algorithm="aes-256-gcm")
    for time in (T1, T2, T3):
        writer.back_up(time, {"root": SMALL})
    for damaged in ("metadata.json", f"{writer.top}/{T3}.json"):
        data = bytearray((store / damaged).read_bytes())
        data[20] ^= 1
        (store / damaged).write_bytes(data)

    one, two, three = await listed(store, tmp_path / "cache")

    assert one.is_complete
    assert two.is_complete
    assert "not authentic" in three.reason


@pytest.mark.parametrize("algorithm", ["chacha20-poly1305", "aes-256-gcm"])
async def test_an_encrypted_repository_that_does_not_say_so_is_opened(
    algorithm: str, tmp_path: Path
) -> None:
    writer = Writer(tmp_path / "store", algorithm=algorithm)
    writer.back_up(T1, {"root": SMALL})
    (tmp_path / "store" / "encryption.json").unlink()

    (backup,) = await listed(tmp_path / "store", tmp_path / "cache")

    assert backup.is_complete


@pytest.mark.parametrize("content", [b"", b"{", b'{"mode":'])
async def test_metadata_that_was_cut_off_does_not_make_an_encrypted_repository_an_open_one(
    content: bytes, tmp_path: Path
) -> None:
    writer = Writer(tmp_path / "store", algorithm="chacha20-poly1305")
    for time in (T1, T2):
        writer.back_up(time, {"root": SMALL})
    for name in ("encryption.json", "metadata.json"):
        (tmp_path / "store" / name).unlink()
    (tmp_path / "store" / writer.top / f"{T2}.json").write_bytes(content)

    one, two = await listed(tmp_path / "store", tmp_path / "cache")

    assert one.is_complete
    assert two.reason


async def test_a_repository_of_which_nothing_tells_is_looked_at_again(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "store", algorithm="chacha20-poly1305")
    for time in (T1, T2):
        writer.back_up(time, {"root": SMALL})
    for name in ("encryption.json", "metadata.json"):
        (tmp_path / "store" / name).unlink()
    sealed = {time: (tmp_path / "store" / writer.top / f"{time}.json") for time in (T1, T2)}
    late = sealed[T2].read_bytes()
    sealed[T1].write_bytes(b"")
    sealed[T2].unlink()
    async with surroundings(tmp_path / "store", tmp_path / "cache", KEY) as lent:
        format_ = XenOrchestraFormat(lent)
        before = await found(format_)
        sealed[T2].write_bytes(late)
        after = await found(format_)

    assert not any(one.is_complete for one in before)
    assert [one.is_complete for one in after] == [False, True]


async def test_encrypted_and_open_repositories_lie_side_by_side(tmp_path: Path) -> None:
    Writer(tmp_path / "store" / "open").back_up(T1, {"root": SMALL})
    sealed = Writer(tmp_path / "store" / "sealed", algorithm="chacha20-poly1305")
    sealed.back_up(T1, {"root": SMALL})

    backups = await listed(tmp_path / "store", tmp_path / "cache")

    assert [backup.is_complete for backup in backups] == [True, True]


class Unlisted(FolderObjects):
    """Objects of a store that does not list."""

    async def below(self, prefix: str, after: str = "") -> list[object]:  # type: ignore[override]
        raise StoreError("LIST is forbidden")


@pytest.mark.parametrize("directories", [True, False])
async def test_a_known_backup_is_read_without_listing_anything(
    directories: bool, tmp_path: Path
) -> None:
    writer = Writer(tmp_path / "store", directories=directories)
    for time in (T1, T2):
        writer.back_up(time, {"root": SMALL})
    objects = FolderObjects(tmp_path / "store")
    landmarks = await objects.all()

    async with surroundings(tmp_path / "store", tmp_path / "cache") as lent:
        format_ = XenOrchestraFormat(replace(lent, objects=Unlisted(tmp_path / "store")))
        known = [info for info in landmarks if format_.is_landmark(info.key)]
        for backup in await format_.backups(known):
            async with format_.open(backup) as tree:
                assert await content(tree, DISK) == SMALL


async def test_a_backup_that_is_another_by_now_is_not_opened(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "store")
    writer.back_up(T1, {"root": SMALL})
    async with surroundings(tmp_path / "store", tmp_path / "cache") as lent:
        format_ = XenOrchestraFormat(lent)
        (backup,) = await found(format_)
        writer.write_metadata(T1, ["root"], size=5)

        with pytest.raises(Replaced):
            async with format_.open(backup):
                pass


async def test_metadata_that_are_others_by_now_are_not_opened(tmp_path: Path) -> None:
    store = unpack_sample("meta", tmp_path / "store")
    async with surroundings(tmp_path / "store", tmp_path / "cache") as lent:
        format_ = XenOrchestraFormat(lent)
        backup, *_ = await found(format_)
        data = next((tmp_path / "store" / backup.key).parent.glob("data*"))
        assert data.is_relative_to(store)
        data.write_bytes(b"something else")

        with pytest.raises(Replaced):
            async with format_.open(backup):
                pass


async def test_a_plain_image_in_an_encrypted_repository_is_an_error(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "store", algorithm="aes-256-gcm", directories=False)
    writer.back_up(T1, {"root": SMALL})
    async with surroundings(tmp_path / "store", tmp_path / "cache", KEY) as lent:
        format_ = XenOrchestraFormat(lent)
        (backup,) = await found(format_)
        async with format_.open(backup) as tree:
            assert b"encrypted" in await content(tree, b"disks/xvda-root/README.txt")


class Denying(FolderObjects):
    """Objects of a store that lets nobody list, and therefore denies what is not there."""

    async def info(self, key: str) -> ObjectInfo:
        try:
            return await super().info(key)
        except NotFound as error:
            raise Denied(f"403: {key}", key=key) from error

    async def renewed(self, key: str) -> ObjectInfo:
        return await self.info(key)


async def test_a_store_that_denies_what_is_not_there_is_read_all_the_same(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "store", filter=None)
    for time in (T1, T2):
        writer.back_up(time, {"root": SMALL})

    async with surroundings(tmp_path / "store", tmp_path / "cache") as lent:
        objects = Denying(tmp_path / "store")
        format_ = XenOrchestraFormat(replace(lent, objects=objects))
        known = [info for info in await objects.all() if format_.is_landmark(info.key)]
        for backup in await format_.backups(known):
            async with format_.open(backup) as tree:
                assert await content(tree, DISK) == SMALL


class Refusing(FolderObjects):
    """Objects of a store that answers no question any more."""

    refuses = False

    async def info(self, key: str) -> ObjectInfo:
        if self.refuses:
            raise Denied(f"403: {key}", key=key)
        return await super().info(key)

    async def renewed(self, key: str) -> ObjectInfo:
        return await self.info(key)


async def test_a_store_that_denies_everything_has_not_lost_its_backups(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "store", filter=None)
    for time in (T1, T2):
        writer.back_up(time, {"root": SMALL})
    objects = Refusing(tmp_path / "store")
    async with surroundings(tmp_path / "store", tmp_path / "cache") as lent:
        format_ = XenOrchestraFormat(replace(lent, objects=objects))
        known = [info for info in await objects.all() if format_.is_landmark(info.key)]
        assert len(await format_.backups(known)) == 2
        objects.refuses = True

        with pytest.raises(Denied):
            await format_.backups([info for info in known if T2 not in info.key])


async def test_what_did_not_change_is_not_asked_for_again(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "store")
    writer.back_up(T1, {"root": SMALL})
    async with surroundings(tmp_path / "store", tmp_path / "cache") as lent:
        objects = FolderObjects(tmp_path / "store")
        format_ = XenOrchestraFormat(replace(lent, objects=objects))
        known = [info for info in await objects.all() if format_.is_landmark(info.key)]
        first = await format_.backups(known)
        reads = len(objects.reads)

        assert await format_.backups(list(known)) == first
        assert len(objects.reads) == reads


async def test_an_encrypted_repository_in_which_nothing_was_finished_is_listed_without_a_key(
    tmp_path: Path,
) -> None:
    writer = Writer(tmp_path / "store", algorithm="chacha20-poly1305")
    writer.back_up(T1, {"root": SMALL})
    (tmp_path / "store" / writer.top / f"{T1}.json").unlink()

    (backup,) = await listed(tmp_path / "store", tmp_path / "cache", None)

    assert not backup.is_complete


def test_no_two_disks_of_a_vm_get_one_name_whatever_they_are_called() -> None:
    names = disk_names([("", "2-a"), ("", "a"), ("", "a"), ("", "a"), ("xvda", "a" * 300)] * 2)

    assert len(set(names)) == len(names)
