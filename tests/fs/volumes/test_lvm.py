"""LVM2, against disks that the kernel has written (`tests/data/images/make_volumes.sh`)."""

import re
import struct
from collections.abc import Callable
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
from backgate.fs.volumes import dm_raid, lvm_map
from backgate.fs.volumes.checksums import plain_crc32c
from backgate.fs.volumes.discovery import Found
from backgate.fs.volumes.dm_raid import trusted
from backgate.fs.volumes.lvm_group import group
from backgate.fs.volumes.lvm_label import checksum, physical
from backgate.fs.volumes.lvm_text import DEPTH_MAX, parsed
from backgate.fs.volumes.thin import NODE, NODE_XOR, SUPERBLOCK_XOR, Pool, Thin
from backgate.gateway.errors import Damaged

pytestmark = pytest.mark.slow

WHOLE = [
    *("linear", "striped", "mirror", "cached"),
    *(
        "raid1",
        "raid4",
        "raid5",
        "raid5_n",
        "raid6",
        "raid6_nr",
        "raid6_nc",
        "raid6_ls_6",
        "raid10",
    ),
]
THIN = [(0, 300), (1000, 1100), (8000, 8192)]
THIN += [(chunk * 128, chunk * 128 + 1) for chunk in range(200, 761, 2)]
LATER = [(100, 140), (4000, 4040)]
PHYSICAL_METADATA = 4096  # where pvcreate puts the metadata area


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return list(unpacked_disks("lvm.tar.xz", tmp_path_factory.mktemp("lvm")).values())


@pytest.fixture(scope="module")
def disks(paths: list[Path]) -> list[FileDevice]:
    """The five disks of one group."""
    return [FileDevice(path, number) for number, path in enumerate(paths[:5])]


@pytest.fixture(scope="module")
def found(disks: list[FileDevice]) -> dict[str, Found]:
    return found_in(*disks)


def content(found: Found) -> bytes:
    assert not found.volume.problem
    return found.volume.device.read_at(0, found.volume.device.size)


def patched(size: int, *pieces: tuple[str, int, int]) -> bytes:
    """Return zeros with the sectors `first` to `stop` of a name laid over them, one by one."""
    data = bytearray(size)
    for name, first, stop in pieces:
        data[first * 512 : stop * 512] = sectors(name, first, stop)
    return bytes(data)


@pytest.mark.parametrize("name", WHOLE)
def test_a_volume_of_any_layout_is_what_the_kernel_has_written(
    found: dict[str, Found], disks: list[FileDevice], name: str
) -> None:
    device = found[f"vg-one-{name}"].volume.device

    assert device.size > 0
    assert device.read_at(0, device.size) == sectors(name, 0, device.size // 512)
    assert by_extents(device, disks) == sectors(name, 0, device.size // 512)


def test_a_snapshot_is_its_origin_as_it_was_with_what_was_written_to_it(
    found: dict[str, Found], disks: list[FileDevice]
) -> None:
    origin, before = found["vg-one-raid0"], found["vg-one-before"].volume.device

    assert content(origin) == patched(512 << 10, ("raid0", 0, 1024), ("later", 100, 140))
    expected = patched(512 << 10, ("raid0", 0, 1024), ("own", 500, 508))
    assert before.read_at(0, before.size) == expected
    assert by_extents(before, disks) == expected


def test_a_thin_volume_and_its_snapshot_are_told_apart(
    found: dict[str, Found], disks: list[FileDevice]
) -> None:
    thin, snapshot = found["vg-one-thin"].volume.device, found["vg-one-thinsnap"].volume.device

    then = [("thin", first, stop) for first, stop in THIN]
    now = then + [("later", first, stop) for first, stop in LATER]
    assert thin.read_at(0, thin.size) == patched(64 << 20, *now)
    assert snapshot.read_at(0, snapshot.size) == patched(64 << 20, *then)
    assert by_extents(snapshot, disks) == patched(64 << 20, *then)
    assert found["vg-one-thin"].disks == found["vg-one-thinsnap"].disks == (0, 3)


def test_a_thin_volume_that_was_never_written_is_one_hole(found: dict[str, Found]) -> None:
    (extent,) = found["vg-one-untouched"].volume.device.extents(0, 1 << 60)

    assert extent == (1 << 20, -1, 0)


def test_what_only_a_cache_may_hold_is_not_shown(found: dict[str, Found]) -> None:
    assert "writeback" in found["vg-one-behind"].problem


def test_pools_and_parts_of_volumes_are_not_shown(found: dict[str, Found]) -> None:
    names = {path.removeprefix("vg-one-") for path in found if path.startswith("vg-one-")}

    assert names == {
        *WHOLE,
        *("raid0", "before", "thin", "thinsnap", "untouched", "behind"),
    }
    assert all(one.member_of == "lvm" for path, one in found.items() if path.startswith("xvd"))


def test_a_volume_names_the_disk_that_it_misses(disks: list[FileDevice]) -> None:
    third = physical(disks[2]).uuid

    found = found_in(*disks[:2], *disks[3:])

    assert third in found["vg-one-linear"].problem
    assert "/dev/loop3" in found["vg-one-linear"].problem
    assert third in found["vg-one-striped"].problem


@pytest.mark.parametrize("missing", range(5))
def test_mirrors_and_parity_bear_a_missing_disk(disks: list[FileDevice], missing: int) -> None:
    left = [disk for number, disk in enumerate(disks) if number != missing]

    found = found_in(*left)

    for name in WHOLE:
        if name.startswith(("raid", "mirror")):
            data = content(found[f"vg-one-{name}"])
            assert data == sectors(name, 0, len(data) // 512), name


@pytest.mark.parametrize("missing", range(5))
def test_a_mirror_without_its_first_leg_is_a_doubt(disks: list[FileDevice], missing: int) -> None:
    (extent,) = found_in(*disks)["vg-one-mirror"].volume.device.extents(0, 512)

    found = found_in(*[disk for number, disk in enumerate(disks) if number != missing])

    assert ("doubt" in found["vg-one-mirror"].volume.notes) == (extent.disk == missing)
    assert "doubt" not in found["vg-one-raid1"].volume.notes


def test_what_is_being_moved_is_not_shown_without_the_disk_that_it_is_moved_from(
    disks: list[FileDevice],
) -> None:
    (extent,) = found_in(*disks)["vg-one-mirror"].volume.device.extents(0, 512)
    others = [disk for number, disk in enumerate(disks) if number != extent.disk]
    left = [BytesDevice(bytearray(disk.read_at(0, disk.size))) for disk in others]
    for disk in left:
        rewrite(disk, moving)

    assert "is missing" in found_in(*left)["vg-one-mirror"].volume.problem


def moving(text: str) -> str:
    """Return the metadata with its mirror as what pvmove(8) makes for a while."""
    place = text.index("status", text.index("mirror {"))
    return text[:place] + text[place:].replace('["READ", ', '["PVMOVE", "READ", ', 1)


def test_a_thin_pool_of_another_time_than_its_group_is_a_doubt(disks: list[FileDevice]) -> None:
    before = found_in(*disks)["vg-one-thin"].volume.notes
    bent = [BytesDevice(bytearray(disk.read_at(0, disk.size))) for disk in disks]
    for disk in bent:
        rewrite(disk, lambda text: re.sub("transaction_id = [0-9]+", "transaction_id = 0", text))

    found = found_in(*bent)

    assert "doubt" not in before
    for name in ("thin", "thinsnap"):
        assert "different times" in found[f"vg-one-{name}"].volume.notes["doubt"]
    assert "doubt" not in found["vg-one-linear"].volume.notes


def test_two_groups_of_one_name_are_told_apart_by_their_uuid(paths: list[Path]) -> None:
    found = found_in(*[FileDevice(path, number) for number, path in enumerate(paths)])
    linear = {path: one for path, one in found.items() if path.endswith("-linear")}

    one, two = linear.values()
    assert {path.split(".")[0] for path in linear} == {"vg-one"}
    assert content(one) == sectors("linear", 0, 4096)
    assert content(two) == sectors("other", 0, 1024)


def test_the_newest_metadata_counts(disks: list[FileDevice]) -> None:
    data = BytesDevice(bytearray(disks[0].read_at(0, disks[0].size)))
    rewrite(data, lambda text: text.replace("seqno = ", "seqno = 1").replace("raid10 {", "ten {"))

    assert "vg-one-ten" in found_in(data, *disks[1:])
    rewrite(data, lambda text: text.replace("seqno = 1", "seqno = 1 #"))
    assert "vg-one-raid10" in found_in(data, *disks[1:])


def test_a_disk_whose_metadata_is_damaged_is_told_by_the_others_or_says_so(
    disks: list[FileDevice],
) -> None:
    bent = [BytesDevice(bytearray(disk.read_at(0, disk.size)), at) for at, disk in enumerate(disks)]
    for number in (0, 1):
        bent[number].data[PHYSICAL_METADATA] ^= 1  # type: ignore[index]

    helped, alone = found_in(bent[0], *disks[1:]), found_in(bent[0], bent[1])

    assert content(helped["vg-one-linear"])
    assert not any("unknown" in path for path in helped)
    assert "checksum" in alone["lvm-unknown"].problem
    assert alone["lvm-unknown (2)"].disks == (1,)


def test_of_two_copies_of_a_disk_the_newer_one_counts(disks: list[FileDevice]) -> None:
    old = BytesDevice(bytearray(disks[0].read_at(0, disks[0].size)), 5)
    rewrite(old, lambda text: text.replace("seqno = ", "seqno = 1 #"))
    old.data[1 << 20 :] = bytes(len(old.data) - (1 << 20))  # type: ignore[index]

    for order in ([old, *disks], [*disks, old]):
        found = found_in(*order)
        assert content(found["vg-one-linear"]) == sectors("linear", 0, 4096)
        assert found["lvm-unknown"].disks == (order.index(old),)
        assert "copy" in found["lvm-unknown"].problem


def test_a_disk_that_is_there_twice_leaves_a_doubt(disks: list[FileDevice]) -> None:
    clone = BytesDevice(disks[0].read_at(0, disks[0].size), 5)

    found = found_in(*disks, clone)

    assert content(found["vg-one-linear"]) == sectors("linear", 0, 4096)
    assert "more than once" in found["vg-one-linear"].volume.notes["doubt"]
    assert found["lvm-unknown"].disks == (5,)
    assert not any("doubt" in one.volume.notes for one in found_in(*disks).values())


@pytest.mark.parametrize("newer", [0, 1])
def test_of_two_areas_on_one_disk_the_newer_one_counts(disks: list[FileDevice], newer: int) -> None:
    data = BytesDevice(bytearray(disks[0].read_at(0, disks[0].size)))
    assert isinstance(data.data, bytearray)
    places = (PHYSICAL_METADATA, len(data.data) - (250 << 10))
    list_an_area(data.data, places[1], 250 << 10)
    text = physical(data).texts[0]
    for at, place in enumerate(places):
        number = "seqno = 1" if at == newer else "seqno = 1 #"
        names = f"raid10_of_{at} {{" if at == newer else "raid10 {"
        put_area(data.data, place, text.replace("seqno = ", number).replace("raid10 {", names))

    found = found_in(data, *disks[1:])

    assert f"vg-one-raid10_of_{newer}" in found


def list_an_area(data: bytearray, at: int, size: int) -> None:
    """Add an area of metadata to those that the label of a disk tells."""
    label = data.index(b"LABELONE")
    (start,) = struct.unpack_from("<I", data, label + 20)
    place, lists = label + start + 40, 0
    while True:
        is_end = struct.unpack_from("<QQ", data, place) == (0, 0)
        if is_end and lists == 1:
            break
        lists += is_end
        place += 16
    rest = bytes(data[place : label + 512 - 16])
    struct.pack_into("<QQ", data, place, at, size)
    data[place + 16 : label + 512] = rest
    struct.pack_into("<I", data, label + 16, checksum(bytes(data[label + 20 : label + 512])))


def put_area(data: bytearray, at: int, text: str) -> None:
    """Write an area of metadata that holds `text`."""
    size = 250 << 10 if at != PHYSICAL_METADATA else struct.unpack_from("<Q", data, at + 32)[0]
    new = text.encode()
    header = bytearray(512)
    struct.pack_into("<16sIQQ", header, 4, b" LVM2 x[5A%r0N*>", 1, at, size)
    struct.pack_into("<QQII", header, 40, 512, len(new), checksum(new), 0)
    struct.pack_into("<I", header, 0, checksum(bytes(header[4:])))
    data[at : at + 512] = header
    data[at + 512 : at + 512 + len(new)] = new


def test_what_a_snapshot_is_being_merged_into_is_not_shown(disks: list[FileDevice]) -> None:
    data = BytesDevice(bytearray(disks[0].read_at(0, disks[0].size)))
    rewrite(
        data,
        lambda text: text.replace("seqno = ", "seqno = 1").replace("cow_store", "merging_store"),
    )

    found = found_in(data, *disks[1:])

    assert "merged into raid0" in found["vg-one-raid0"].problem
    assert "merged" in found["vg-one-before"].problem
    assert content(found["vg-one-raid5"])


def test_snapshots_that_have_changed_too_much_together_are_refused_alone(
    disks: list[FileDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lvm_map, "CHANGED_ALL", 4)

    found = found_in(*disks)

    assert "more than 4 chunks have changed" in found["vg-one-before"].problem
    assert content(found["vg-one-raid0"])


def test_a_raid_that_misses_too_much_names_what_it_misses(disks: list[FileDevice]) -> None:
    uuids = [physical(disk).uuid for disk in disks]

    alone = found_in(disks[3])

    for name in ("raid1", "raid5", "raid6", "raid10"):
        problem = alone[f"vg-one-{name}"].problem
        assert any(uuid in problem for uuid in uuids), problem


@pytest.mark.parametrize(
    ("doubt", "reason"),
    [
        ("stale", "nothing tells where parity may be out of date"),
        ("resync", "not yet synchronized"),
    ],
)
def test_parity_that_may_be_out_of_date_does_not_stand_in_for_a_disk(
    disks: list[FileDevice], doubt: str, reason: str
) -> None:
    bent = [BytesDevice(bytearray(disk.read_at(0, disk.size)), at) for at, disk in enumerate(disks)]
    for one in bent:
        assert isinstance(one.data, bytearray)
        at = one.data.find(b"DmRd")
        while at >= 0:
            if doubt == "resync":
                struct.pack_into("<Q", one.data, at + 40, 4096)
            elif one.data[at + 4096 : at + 4100] == b"bitm":
                one.data[at + 4096 + 48] |= 1
            at = one.data.find(b"DmRd", at + 1)

    whole = found_in(*bent)

    refused = 0
    for name in ("raid4", "raid5", "raid5_n", "raid6", "raid6_nr"):
        assert content(whole[f"vg-one-{name}"]) == content(found_in(*disks)[f"vg-one-{name}"])
    for missing in range(5):
        left = found_in(*bent[:missing], *bent[missing + 1 :])
        refused += reason in left["vg-one-raid5"].problem
        if doubt != "resync":
            assert content(left["vg-one-raid1"]) == content(whole["vg-one-raid1"])
        elif missing < 2:
            assert reason in left["vg-one-raid1"].problem
    assert refused == 3  # those that it lies on


def test_parity_is_not_used_where_a_write_was_under_way(disks: list[FileDevice]) -> None:
    bent = [BytesDevice(bytearray(disk.read_at(0, disk.size)), at) for at, disk in enumerate(disks)]
    for one in bent:
        assert isinstance(one.data, bytearray)
        at = one.data.find(b"DmRd")
        while at >= 0:
            if one.data[at + 4096 : at + 4100] == b"bitm":
                struct.pack_into("<QII", one.data, at + 4096 + 40, 512, 0, 32 << 10)
                one.data[at + 4096 + 256] = 1  # eight regions, and a write under way in the first
            at = one.data.find(b"DmRd", at + 1)

    left = found_in(*bent[1:])["vg-one-raid5"].volume.device

    whole = sectors("raid5", 0, left.size // 512)
    assert left.read_at(64 << 10, left.size) == whole[64 << 10 :]
    with pytest.raises(Damaged, match="may be out of date there"):
        left.read_at(0, 64 << 10)
    assert found_in(*bent)["vg-one-raid5"].volume.device.read_at(0, left.size) == whole


@pytest.mark.parametrize(
    ("start", "stop", "is_covered"),
    [
        (0, 1, False),
        (4095, 4097, True),
        (8191, 8192, True),
        (8192, 9000, False),
        (99, 1 << 60, True),
    ],
)
def test_a_doubt_covers_its_regions_and_no_more(start: int, stop: int, is_covered: bool) -> None:
    assert dm_raid.Doubt(b"\x02\0", 4096).covers(start, stop) is is_covered


def test_a_disk_that_was_away_counts_as_missing(disks: list[FileDevice]) -> None:
    data = BytesDevice(bytearray(disks[0].read_at(0, disks[0].size)))
    uuid = physical(data).uuid
    rewrite(
        data,
        lambda text: text.replace("seqno = ", "seqno = 1").replace(
            "flags = []\ndev_size = 32768\npe_start = 512\npe_count = 252\n}\n\npv1",
            'flags = ["MISSING"]\ndev_size = 32768\npe_start = 512\npe_count = 252\n}\n\npv1',
        ),
    )

    found = found_in(data, *disks[1:])

    assert uuid in found["vg-one-linear"].problem
    assert "was away" in found["vg-one-linear"].problem
    assert content(found["vg-one-raid5"])


def rewrite(disk: BytesDevice, change: Callable[[str], str]) -> None:
    """Let the metadata of a physical volume be what `change` makes of it, with its checksums."""
    assert isinstance(disk.data, bytearray)
    new = change(physical(disk).texts[0]).encode()
    where = PHYSICAL_METADATA + 512
    disk.data[where : where + len(new)] = new
    header = disk.data[PHYSICAL_METADATA : PHYSICAL_METADATA + 512]
    struct.pack_into("<QQII", header, 40, 512, len(new), checksum(new), 0)
    struct.pack_into("<I", header, 0, checksum(bytes(header[4:])))
    disk.data[PHYSICAL_METADATA : PHYSICAL_METADATA + 512] = header


@pytest.mark.parametrize(
    "text",
    [
        "a {" * (DEPTH_MAX + 5),
        "a {" * 1_000_000,
        "a = [" * 1_000_000,
        'a = "' + "\\" * 999_999,
        "a = " + "9" * 100_000,
        "a = [1, 2",
        "a { b = }",
        "= 3",
        "\0",
    ],
    ids=repr,
)
def test_text_that_is_not_lvms_is_damaged(text: str) -> None:
    with pytest.raises(Damaged):
        parsed(text)


def test_text_is_understood_as_lvm_writes_it() -> None:
    text = '# a comment\nvg { id = "a-\\"b\\"" n = -3 # more\n list = ["x", 5,\n "y"] e = [] s {} }'

    assert parsed(text) == {"vg": {"id": 'a-"b"', "n": -3, "list": ["x", 5, "y"], "e": [], "s": {}}}


def test_a_volume_that_lies_over_itself_is_damaged(disks: list[FileDevice]) -> None:
    data = BytesDevice(bytearray(disks[0].read_at(0, disks[0].size)))
    rewrite(
        data,
        lambda text: (
            text.replace("seqno = ", "seqno = 1")
            .replace('"mirror_mimage_0", 0', '"mirror", 0')
            .replace('"mirror_mimage_1", 0', '"mirror", 0')
        ),
    )

    found = found_in(data, *disks[1:])

    assert "over more than" in found["vg-one-mirror"].problem


def header(position: int, events: int, failed: int = 0, recovered: int = dm_raid.WHOLE) -> Device:
    """Return the superblock of a member of a RAID."""
    told = (position, events, failed, recovered, dm_raid.WHOLE)
    return BytesDevice(struct.pack("<4sIIIQQQQ", b"DmRd", 0, 3, *told))


@pytest.mark.parametrize(
    ("headers", "fit"),
    [
        ([header(0, 9), header(1, 9), header(2, 9)], [True, True, True]),
        ([header(0, 9), header(1, 8), header(2, 9)], [True, True, True]),
        ([header(0, 9), header(1, 7), header(2, 9)], [True, False, True]),
        ([header(0, 9, failed=4), header(1, 9), header(2, 8)], [True, True, False]),
        ([header(0, 9), header(1, 9, recovered=4096), header(2, 9)], [True, False, True]),
        ([header(1, 9), header(1, 9), None], [False, True, False]),
        ([header(0, 9), BytesDevice(b""), header(2, 9)], [True, False, True]),
        ([BytesDevice(bytes(512)), None], [True, False]),
    ],
    ids=["all", "died while writing", "away", "failed", "recovering", "swapped", "lost", "new"],
)
def test_a_member_of_a_raid_is_trusted_by_its_superblock(
    headers: list[Device | None], fit: list[bool]
) -> None:
    assert trusted(headers) == fit


def node(number: int, flags: int, entries: list[tuple[int, int]]) -> bytes:
    """Return a node of a thin pool's tree."""
    most = 252
    body = struct.pack("<IQIIII", flags, number, len(entries), most, 8, 0)
    body += struct.pack(f"<{most}Q", *([key for key, _ in entries] + [0] * (most - len(entries))))
    body += struct.pack(f"<{len(entries)}Q", *[value for _, value in entries])
    body = body.ljust(NODE - 4, b"\0")
    return struct.pack("<I", plain_crc32c(body) ^ NODE_XOR) + body


def pool(*nodes: bytes) -> Device:
    """Return the metadata of a pool whose first node is the root."""
    body = struct.pack("<IQ16sQIIQQ", 0, 0, b"", 27022010, 2, 0, 0, 0) + bytes(256)
    body += struct.pack("<QQIIQ", 1, 0, 128, 8, 1 + len(nodes))
    body = body.ljust(NODE - 4, b"\0")
    superblock = struct.pack("<I", plain_crc32c(body) ^ SUPERBLOCK_XOR) + body
    return BytesDevice(superblock + b"".join(nodes))


@pytest.mark.parametrize(
    "nodes",
    [
        [node(1, 2, [(1, 2)]), node(2, 1, [(0, 2)])],
        [node(1, 2, [(1, 2)]), node(2, 1, [(0, 3), (5, 2)]), node(3, 2, [(0, 0)])],
        [node(1, 2, [(1, 2)]), node(2, 2, [(5, 0), (4, 0)])],
        [node(1, 2, [(1, 2)]), node(2, 1, [(0, 3)]), node(3, 2, [])],
        [node(1, 2, [(1, 2)]), node(2, 2, [(0, 1 << 63)])],
        [node(1, 2, [(1, 1 << 60)])],
        [node(1, 2, [(2, 2)])],
        [node(1, 1, [(1, 1)])],
        [node(1, 2, [(1, 2)]), node(7, 2, [])],
    ],
    ids=[
        *("own child", "child again", "order", "empty child", "data far away", "root far away"),
        *("no device", "own root", "other block"),
    ],
)
def test_trees_of_a_thin_pool_that_cannot_be_are_damaged(nodes: list[bytes]) -> None:
    with pytest.raises(Damaged):
        thin = Thin(Pool(pool(*nodes), BytesDevice(bytes(1 << 20))), 1, 1 << 60)
        thin.read_at(0, 1 << 20)


def test_bent_disks_are_damaged_and_no_more(paths: list[Path]) -> None:
    whole = [path.read_bytes() for path in paths[:5]]
    ends = [0, 2 << 10, 4096, 300 << 10]  # labels, and metadata
    random = Random(7)

    for _ in range(20):
        data = [BytesDevice(one, number) for number, one in enumerate(whole)]
        for number in random.sample(range(5), 2):
            bent = bytearray(whole[number])
            for _ in range(random.randrange(1, 8)):
                bent[random.randrange(*random.choice([ends[:2], ends[2:]]))] = random.randrange(256)
            if random.random() < 0.2:
                del bent[random.randrange(len(bent)) :]
            data[number] = BytesDevice(bent, number)
        for one in found_in(*data).values():
            read_ends(one.volume.device)


def test_bent_text_with_right_checksums_is_damaged_and_no_more(paths: list[Path]) -> None:
    whole = [path.read_bytes() for path in paths[:5]]
    disks = [BytesDevice(one, number) for number, one in enumerate(whole)]
    random = Random(8)
    text = physical(disks[0]).texts[0].replace("seqno = ", "seqno = 1")
    words = ["0", "1", str(1 << 60), '"pv0"', '"thin"', '"raid5"', "[]", "{", "}", "[", '"', "="]
    marks = [at for at, char in enumerate(text) if char in '="[{0123456789']

    for _ in range(30):
        bent = text
        for at in sorted(random.sample(marks, random.randrange(1, 5)), reverse=True):
            bent = bent[:at] + random.choice(words) + bent[at + random.randrange(3) :]
        data = BytesDevice(bytearray(whole[0]))
        rewrite(data, lambda _, bent=bent: bent)  # type: ignore[misc]
        for one in found_in(data, *disks[1:]).values():
            assert one.volume.device.size >= 0
            read_ends(one.volume.device)


def test_a_group_needs_all_that_its_volumes_are_told_by() -> None:
    with pytest.raises(Damaged):
        group('vg { id = "x" seqno = 1 extent_size = 0 physical_volumes { } }')
    with pytest.raises(Damaged):
        group('vg { id = "x" seqno = "1" extent_size = 8 physical_volumes { } }')
    assert group('vg { id = "x" seqno = 1 extent_size = 8 physical_volumes { } }').logical == {}
