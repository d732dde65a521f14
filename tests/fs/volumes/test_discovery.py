"""From disks to what lies on them: one layer in another, and what is not to be mistaken."""

import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from support.disks import BytesDevice, FileDevice, disk, found_in, sectors, unpacked_disks

from backgate.fs.parser.messages import VOLUMES_MAX
from backgate.fs.volume import Device, Layer, Volume
from backgate.fs.volumes import LAYERS, discovery
from backgate.fs.volumes.devices import Empty, Stretch
from backgate.fs.volumes.discovery import DEPTH_MAX, discover
from backgate.fs.volumes.marks import meaning
from backgate.fs.volumes.names import LONGEST, file_name, unique_names

pytestmark = pytest.mark.slow

MIB = 1 << 20
RAID, LVM, LINUX = 0xFD, 0x8E, 0x83


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A physical volume with one logical one of 512 KiB."""
    paths = unpacked_disks("lvm.tar.xz", tmp_path_factory.mktemp("lvm"))
    return paths["lvm-6"].read_bytes()


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A member of an array of 2 MiB."""
    paths = unpacked_disks("md.tar.xz", tmp_path_factory.mktemp("md"))
    return paths["md-r1-10-1"].read_bytes()


def divided(*contents: tuple[int, bytes]) -> bytearray:
    """Return a disk with primary partitions of these types and contents."""
    data = bytearray(MIB)
    for number, (kind, content) in enumerate(contents):
        start, count = len(data) // 512, len(content) // 512
        struct.pack_into("<B3xB3xII", data, 446 + 16 * number, 0, kind, start, count)
        data += content
    data[510:512] = b"\x55\xaa"
    return data


def test_members_are_gathered_from_partitions_of_all_disks(group: bytes, mirror: bytes) -> None:
    one = BytesDevice(divided((LINUX, bytes(MIB)), (LVM, group)), 0)
    two = BytesDevice(divided((RAID, mirror)), 1)

    found = found_in(one, two)

    assert found["xvda/1-Linux"].problem.startswith("its beginning is zeros")
    assert found["xvda/2-Linux LVM"].member_of == "lvm"
    assert found["xvdb/1-Linux RAID"].member_of == "md"
    linear, array = found["vg-one-linear"], found["md-r1-10"]
    assert (linear.disk, linear.disks, array.disks) == (None, (0,), (1,))
    assert linear.volume.device.read_at(0, 512) == sectors("other", 0, 1)
    (extent,) = linear.volume.device.extents(0, 512)
    assert one.data[extent.offset :].startswith(b"other 0000000000")


def test_a_disk_in_a_volume_in_an_array_is_found(group: bytes, mirror: bytes) -> None:
    guest = divided((LINUX, bytes(64 << 10)))[: 512 << 10]
    struct.pack_into("<II", guest, 446 + 8, 128, 64)
    place = group.index(b"other 0000000000")
    group = group[:place] + guest + group[place + len(guest) :]
    data = bytearray(mirror)
    data[: len(data) - 65536] = group[: len(data) - 65536]  # but for its superblock, at the end

    found = found_in(BytesDevice(data))

    assert found["xvda/0-md"].member_of == "md"
    assert found["md-r1-10"].member_of == "lvm"
    assert found["vg-one-linear/1-Linux"].volume.device.size == 32 << 10


class Nest(Layer):
    """A layer that always has one more volume in it."""

    name: ClassVar[str] = "nest"
    many: ClassVar[int] = 1

    def claims(self, device: Device) -> bool:
        return True

    def volumes(self, members: Sequence[Volume], secrets: Sequence[bytes]) -> list[Volume]:
        size = members[0].device.size
        inside = Stretch(members[0].device, 0, size)
        return [Volume(name="a/b", device=inside, kind="nest") for _ in range(self.many)]


def test_layers_in_one_another_come_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYERS, "nest", f"{__name__}:Nest")
    monkeypatch.setattr(discovery, "load", lambda place: Nest if "Nest" in place else Never)

    (found,) = discover([disk(Empty(MIB))])

    assert len(found.path) == DEPTH_MAX + 1
    assert "layers" in found.problem


def test_too_many_volumes_are_a_problem_of_what_holds_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(LAYERS, "nest", f"{__name__}:Nest")
    monkeypatch.setattr(discovery, "load", lambda place: Nest if "Nest" in place else Never)
    monkeypatch.setattr(Nest, "many", 3)

    found = discover([disk(Empty(MIB))])

    assert len(found) <= discovery.FOUND_MAX
    assert any("more than 4096 volumes" in one.problem for one in found)
    assert len({one.path for one in found}) == len(found)


class Parts(Layer):
    """As many volumes as a disk has MiB, none of which holds anything."""

    name: ClassVar[str] = "parts"

    def claims(self, device: Device) -> bool:
        return device.size >= MIB

    def volumes(self, members: Sequence[Volume], secrets: Sequence[bytes]) -> list[Volume]:
        count = members[0].device.size // MIB
        return [Volume(name=f"{at}", device=Empty(1), kind="part") for at in range(count)]


def test_nothing_is_left_out_without_a_word_and_what_fits_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(LAYERS, "parts", f"{__name__}:Parts")
    monkeypatch.setattr(discovery, "load", lambda place: Parts if "Parts" in place else Never)
    monkeypatch.setattr(discovery, "FOUND_MAX", 6)

    found = discover([disk(Empty(5 * MIB), "large"), disk(Empty(4 * MIB), "small")])

    assert found[0].path[0] == "large"
    assert "more than 6 volumes" in found[0].problem
    assert [one.path for one in found[1:]] == [("small", str(at)) for at in range(4)]


def test_all_that_may_be_found_fits_in_one_answer() -> None:
    assert discovery.FOUND_MAX <= VOLUMES_MAX


class Never(Layer):
    name: ClassVar[str] = "never"

    def claims(self, *device: Device) -> bool:
        return False

    def volumes(self, members: Sequence[Volume], secrets: Sequence[bytes]) -> list[Volume]:
        return []


class Unreadable(BytesDevice):
    def read_at(self, offset: int, length: int) -> bytes:
        raise ConnectionError("the store is gone")


def test_a_disk_that_cannot_be_read_now_is_not_taken_for_an_empty_one() -> None:
    with pytest.raises(ConnectionError):
        found_in(BytesDevice(bytes(MIB)), Unreadable(bytes(MIB)))


def test_a_disk_without_bytes_is_shown_as_one() -> None:
    (found,) = found_in(BytesDevice(b"")).values()

    assert found.path == ("xvda", "0-unknown")


@pytest.mark.parametrize(
    ("offset", "mark", "words"),
    [
        (3, b"ReFS\0\0\0\0", "ReFS"),
        (0xC00, b"PRIVHEAD", "dynamic disk"),
        (32, b"NXSB", "APFS"),
        (65536 - 10, b"SWAPSPACE2", "swap"),
        (0x200000, b"\x0d\xd0\x01\xc0", "VMFS"),
    ],
)
def test_what_cannot_be_read_is_named(offset: int, mark: bytes, words: str) -> None:
    data = bytearray(4 * MIB)
    data[offset : offset + len(mark)] = mark

    assert words in meaning(BytesDevice(data))


def test_a_pool_of_zfs_is_known_by_more_than_one_uberblock() -> None:
    data = bytearray(MIB)
    data[128 << 10 : (128 << 10) + 8] = b"\x0c\xb1\xba\0\0\0\0\0"
    assert meaning(BytesDevice(data)) == ""

    data[129 << 10 : (129 << 10) + 8] = b"\x0c\xb1\xba\0\0\0\0\0"
    assert "ZFS" in meaning(BytesDevice(data))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("EFI System", "EFI System"),
        ("../../etc", ".._.._etc"),
        ("..", "unnamed"),
        (".", "unnamed"),
        ("", "unnamed"),
        ("   ", "unnamed"),
        ("a\0b\nc", "a_b_c"),
        ("right\u202eleft", "right_left"),
        ("\ud800", "_"),
        ("Daten  für\xa0Äpfel", "Daten für Äpfel"),
        ("\N{SNOWMAN}" * 100, "\N{SNOWMAN}" * (LONGEST // 3)),
    ],
)
def test_a_name_can_be_a_files(text: str, name: str) -> None:
    assert file_name(text) == name


def test_names_become_unique_also_against_names_that_look_numbered() -> None:
    names = unique_names(["a", "a", "a (2)", "b", "a"])

    assert len(set(names)) == 5
    assert names[:2] == ["a", "a (2)"]


@pytest.mark.parametrize(("kind", "words"), [(0x42, "dynamic disk"), (0xA9, "NetBSD")])
def test_a_partition_of_which_only_the_type_is_known_tells_it(kind: int, words: str) -> None:
    found = found_in(BytesDevice(divided((kind, b"something".ljust(MIB, b"?")))))

    (one,) = found.values()
    assert words in one.problem
    assert ("cannot be read" in one.problem) is (kind == 0x42)


def table_over(image: Path, label: str, script: str) -> None:
    """Divide a disk as tools do that leave what was there before."""
    options = ["--wipe", "never", "--wipe-partitions", "never"]
    subprocess.run(
        ["sfdisk", "-q", *options, image], input=f"label: {label}\n{script}".encode(), check=True
    )


def formatted(image: Path, mkfs: str, size: int) -> None:
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run([*mkfs.split(), image], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("mkfs", "label", "name"),
    [("mkfs.ext4 -q", "dos", "ext4"), ("mkfs.btrfs -q", "gpt", "btrfs")],
)
def test_partitions_are_shown_beside_a_file_system_that_was_there_before(
    tmp_path: Path, mkfs: str, label: str, name: str
) -> None:
    image = tmp_path / "disk"
    formatted(image, mkfs, 128 * MIB)
    table_over(image, label, "start=1MiB, size=16MiB\n")
    formatted(tmp_path / "part", "mkfs.ext4 -q", 16 * MIB)
    with image.open("r+b") as file:
        file.seek(MIB)
        file.write((tmp_path / "part").read_bytes())

    found = found_in(FileDevice(image))

    partition = {"dos": "xvda/1-Linux", "gpt": "xvda/1-Linux filesystem"}[label]
    assert list(found) == [f"xvda/0-{name}", partition]
    assert (found[f"xvda/0-{name}"].file_system, found[partition].file_system) == (name, "ext4")
    assert "left over" in found[f"xvda/0-{name}"].volume.notes["doubt"]


@pytest.mark.parametrize("mkfs", ["mkfs.ext4 -q -F", "mkfs.xfs -q -f", "mkfs.btrfs -q -f"])
@pytest.mark.parametrize("label", ["dos", "gpt"])
def test_a_table_that_a_file_system_has_replaced_is_not_shown(
    tmp_path: Path, mkfs: str, label: str
) -> None:
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(512 * MIB)
    table_over(image, label, "start=1MiB, size=16MiB\n")

    subprocess.run([*mkfs.split(), image], check=True, capture_output=True)

    (found,) = found_in(FileDevice(image)).values()
    assert found.file_system in mkfs


def test_partitions_are_shown_beside_a_physical_volume_that_was_there_before(
    group: bytes,
) -> None:
    data = bytearray(group)
    struct.pack_into("<B3xB3xII", data, 446, 0, LINUX, 2048, 1024)
    data[510:512] = b"\x55\xaa"

    found = found_in(BytesDevice(data))

    assert found["xvda/0-lvm"].member_of == "lvm"
    assert found["xvda/1-Linux"].volume.device.size == 512 << 10
    assert not found["vg-one-linear"].volume.problem


def test_partitions_are_shown_beside_a_member_of_a_raid_that_was_there_before(
    tmp_path: Path,
) -> None:
    data = bytearray(unpacked_disks("md.tar.xz", tmp_path)["md-r10-n2-1"].read_bytes())
    struct.pack_into("<B3xB3xII", data, 446, 0, LINUX, 2048, 1024)
    data[510:512] = b"\x55\xaa"

    found = found_in(BytesDevice(data))

    assert found["xvda/0-md"].member_of == "md"
    assert "left over" in found["xvda/0-md"].volume.notes["doubt"]
    assert found["xvda/1-Linux"].volume.device.size == 512 << 10
    assert "md-r10-n2" in found


def test_a_table_in_an_array_is_not_taken_for_that_of_its_member(mirror: bytes) -> None:
    data = bytearray(mirror)
    data[446:510] = struct.pack("<B3xB3xII", 0, LINUX, 2048, 1024).ljust(64, b"\0")
    data[510:512] = b"\x55\xaa"

    found = found_in(BytesDevice(data))

    assert list(found) == ["xvda/0-md", "md-r1-10/1-Linux"]


def test_a_volume_with_a_table_beside_its_file_system_has_both_below_it(
    group: bytes, tmp_path: Path
) -> None:
    formatted(tmp_path / "inside", "mkfs.ext2 -q -b 1024", 512 << 10)
    inside = bytearray((tmp_path / "inside").read_bytes())
    struct.pack_into("<B3xB3xII", inside, 446, 0, LINUX, 512, 256)
    inside[510:512] = b"\x55\xaa"
    place = group.index(b"other 0000000000")

    found = found_in(BytesDevice(group[:place] + inside + group[place + len(inside) :]))

    assert found["vg-one-linear/0-ext4"].file_system == "ext4"
    assert "vg-one-linear/1-Linux" in found
