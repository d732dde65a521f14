"""Partition tables, made by the tools that administrators use, then bent by hand."""

import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from support.disks import BytesDevice, FileDevice, found_in

pytestmark = pytest.mark.slow  # tools that wait for the kernel to read a table

SIZE = 16 << 20
MIB = 1 << 20


def image(path: Path, script: str, *options: str, size: int = SIZE) -> bytearray:
    """Return a disk of `size` bytes that sfdisk has divided by `script`."""
    path.write_bytes(b"")
    with path.open("r+b") as file:
        file.truncate(size)
    subprocess.run(
        ["sfdisk", "-q", *options, path], input=script.encode(), check=True, capture_output=True
    )
    return bytearray(path.read_bytes())


def gpt(path: Path) -> bytearray:
    return image(
        path,
        "label: gpt\n"
        'start=1MiB, size=2MiB, type=uefi, name="EFI/System"\n'
        "start=3MiB, size=4MiB, type=swap\n"
        'start=7MiB, size=8MiB, type=linux, name="root \N{SNOWMAN}"\n',
    )


GPT_NAMES = ["xvda/1-EFI_System", "xvda/2-Linux swap", "xvda/3-root \N{SNOWMAN}"]


def places(data: bytearray) -> dict[str, tuple[int, int]]:
    """Return (start, size) of each partition found, where its first byte really is."""
    answer = {}
    for path, found in found_in(BytesDevice(data)).items():
        (extent,) = found.volume.device.extents(0, 1)
        answer[path] = (extent.offset, found.volume.device.size)
    return answer


def test_partitions_of_a_gpt_have_its_names_and_whole_sizes(tmp_path: Path) -> None:
    data = gpt(tmp_path / "disk")

    found = places(data)

    assert found == {
        GPT_NAMES[0]: (MIB, 2 * MIB),
        GPT_NAMES[1]: (3 * MIB, 4 * MIB),
        GPT_NAMES[2]: (7 * MIB, 8 * MIB),
    }


@pytest.mark.parametrize(
    ("start", "stop"),
    [(512, 1024), (0, MIB), (512 + 24, 512 + 25), (1024 + 130, 1024 + 131)],
    ids=["header zeroed", "first MiB zeroed", "header bent", "entries bent"],
)
def test_the_second_copy_of_a_gpt_stands_in_for_the_first(
    tmp_path: Path, start: int, stop: int
) -> None:
    data = gpt(tmp_path / "disk")
    whole = places(data)
    data[start:stop] = bytes(stop - start)

    found = found_in(BytesDevice(data))

    assert places(data) == whole
    assert all("second" in one.volume.notes["table"] for one in found.values())


def test_a_disk_that_has_grown_is_still_found_by_its_second_copy(tmp_path: Path) -> None:
    data = gpt(tmp_path / "disk")
    whole = places(data)
    data[512:1024] = bytes(512)
    data += bytes(2 * MIB)

    assert places(data) == whole


def test_a_gpt_with_both_copies_bent_says_what_is_wrong(tmp_path: Path) -> None:
    data = gpt(tmp_path / "disk")
    data[512 + 24] ^= 1
    data[-512 + 24] ^= 1

    (found,) = found_in(BytesDevice(data)).values()

    assert "checksum" in found.problem


def test_a_gpt_in_sectors_of_4096_bytes_is_read(tmp_path: Path) -> None:
    data = in_large_sectors(gpt(tmp_path / "disk"))

    first = places(data)
    data[4096:8192] = bytes(4096)
    second = places(data)

    assert first == {
        GPT_NAMES[0]: (8 * MIB, 16 * MIB),
        GPT_NAMES[1]: (24 * MIB, 32 * MIB),
        GPT_NAMES[2]: (56 * MIB, 64 * MIB),
    }
    assert second == first


def in_large_sectors(data: bytearray) -> bytearray:
    """Return a disk of as many sectors with the same table, each sector of 4096 bytes."""
    large = bytearray(8 * len(data))
    large[:512] = data[:512]
    rows = data[1024 : 1024 + 128 * 128]
    for header_at, rows_at in ((1, 2), (len(data) // 512 - 1, len(data) // 512 - 33)):
        at, header = 4096 * header_at, bytearray(data[512 * header_at : 512 * header_at + 92])
        struct.pack_into("<Q", header, 72, rows_at)
        struct.pack_into("<I", header, 16, 0)
        struct.pack_into("<I", header, 16, zlib.crc32(header))
        large[at : at + 92] = header
        large[4096 * rows_at : 4096 * rows_at + len(rows)] = rows
    return large


def test_a_hybrid_table_counts_as_gpt(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    gpt(path)
    subprocess.run(["sgdisk", "-h", "1:3", path], check=True, capture_output=True)

    assert list(places(bytearray(path.read_bytes()))) == GPT_NAMES


def test_a_gpt_that_an_mbr_has_replaced_is_not_shown(tmp_path: Path) -> None:
    data = gpt(tmp_path / "gpt")
    mbr = image(tmp_path / "mbr", "label: dos\nsize=4M, type=83\n")
    data[:512] = mbr[:512]

    assert list(places(data)) == ["xvda/1-Linux"]


def dos(path: Path) -> bytearray:
    return image(
        path,
        "label: dos\n"
        "size=2M, type=7, bootable\n"
        "size=12M, type=5\n"
        "size=1M, type=82\n"
        "size=1M, type=83\n"
        "size=1M, type=8e\n"
        "size=1M, type=42\n",
    )


def test_primary_and_logical_partitions_have_the_numbers_of_the_kernel(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    data = dos(path)
    found = places(data)
    told = subprocess.run(["sfdisk", "-d", path], check=True, capture_output=True, text=True).stdout
    lines = [line for line in told.splitlines() if "start=" in line and "type=5," not in line + ","]

    assert len(found) == 5
    for (name, (start, size)), line in zip(found.items(), lines, strict=True):
        number = name.split("/")[1].split("-")[0]
        assert line.split(" :")[0].endswith(number)
        assert f"start={start // 512:>12}," in line
        assert f"size={size // 512:>12}," in line


def test_a_list_of_logical_partitions_that_loops_ends_what_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    data = dos(path)
    before = places(data)
    extended = struct.unpack_from("<I", data, 446 + 16 + 8)[0] * 512
    second = extended + struct.unpack_from("<I", data, extended + 446 + 16 + 8)[0] * 512
    struct.pack_into("<I", data, second + 446 + 16 + 8, (second - extended) // 512)

    found = found_in(BytesDevice(data))

    kept = [path for path, one in found.items() if not one.volume.problem]
    assert set(kept) < set(before)
    assert "circle" in found["xvda/2-type 05"].problem


@pytest.mark.parametrize("bits", ["12", "16", "32"])
def test_the_boot_sector_of_a_fat_is_no_partition_table(tmp_path: Path, bits: str) -> None:
    path = tmp_path / "fat"
    with path.open("wb") as file:
        file.truncate(64 * MIB if bits != "12" else 4 * MIB)
    subprocess.run(["mkfs.fat", "-F", bits, path], check=True, capture_output=True)
    data = bytearray(path.read_bytes())
    data[510:512] = b"\x55\xaa"
    struct.pack_into("<B3xB3xII", data, 446, 0x80, 0x83, 2048, 4096)  # however much it looks so

    assert [name.split("-")[0] for name in places(data)] == ["xvda/0"]


def test_a_partition_beyond_the_end_of_the_disk_ends_with_it(tmp_path: Path) -> None:
    data = gpt(tmp_path / "disk")
    del data[12 * MIB :]

    last = found_in(BytesDevice(data))[GPT_NAMES[2]]

    assert last.volume.device.size == 5 * MIB
    assert str(3 * MIB) in last.volume.notes["cut"]


@pytest.mark.parametrize("make", [gpt, dos])
def test_a_partition_of_which_nothing_is_left_says_so_and_the_others_stay(
    tmp_path: Path, make: Callable[[Path], bytearray]
) -> None:
    data = make(tmp_path / "disk")
    whole = list(found_in(BytesDevice(data)))
    del data[5 * MIB :]

    found = found_in(BytesDevice(data))

    assert not found[whole[0]].volume.problem
    problems = [one.volume.problem for one in found.values() if one.volume.problem]
    assert "the disk ends before it begins" in problems
    assert len(problems) == {gpt: 1, dos: 2}[make]  # the other: the list of logical ones is cut


@pytest.mark.parametrize(("first", "last"), [(0, 5), (9, 8), (1 << 63, (1 << 64) - 1)])
def test_a_partition_that_cannot_be_is_a_problem_of_its_own(
    tmp_path: Path, first: int, last: int
) -> None:
    data = gpt(tmp_path / "disk")
    struct.pack_into("<QQ", data, 1024 + 32, first, last)
    _seal(data)

    found = found_in(BytesDevice(data))

    assert len(found) == 3
    assert (
        sum(bool(one.volume.problem) or not one.volume.device.size for one in found.values()) == 1
    )


def test_swap_is_called_swap(tmp_path: Path) -> None:
    path = tmp_path / "swap"
    with path.open("wb") as file:
        file.truncate(4 * MIB)
    subprocess.run(["mkswap", path], check=True, capture_output=True)

    (found,) = found_in(FileDevice(path)).values()

    assert "swap" in found.problem


def test_what_is_unknown_keeps_the_words_of_its_table(tmp_path: Path) -> None:
    data = image(tmp_path / "disk", "label: dos\nsize=8M, type=a9\n")
    data[MIB : MIB + 9] = b"something"

    (found,) = found_in(BytesDevice(data)).values()

    assert found.path == ("xvda", "1-NetBSD")
    assert found.problem.endswith("'NetBSD'")


def test_two_disks_of_one_name_are_told_apart() -> None:
    one, two = BytesDevice(bytes(MIB), 0), BytesDevice(bytes(MIB), 1)

    assert [found.disk for found in found_in(one, two).values()] == [0, 1]


@pytest.mark.parametrize("make", [gpt, dos])
def test_no_bent_table_does_more_than_say_so(
    tmp_path: Path, make: Callable[[Path], bytearray]
) -> None:
    whole = make(tmp_path / "disk")
    random = Random(5)
    structures = [
        *range(2 * 512),
        *range(1024, 1024 + 3 * 128),
        *range(len(whole) - 512, len(whole)),
    ]
    for at in range(MIB, len(whole), 512):
        if whole[at + 510 : at + 512] == b"\x55\xaa":
            structures += [*range(at + 446, at + 512)] * 4

    for _ in range(150):
        data = bytearray(whole)
        if random.random() < 0.1:
            del data[random.randrange(len(data)) :]
        for place in random.sample(structures, random.randrange(1, 6)):
            if place < len(data):
                data[place] = random.randrange(256)
        if random.random() < 0.5 and make is gpt and len(data) == len(whole):
            _seal(data)
        for found in found_in(BytesDevice(data)).values():
            assert 0 <= found.volume.device.size <= len(data)
            list(found.volume.device.extents(0, 1 << 60))


def _seal(data: bytearray) -> None:
    """Make the checksums of the first copy of a GPT right again."""
    struct.pack_into("<I", data, 512 + 88, zlib.crc32(data[1024 : 1024 + 128 * 128]))
    header = bytearray(data[512 : 512 + 92])
    header[16:20] = bytes(4)
    struct.pack_into("<I", data, 512 + 16, zlib.crc32(header))
