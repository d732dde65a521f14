"""MD RAID, against members that the kernel has written (`tests/data/images/make_volumes.sh`)."""

import struct
from pathlib import Path
from random import Random

import pytest
from support.disks import (
    BytesDevice,
    FileDevice,
    by_extents,
    found_in,
    read_ends,
    sectors,
    unpacked_disks,
)

from backgate.fs.volume import Device
from backgate.fs.volumes.discovery import Found
from backgate.fs.volumes.md_superblock import OLD_RESERVED, superblock

pytestmark = pytest.mark.slow

LAYOUTS = ["left-symmetric", "left-asymmetric", "right-symmetric", "right-asymmetric"]
LAYOUTS += ["parity-first", "parity-last"]
REDUNDANT = ["r1-090", "r1-10", "r10-n2", "r10-n2-odd", "r10-f2", "r10-o2", "r4"]
REDUNDANT += [f"r{level}-{layout}" for level in (5, 6) for layout in LAYOUTS]
ARRAYS = ["r0-11", "r0-uneven", "linear", *REDUNDANT]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """The members of each array."""
    arrays: dict[str, list[Path]] = {}
    for name, path in unpacked_disks("md.tar.xz", tmp_path_factory.mktemp("md")).items():
        arrays.setdefault(name.removeprefix("md-").rpartition("-")[0], []).append(path)
    return arrays


def members(paths: list[Path]) -> list[FileDevice]:
    return [FileDevice(path, number) for number, path in enumerate(paths)]


def array(*devices: Device) -> Found:
    (found,) = [one for one in found_in(*devices).values() if one.volume.kind == "md"]
    return found


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_is_what_the_kernel_has_written(images: dict[str, list[Path]], name: str) -> None:
    disks = members(images[name])

    device = array(*disks).volume.device

    assert device.size > 1 << 20
    assert device.read_at(0, device.size) == sectors(name, 0, device.size // 512)
    assert by_extents(device, disks) == sectors(name, 0, device.size // 512)


@pytest.mark.parametrize("name", REDUNDANT)
def test_an_array_is_whole_without_any_one_of_its_members(
    images: dict[str, list[Path]], name: str
) -> None:
    disks = members(images[name])

    for missing in range(len(disks)):
        device = array(*disks[:missing], *disks[missing + 1 :]).volume.device
        assert device.read_at(0, device.size) == sectors(name, 0, device.size // 512)


@pytest.mark.parametrize("name", ["r0-11", "linear", "r5-left-symmetric", "r10-n2"])
def test_an_array_that_is_not_whole_says_which_members_are_missing(
    images: dict[str, list[Path]], name: str
) -> None:
    found = array(*members(images[name])[2:])

    assert "number" in found.problem
    assert found.volume.device.size == 0


def test_a_member_that_was_away_is_left_out(images: dict[str, list[Path]]) -> None:
    one, two = members(images["r1-stale"])

    together = array(two, one)

    device = together.volume.device
    assert device.read_at(0, device.size) == sectors("newer", 0, device.size // 512)
    assert together.disks == (1,)
    assert "away" in together.volume.notes["left out"]


def test_an_array_is_named_as_mdadm_names_it(images: dict[str, list[Path]]) -> None:
    named = array(*members(images["r1-10"]))
    unnamed = array(*members(images["r1-090"]))

    assert named.path == ("md-r1-10",)
    assert named.volume.notes["level"] == "RAID 1"
    assert unnamed.path == (f"md-{unnamed.volume.notes['uuid'].split(':')[0]}",)


def test_a_member_in_the_last_partition_is_not_the_whole_disk(
    images: dict[str, list[Path]], tmp_path: Path
) -> None:
    member = images["r1-090"][0].read_bytes()
    start = 1 << 20
    disk = bytearray(start) + member
    disk[510:512] = b"\x55\xaa"
    struct.pack_into("<B3xB3xII", disk, 446, 0, 0xFD, start // 512, len(member) // 512)

    found = found_in(BytesDevice(disk))

    assert found["xvda/1-Linux RAID"].member_of == "md"


FEATURES, RECOVERY, RESYNC = 8, 152, 208  # where they stand in a superblock


@pytest.mark.parametrize(
    ("features", "at", "value", "reason"),
    [
        (4, 0, None, "reshaped"),
        (512, 0, None, "journal"),
        (2, RECOVERY, 2048, "recovery has not ended"),
        (16, 0, None, "replacement"),
    ],
)
def test_a_member_that_does_not_have_every_byte_is_left_out(
    images: dict[str, list[Path]], features: int, at: int, value: int | None, reason: str
) -> None:
    data = [bytearray(path.read_bytes()) for path in images["r5-left-symmetric"]]
    struct.pack_into("<I", data[1], 4096 + FEATURES, features)
    if value is not None:
        struct.pack_into("<Q", data[1], 4096 + at, value)
    seal(data[1], 4096, is_old=False)

    found = array(*[BytesDevice(one, number) for number, one in enumerate(data)])

    assert reason in found.volume.notes["left out"]
    device = found.volume.device
    assert device.read_at(0, device.size) == sectors("r5-left-symmetric", 0, device.size // 512)


@pytest.mark.parametrize(("features", "reason"), [(4, "reshaped"), (512, "journal")])
def test_an_array_of_which_no_member_can_be_used_says_why(
    images: dict[str, list[Path]], features: int, reason: str
) -> None:
    data = [bytearray(path.read_bytes()) for path in images["r5-left-symmetric"]]
    for one in data:
        struct.pack_into("<I", one, 4096 + FEATURES, features)
        seal(one, 4096, is_old=False)

    assert reason in array(*[BytesDevice(one) for one in data]).problem


def test_a_member_with_blocks_known_to_be_bad_is_left_out(images: dict[str, list[Path]]) -> None:
    data = [bytearray(path.read_bytes()) for path in images["r5-left-symmetric"]]
    log = 4096 + struct.unpack_from("<i", data[2], 4096 + 188)[0] * 512
    struct.pack_into("<I", data[2], 4096 + FEATURES, 8)
    seal(data[2], 4096, is_old=False)
    data[2][log : log + 8] = struct.pack("<Q", 100 << 10 | 8)

    found = array(*[BytesDevice(one, number) for number, one in enumerate(data)])

    assert "bad" in found.volume.notes["left out"]
    assert found.disks == (0, 1, 3)


@pytest.mark.parametrize("name", ["r5-left-symmetric", "r10-n2", "r1-stale"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_member_that_is_cut_short_is_left_out(
    images: dict[str, list[Path]], name: str, which: int
) -> None:
    data = [path.read_bytes() for path in images[name]]
    if name == "r1-stale":  # of which one alone is not stale: the other one becomes like it
        data = [as_member(data[0], number) for number in range(2)]
    devices = [BytesDevice(one, number) for number, one in enumerate(data)]
    whole = array(*devices).volume.device

    devices[which] = BytesDevice(data[which][: len(data[which]) // 2], which)

    found = array(*devices)
    assert "cut short" in found.volume.notes["left out"]
    assert found.volume.device.read_at(0, whole.size) == whole.read_at(0, whole.size)


def as_member(image: bytes, number: int) -> bytes:
    """Return a member of a mirror as its member `number`, both of which are in their slots."""
    data = bytearray(image)
    struct.pack_into("<I", data, 4096 + 160, number)
    struct.pack_into("<2H", data, 4096 + 256, 0, 1)
    seal(data, 4096, is_old=False)
    return bytes(data)


@pytest.mark.parametrize("name", ["r1-10", "r1-090"])
@pytest.mark.parametrize("later", [0, 1])
def test_a_member_that_is_written_later_is_read_where_no_other_is_left(
    images: dict[str, list[Path]], name: str, later: int
) -> None:
    data = [bytearray(path.read_bytes()) for path in images[name]]
    for number, one in enumerate(data):
        write_later(one, is_old=name == "r1-090", is_later=number == later)
    devices = [BytesDevice(one, number) for number, one in enumerate(data)]

    both, alone = array(*devices), array(devices[later])

    (extent,) = both.volume.device.extents(0, 512)
    assert extent.disk == 1 - later
    assert "doubt" not in both.volume.notes
    assert "later" in alone.volume.notes["doubt"]
    assert not alone.volume.problem


def write_later(data: bytearray, *, is_old: bool, is_later: bool) -> None:
    """Make it a member of a mirror in use, that may be written later than the other one."""
    if is_old:
        at = len(data) // OLD_RESERVED * OLD_RESERVED - OLD_RESERVED
        data[at + 4 * 33] &= ~1  # clean
        data[at + 4 * (992 + 4) + 1] |= 2 * is_later
    else:
        at = (len(data) // 512 - 16 & ~7) * 512
        data[at + 184] |= is_later
        struct.pack_into("<Q", data, at + RESYNC, 0)
    seal(data, at, is_old=is_old)


def test_parity_that_may_be_out_of_date_does_not_stand_in_for_a_member(
    images: dict[str, list[Path]],
) -> None:
    data = [bytearray(path.read_bytes()) for path in images["r5-left-symmetric"]]
    for one in data:
        struct.pack_into("<Q", one, 4096 + RESYNC, 0)
        seal(one, 4096, is_old=False)
    devices = [BytesDevice(one, number) for number, one in enumerate(data)]

    assert not array(*devices).volume.problem
    assert "parity of the others is not complete" in array(*devices[1:]).problem


def test_bent_members_are_damaged_and_no_more(images: dict[str, list[Path]]) -> None:
    random = Random(9)
    for name in ("r5-left-symmetric", "r10-f2", "r0-uneven", "linear", "r1-090"):
        whole = [path.read_bytes() for path in images[name]]
        at = len(whole[0]) - (64 << 10) if name == "r1-090" else (0 if name == "r0-11" else 4096)
        for _ in range(60):
            devices = []
            for number, one in enumerate(whole):
                bent = bytearray(one)
                for _ in range(random.randrange(3)):
                    bent[at + random.randrange(264)] = random.choice(
                        [0, 1, 255, random.randrange(256)]
                    )
                seal(bent, at, is_old=name == "r1-090")
                if random.random() < 0.1:
                    del bent[random.randrange(len(bent)) :]
                devices.append(BytesDevice(bent, number))
            for found in found_in(*devices).values():
                read_ends(found.volume.device)


def seal(data: bytearray, at: int, *, is_old: bool) -> None:
    """Make the checksum of the superblock at `at` right again."""
    place, length = (152, 4096) if is_old else (216, 0)
    if not length:
        length = 256 + 2 * (struct.unpack_from("<I", data, at + 220)[0] & 0x3FF)
    raw = bytearray(data[at : at + length])
    raw[place : place + 4] = bytes(4)
    total = sum(struct.unpack_from(f"<{len(raw) // 4}I", raw))
    total += int.from_bytes(raw[len(raw) // 4 * 4 :], "little")
    struct.pack_into("<I", data, at + place, (total & 0xFFFFFFFF) + (total >> 32) & 0xFFFFFFFF)


def test_a_superblock_with_a_wrong_checksum_is_none(images: dict[str, list[Path]]) -> None:
    data = bytearray(images["r4"][0].read_bytes())
    data[4096 + 100] ^= 1

    assert superblock(BytesDevice(data)) is None
