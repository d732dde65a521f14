"""A crashed ext3 or ext4 file system reads as its recovery would leave it."""

import random
import re
import shutil
from pathlib import Path

import pytest
from support.disks import BytesDevice
from support.file_systems import run, unpacked

from backgate.fs.volume import ENCODED
from backgate.fs.volumes import jbd2, replay
from backgate.fs.volumes.jbd2 import replay_journal
from backgate.fs.volumes.jbd2_place import SUPER_AT, SUPER_SIZE, journal_place, superblock
from backgate.gateway.errors import Damaged

CRASHED = [
    "ext3-crashed",
    "ext4-crashed",
    "ext4-crashed-checksums-of-transactions",
    "ext4-crashed-data-journal",
]
BLOCK = 1024  # bytes, the smallest there is
JOURNAL_MARK = b"\xc0\x3b\x39\x98"
DESCRIPTOR_BLOCK, COMMIT_BLOCK = JOURNAL_MARK + b"\0\0\0\1", JOURNAL_MARK + b"\0\0\0\2"
REVOKE_BLOCK = JOURNAL_MARK + b"\0\0\0\5"


def image(name: str, directory: Path) -> bytearray:
    return bytearray(unpacked(name, directory).read_bytes())


def journal(data: bytearray) -> range:
    """Where the journal lies in an image; in these it is one run."""
    device = BytesDevice(data)
    start = superblock(device)
    assert start is not None
    place = journal_place(device, start)
    first = place.block(0) * place.block_size
    return range(first, first + place.count * place.block_size)


@pytest.mark.parametrize("name", CRASHED)
@pytest.mark.slow
def test_each_byte_is_what_another_recovery_leaves(name: str, tmp_path: Path) -> None:
    ours = replay_journal(BytesDevice(image(name, tmp_path)))
    recovered = Path(shutil.copy(tmp_path / f"{name}.raw", tmp_path / "recovered"))
    run("e2fsck", "-E", "journal_only", "-y", recovered)

    theirs = recovered.read_bytes()
    read = ours.device.read_at(0, ours.device.size)
    blocks = range(0, len(read), BLOCK)
    differing = {at for at in blocks if read[at : at + BLOCK] != theirs[at : at + BLOCK]}
    in_journal = journal(bytearray(theirs)).start
    assert len(read) == len(theirs)
    assert differing <= {SUPER_AT, in_journal}  # where recovery notes that it is done
    assert ours.notes[replay.STATE] == replay.DIRTY
    assert ours.notes[replay.JOURNAL].startswith("replayed: ")


@pytest.mark.parametrize("before", range(1, 6))
def test_transactions_are_numbered_from_0_again_after_the_last(before: int, tmp_path: Path) -> None:
    data = image("ext4-crashed-checksums-of-transactions", tmp_path)
    places = journal(data)
    data[places.start + 36 : places.start + 40] = bytes(4)  # no checksums, which are of numbers too
    expected, renumbered = replay_journal(BytesDevice(data)), bytearray(data)
    oldest = int.from_bytes(data[places.start + 24 : places.start + 28], "big")
    for at in range(places.start, places.stop, BLOCK):
        if data.startswith(JOURNAL_MARK, at):
            number = at + (24 if at == places.start else 8)
            later = int.from_bytes(data[number : number + 4], "big") - oldest - before
            renumbered[number : number + 4] = (later % 2**32).to_bytes(4, "big")

    replayed = replay_journal(BytesDevice(renumbered))

    assert "revoked" in expected.notes[replay.JOURNAL]
    assert replayed.notes == expected.notes
    for start, stop in ((0, places.start), (places.stop, len(data))):
        length = stop - start
        assert replayed.device.read_at(start, length) == expected.device.read_at(start, length)


def test_what_comes_out_of_the_journal_has_no_place_on_the_disk(tmp_path: Path) -> None:
    device = replay_journal(BytesDevice(image("ext4-crashed", tmp_path))).device

    extents = list(device.extents(0, device.size))

    assert sum(extent.length for extent in extents) == device.size
    assert {extent.disk for extent in extents} == {0, ENCODED}


def test_a_file_system_that_was_unmounted_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "clean"
    run("truncate", "-s", "8M", path)
    run("mkfs.ext4", "-q", path)
    device = BytesDevice(path.read_bytes())

    replayed = replay_journal(device)

    assert replayed.device is device
    assert replayed.notes == {replay.STATE: replay.CLEAN}


def test_a_journal_on_another_device_is_told_of(tmp_path: Path) -> None:
    data = image("ext4-crashed", tmp_path)
    data[SUPER_AT + 0xE0 : SUPER_AT + 0xE4] = bytes(4)  # the number of its inode
    device = BytesDevice(data)

    replayed = replay_journal(device)

    assert replayed.device is device
    assert replayed.notes[replay.JOURNAL].startswith(replay.NOT_REPLAYED)
    assert "another device" in replayed.notes[replay.JOURNAL]


@pytest.mark.parametrize("mark", [DESCRIPTOR_BLOCK, COMMIT_BLOCK])
def test_the_replay_ends_before_a_transaction_that_is_damaged(mark: bytes, tmp_path: Path) -> None:
    data = image("ext4-crashed", tmp_path)
    whole = replay_journal(BytesDevice(data)).notes[replay.JOURNAL]
    places = journal(data)
    second = data.index(mark, data.index(mark, places.start) + 1)
    data[second + 20] ^= 1

    shorter = replay_journal(BytesDevice(data)).notes[replay.JOURNAL]

    assert whole.startswith("replayed: 7 transactions")
    assert shorter.startswith("replayed: 1 transaction,")
    assert "which is damaged" in shorter


def test_a_journal_that_takes_too_much_memory_is_not_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(jbd2, "_replay", no_room)

    told = replay_journal(BytesDevice(image("ext4-crashed", tmp_path)))

    assert told.notes[replay.JOURNAL].endswith("it takes too much memory")


def test_a_revoke_block_that_is_damaged_costs_no_transaction_before_it(tmp_path: Path) -> None:
    data = image("ext4-crashed", tmp_path)
    places = journal(data)
    last = data.rindex(REVOKE_BLOCK, places.start, places.stop)
    data[last + 12] ^= 0x40  # the length of its list

    shorter = replay_journal(BytesDevice(data)).notes[replay.JOURNAL]

    assert re.match("replayed: [1-6] transaction.*which is damaged", shorter)


def test_a_commit_block_of_which_only_the_first_sector_was_written_is_one(tmp_path: Path) -> None:
    data = image("ext4-crashed", tmp_path)
    whole = replay_journal(BytesDevice(data)).notes
    places = journal(data)
    last = data.rindex(COMMIT_BLOCK, places.start, places.stop)
    data[last + 512 : last + 1024] = b"x" * 512

    assert replay_journal(BytesDevice(data)).notes == whole


def test_a_copy_that_is_damaged_is_not_given_out(tmp_path: Path) -> None:
    data = image("ext4-crashed-data-journal", tmp_path)
    device = replay_journal(BytesDevice(data)).device
    whole = device.read_at(0, device.size)
    escaped = data.index(bytes(4) + JOURNAL_MARK * 255, journal(data).start)
    data[escaped + 100] ^= 1

    assert JOURNAL_MARK * 1024 in whole
    with pytest.raises(Damaged, match="the copy of block"):
        device.read_at(0, device.size)


@pytest.mark.parametrize("name", CRASHED)
@pytest.mark.slow
def test_no_damage_does_more_than_to_be_noticed(name: str, tmp_path: Path) -> None:
    data = image(name, tmp_path)
    places, chance = journal(data), random.Random(name)
    starts = [at for at in range(places.start, places.stop, BLOCK) if any(data[at : at + 64])]
    starts += [SUPER_AT, SUPER_AT, 4096, 2048]

    for _ in range(300):
        changed = {
            min(chance.choice(starts) + chance.randrange(256), len(data) - 1): chance.randrange(256)
            for _ in range(chance.randrange(1, 6))
        }
        before = {at: data[at] for at in changed}
        for at, byte in changed.items():
            data[at] = byte
        device = BytesDevice(data)
        device.size = chance.choice((len(data), len(data), chance.randrange(len(data))))
        try:
            replayed = replay_journal(device).device
            assert len(replayed.read_at(0, SUPER_AT + SUPER_SIZE)) <= SUPER_AT + SUPER_SIZE
        except Damaged:
            pass
        finally:
            for at, byte in before.items():
                data[at] = byte
