"""A crashed XFS file system reads as its recovery would leave it."""

import random
import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from support.disks import BytesDevice, FileDevice
from support.file_systems import (
    loop_mounted,
    run,
    seen_before,
    seen_by_the_kernel,
    seen_by_us,
    unpacked,
)

from backgate.fs.volumes import changed, replay, xfs_log
from backgate.fs.volumes.devices import Overlay
from backgate.fs.volumes.xfs import XfsFileSystem
from backgate.fs.volumes.xfs_geometry import Geometry, geometry
from backgate.fs.volumes.xfs_log import Changes
from backgate.fs.volumes.xfs_log_items import (
    BEGUN,
    DONE,
    Transaction,
    is_cancelled,
    is_needed,
    transactions,
)
from backgate.fs.volumes.xfs_log_records import SECTOR, Log
from backgate.gateway.errors import Damaged

CRASHED = ["xfs-crashed", "xfs-crashed-small-blocks"]
HEADER = bytes.fromhex("feedbabe")
FIRST_ROUND = bytes.fromhex("00000001")  # follows it in a new log; clearing ahead makes others


def headers(device: FileDevice, begin: bytes = HEADER + FIRST_ROUND) -> list[int]:
    """The sectors of the disk with the headers of records; in a new log the oldest is first."""
    layout = geometry(device)
    start = layout.block_at(layout.log_start)
    data = device.read_at(start, layout.log_blocks * layout.block_size)
    found, at = [], data.find(begin)
    while at >= 0:
        found += [(start + at) // SECTOR] if at % SECTOR == 0 else []
        at = data.find(begin, at + 1)
    return found


def bent(device: FileDevice, sector: int, at: int = 100, mask: int = 1) -> Overlay:
    """The same disk with one byte of a sector changed."""
    data = bytearray(device.read_at(sector * SECTOR, SECTOR))
    data[at] ^= mask
    return Overlay(device, SECTOR, {sector: bytes(data)})


def test_a_log_that_began_again_has_its_oldest_record_behind_its_last(tmp_path: Path) -> None:
    device = FileDevice(unpacked("xfs-crashed-small-blocks", tmp_path))

    numbers = [record.lsn for record in Log(device, geometry(device)).records()]

    assert numbers == sorted(set(numbers))
    assert numbers[-1] >> 32 == (numbers[0] >> 32) + 1  # rounds


LARGEST = 512  # sectors of the largest record
RING = 64  # of those; a log of 16 MiB
LAYOUT = Geometry(
    is_v5=True,
    label="",
    uuid=b"u" * 16,
    meta_uuid=b"u" * 16,
    block_size=4096,
    blocks=RING * 64,
    ag_blocks=RING * 64,
    ag_count=1,
    ag_block_bits=12,
    inode_size=512,
    inode_bits=3,
    directory_block_size=4096,
    root=128,
    log_start=1,
    log_blocks=RING * 64,
    lsn=0,
    has_file_types=True,
    ignores_case=False,
    log_features=0,
    needs_repair=False,
)


def ring(rounds: Sequence[int], tails: Mapping[int, int]) -> BytesDevice:
    """A log of largest records, each of one of `rounds`; some say which record they still need."""
    data = bytearray(4096)
    for number, cycle in enumerate(rounds):
        lsn, tail = cycle << 32 | number * LARGEST, tails.get(number, 0) * LARGEST
        tail |= (cycle - (tail > lsn & 0xFFFF_FFFF)) << 32
        record = bytearray((cycle.to_bytes(4, "big") + bytes(SECTOR - 4)) * LARGEST)
        head = struct.pack(">IIIIQQIII", 0xFEEDBABE, cycle, 2, 504 * SECTOR, lsn, tail, 0, 0, 1)
        record[: len(head)] = head
        record[300:324] = struct.pack(">I16sI", 1, LAYOUT.uuid, LARGEST * SECTOR)
        data += record if cycle else bytes(len(record))
    return BytesDevice(data)


def test_eight_of_the_largest_records_may_be_torn() -> None:
    device = ring([1, 1] + [0] + 7 * [1] + 54 * [0], {})

    lsns = [record.lsn for record in Log(device, LAYOUT).records()]

    assert lsns == [1 << 32 | 0, 1 << 32 | LARGEST]


def test_a_record_of_an_earlier_round_is_a_lost_write() -> None:
    layout = replace(LAYOUT, lsn=2 << 32 | 35 * LARGEST)
    device = ring(3 * [2] + [1] + 36 * [2] + 24 * [1], {39: 1})
    records = Log(device, layout).records()

    with pytest.raises(Damaged, match="missing"):
        list(records)


def test_what_was_begun_behind_the_last_record_over_the_oldest_does_not_count() -> None:
    device = ring(10 * [2] + [1] + 2 * [2] + 51 * [1], {9: 11, 11: 13, 12: 13})

    lsns = [record.lsn for record in Log(device, LAYOUT).records()]

    before = [1 << 32 | number * LARGEST for number in range(13, RING)]
    assert lsns == before + [2 << 32 | number * LARGEST for number in range(10)]


@pytest.mark.slow
@pytest.mark.parametrize("name", CRASHED)
def test_each_field_of_each_name_is_as_the_kernel_has_it_after_recovery(
    name: str, tmp_path: Path
) -> None:
    system = XfsFileSystem(FileDevice(unpacked(name, tmp_path)))
    expected = seen_before(name, tmp_path)

    seen = seen_by_us(system)

    assert seen.keys() == expected.keys()
    assert {path: seen[path] for path in seen if seen[path] != expected[path]} == {}
    assert system.notes[replay.STATE] == replay.DIRTY
    assert system.notes[replay.JOURNAL].startswith("replayed: ")


@pytest.mark.mounted
@pytest.mark.slow
def test_a_file_system_that_had_just_been_enlarged_is_read_to_its_new_end(tmp_path: Path) -> None:
    image, copy = tmp_path / "image", tmp_path / "copy"
    run("truncate", "-s", "320M", image)
    run("mkfs.xfs", "-q", image)
    with loop_mounted(image, "rw") as root:
        (loop,) = (line.split()[0] for line in mounts() if line.split()[1] == str(root))
        run("truncate", "-s", "900M", image)
        run("losetup", "--set-capacity", loop)
        run("xfs_growfs", root)
        for number in range(40):
            (root / f"{number}").mkdir()
            (root / f"{number}/file").write_text("x" * number)
        run("xfs_io", "-x", "-c", "shutdown -f", root)
    run("cp", "--sparse=always", image, copy)
    with loop_mounted(copy, "rw"):
        pass
    with loop_mounted(copy) as root:
        expected = seen_by_the_kernel(root)
    system = XfsFileSystem(FileDevice(image))

    seen = seen_by_us(system)

    assert max(one.inode for one in expected.values()) > 320 << 20 >> 9  # inodes of 512 bytes
    assert seen == expected, system.notes


def mounts() -> list[str]:
    return Path("/proc/mounts").read_text().splitlines()


def test_the_last_record_does_not_count_when_it_was_torn(tmp_path: Path) -> None:
    device = FileDevice(unpacked("xfs-crashed", tmp_path))
    layout = geometry(device)
    last = headers(device)[-1]

    torn = Log(bent(device, last + 1), layout)

    assert len(list(torn.records())) == len(list(Log(device, layout).records())) - 1


def test_a_log_with_damage_in_the_middle_is_not_replayed(tmp_path: Path) -> None:
    device = FileDevice(unpacked("xfs-crashed", tmp_path))
    middle = headers(device)[-12]  # the last eight may be torn, as writes of a moment are

    system = XfsFileSystem(bent(device, middle + 1))

    assert system.notes[replay.JOURNAL].startswith(replay.NOT_REPLAYED)
    assert system.notes[replay.JOURNAL].endswith("a record is damaged")
    assert system.root().mode  # and yet it can be looked at


def test_a_log_of_another_machine_is_told_of(tmp_path: Path) -> None:
    device = FileDevice(unpacked("xfs-crashed", tmp_path))

    system = XfsFileSystem(bent(device, headers(device)[-1], at=303, mask=3))

    assert system.notes[replay.JOURNAL].startswith(replay.NOT_REPLAYED)
    assert "big-endian" in system.notes[replay.JOURNAL]


def test_a_log_with_features_that_are_not_known_is_not_replayed(tmp_path: Path) -> None:
    device = FileDevice(unpacked("xfs-crashed", tmp_path))
    layout = geometry(device)

    known, unknown = (
        xfs_log.replay_log(device, replace(layout, log_features=features)) for features in (1, 3)
    )

    assert known.replay.notes[replay.JOURNAL].startswith("replayed: ")
    assert unknown.replay.notes[replay.JOURNAL].startswith(replay.NOT_REPLAYED)
    assert "0x2" in unknown.replay.notes[replay.JOURNAL]
    assert layout.log_features == 0


def test_a_log_whose_changes_are_strewn_over_too_much_is_not_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xfs_log, "STRETCHES_MAX", 1)

    system = XfsFileSystem(FileDevice(unpacked("xfs-crashed", tmp_path)))

    assert system.notes[replay.JOURNAL].startswith(replay.NOT_REPLAYED)
    assert system.notes[replay.JOURNAL].endswith("more than 1 places")


def test_what_lies_far_apart_is_read_in_the_order_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xfs_log, "STRETCH", 4096)
    monkeypatch.setattr(xfs_log, "_NEAR", 1)
    monkeypatch.setattr(xfs_log, "STRETCHES_MAX", 60)  # in the order of the log they are 118

    system = XfsFileSystem(FileDevice(unpacked("xfs-crashed", tmp_path)))

    assert system.notes[replay.JOURNAL].startswith("replayed: ")


@pytest.mark.slow
def test_what_is_kept_compressed_reads_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changed, "OPEN_MAX", 1)
    name = CRASHED[0]

    seen = seen_by_us(XfsFileSystem(FileDevice(unpacked(name, tmp_path))))

    assert seen == seen_before(name, tmp_path)


def test_a_longer_log_may_take_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xfs_log, "SECONDS", -10)
    monkeypatch.setattr(xfs_log, "PACE", 1000)

    system = XfsFileSystem(FileDevice(unpacked("xfs-crashed", tmp_path)))

    assert system.notes[replay.JOURNAL].startswith("replayed: ")


@pytest.mark.parametrize("begun", BEGUN)
def test_a_change_that_had_only_begun_is_told_of(begun: int) -> None:
    changes = Changes(BytesDevice(b""), LAYOUT)
    done = DONE[BEGUN.index(begun)]

    def item(kind: int, identity: int) -> list[bytes]:
        return [struct.pack("<HHIQ", kind, 1, 0, identity)]

    changes.make(Transaction(1, items=[item(begun, 7), item(begun, 8)]))
    changes.make(Transaction(2, items=[item(done, 7)]))
    (words,) = [word for word in changes.words() if "begun" in word]
    changes.make(Transaction(3, items=[item(done, 8)]))

    assert words.startswith("but 1 change of extents or attributes")
    assert not [word for word in changes.words() if "begun" in word]


def test_a_log_that_takes_too_long_is_not_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xfs_log, "SECONDS", -1)

    system = XfsFileSystem(FileDevice(unpacked("xfs-crashed", tmp_path)))

    assert system.notes[replay.JOURNAL].startswith(replay.NOT_REPLAYED)
    assert system.notes[replay.JOURNAL].endswith("takes too long")


@pytest.mark.parametrize("name", CRASHED)
@pytest.mark.slow
def test_no_damage_does_more_than_to_be_noticed(name: str, tmp_path: Path) -> None:
    device = FileDevice(unpacked(name, tmp_path))
    chance = random.Random(name)
    starts = headers(device, HEADER)
    used = range(starts[0], starts[-1] + 8)

    for _ in range(20):
        changed = {}
        for sector in chance.choices([chance.choice(starts), chance.choice(used)], k=3):
            data = bytearray(device.read_at(sector * SECTOR, SECTOR))
            data[chance.randrange(SECTOR)] = chance.randrange(256)
            changed[sector] = bytes(data)
        try:
            system = XfsFileSystem(Overlay(device, SECTOR, changed))
            system.children(system.root().handle)
        except Damaged:
            pass


@pytest.mark.slow
def test_no_item_of_the_log_is_trusted(tmp_path: Path) -> None:
    device = FileDevice(unpacked("xfs-crashed", tmp_path))
    layout = geometry(device)
    records = list(Log(device, layout).records())
    chance = random.Random(1)

    for _ in range(40):
        bad = list(records)
        number = chance.randrange(len(bad))
        data = bytearray(bad[number].data)
        for _ in range(chance.randrange(1, 5)):
            data[chance.randrange(len(data))] = chance.choice((0, 1, 0x7F, 0xFF))
        bad[number] = bad[number]._replace(data=bytes(data))
        try:
            changes = Changes(device, layout)
            for transaction in transactions(bad, is_cancelled):
                changes.cancel(transaction)
            needed = list(transactions(bad, is_needed))
            changes.fetch(needed)
            for transaction in needed:
                changes.make(transaction)
        except Damaged:
            pass
