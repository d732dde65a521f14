"""What was synchronized on a btrfs after its last transaction is there: all of it, or none."""

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.disks import BytesDevice, FileDevice
from support.file_systems import Seen, all_children, seen_before, seen_by_us, unpacked

from backgate.fs.volume import FileSystem, Node
from backgate.fs.volumes import btrfs_log, btrfs_replay, replay
from backgate.fs.volumes.btrfs import Btrfs
from backgate.fs.volumes.btrfs_changed import ChangedTrees
from backgate.fs.volumes.btrfs_data import ALGORITHMS, KIND, OBJECT
from backgate.fs.volumes.btrfs_extents import Checksums, Extents
from backgate.fs.volumes.btrfs_log import DIR_INDEX, DIR_RANGE, EXTENT, INODE, Log, Logs
from backgate.fs.volumes.btrfs_names import ALLOCATED, INODE_SIZE, Subvolume, word
from backgate.gateway.errors import Damaged

IMAGES = ["btrfs-crashed", "btrfs-crashed-small-nodes", "btrfs-crashed-compressed"]
SMALL = "btrfs-crashed-small-nodes"
SUPER_AT, LOG_ROOT_AT, SUPER_SIZE = 65536, 96, 4096
GENERATION_AT, ITEMS_AT, HEADER = 80, 96, 101  # in a block of a tree
SECTOR = 4096
FEW, MANY = 30, 3000  # logs with something else in them


class Blocks(Logs):
    """The logs, and where their blocks lie."""

    def __init__(self, tree: Any) -> None:
        self.addresses: list[int] = []
        super().__init__(tree)

    def _block(self, address: int, level: int) -> Any:
        self.addresses.append(address)
        return super()._block(address, level)


class Image:
    """A crashed image whose log can be changed; its blocks have the right checksums again."""

    def __init__(self, path: Path) -> None:
        self.data = bytearray(path.read_bytes())
        tree = unreplayed(self.data)
        self.size, self.kind = tree.sb.nodesize, tree.sb.csum_type
        self.blocks = [
            tree.lra.cmap.find(address).phys + address - tree.lra.cmap.find(address).logical
            for address in Blocks(tree).addresses
        ]

    def change(self, at: int, bytes_of: Callable[[bytearray], None], size: int = 0) -> None:
        block = self.data[at : at + (size or self.size)]
        bytes_of(block)
        width, digest = ALGORITHMS[self.kind]
        block[:width] = digest(bytes(block[32:]))
        self.data[at : at + len(block)] = block

    def opened(self) -> Btrfs:
        return Btrfs(BytesDevice(self.data))


def unreplayed(data: bytearray) -> Any:
    """Return the library's tree of an image."""
    opened = Btrfs.__new__(Btrfs)
    opened._access = Btrfs(BytesDevice(data))._access
    tree = opened._opened()
    tree.trees = ChangedTrees(tree.trees)  # without changes
    return tree


@pytest.fixture
def small(tmp_path: Path) -> Image:
    return Image(unpacked(SMALL, tmp_path))


def comparable(all_of: Mapping[bytes, Seen]) -> dict[bytes, Seen]:
    """Without the subvolume, by which the kernel does not number inodes."""
    return {path: replace(one, inode=one.inode & 2**64 - 1) for path, one in all_of.items()}


def last_transaction(image: Image) -> dict[bytes, Seen]:
    """Return what is there without any log."""
    before = image.data[SUPER_AT : SUPER_AT + SUPER_SIZE]

    def without_log(block: bytearray) -> None:
        block[LOG_ROOT_AT : LOG_ROOT_AT + 8] = bytes(8)

    image.change(SUPER_AT, without_log, SUPER_SIZE)
    system = image.opened()
    assert system.notes[replay.STATE] == replay.CLEAN
    seen = seen_by_us(system)
    image.data[SUPER_AT : SUPER_AT + SUPER_SIZE] = before
    return seen


@pytest.mark.parametrize("name", IMAGES)
def test_a_log_is_replayed_as_the_kernel_replays_it(name: str, tmp_path: Path) -> None:
    image = unpacked(name, tmp_path)
    system = Btrfs(FileDevice(image))
    assert system.notes[replay.JOURNAL].startswith("replayed: ")
    assert system.notes["format"] == "Btrfs"

    seen, expected = comparable(seen_by_us(system)), seen_before(name, tmp_path)

    for path, one in expected.items():
        if not one.ctime_ns:  # the recovery made it up
            expected[path] = replace(one, ctime_ns=seen[path].ctime_ns)
    assert seen.keys() == expected.keys()
    assert {path: seen[path] for path in seen if seen[path] != expected[path]} == {}
    assert b"directory/below/new/file" in seen
    assert b"never synchronized" not in seen


@pytest.mark.slow
def test_names_are_found_one_by_one_as_they_are_listed(tmp_path: Path) -> None:
    image = unpacked(SMALL, tmp_path)
    listed = Btrfs(FileDevice(image))

    for directory, node in every_node(listed):
        found = Btrfs(FileDevice(image)).child(directory.handle, node.name)
        assert found == node


def every_node(system: FileSystem) -> Iterator[tuple[Node, Node]]:
    """Give some nodes, of the first directories, with the directory in which they are."""
    top = system.root()
    for node in all_children(system, top):
        yield top, node
        if node.mode & 0o040000:
            yield from ((node, below) for below in list(all_children(system, node))[:2])


@pytest.mark.slow
def test_a_damaged_block_of_the_log_leaves_the_last_transaction(small: Image) -> None:
    expected = last_transaction(small)
    assert len(small.blocks) > 10
    for at in small.blocks:
        small.data[at + small.size - 1] ^= 1

        system = small.opened()

        assert replay.NOT_REPLAYED in system.notes[replay.JOURNAL]
        assert "checksum mismatch" in system.notes[replay.JOURNAL]
        assert seen_by_us(system) == expected
        small.data[at + small.size - 1] ^= 1
    assert seen_by_us(small.opened()) != expected


@pytest.mark.slow
def test_without_its_first_superblock_nobody_knows_of_a_log(tmp_path: Path) -> None:
    image = Image(unpacked("btrfs-crashed", tmp_path))
    expected = last_transaction(image)
    image.data[SUPER_AT + SUPER_SIZE - 1] ^= 1

    system = image.opened()

    assert system.notes[replay.STATE] == "its first superblock is damaged"
    assert replay.NOT_REPLAYED in system.notes[replay.JOURNAL]
    assert seen_by_us(system) == expected


def another_generation(block: bytearray) -> None:
    block[GENERATION_AT] ^= 1


def another_kind(block: bytearray) -> None:
    """Make the kind of the last item one that no log has."""
    count = int.from_bytes(block[ITEMS_AT : ITEMS_AT + 4], "little")
    block[HEADER + 25 * (count - 1) + 8] = 200


def another_subvolume(block: bytearray) -> None:
    count = int.from_bytes(block[ITEMS_AT : ITEMS_AT + 4], "little")
    struct.pack_into("<Q", block, HEADER + 25 * (count - 1) + 9, 9999)


@pytest.mark.parametrize(
    ("change", "block", "reason"),
    [
        (another_generation, 0, "is not of this log"),
        (another_generation, -1, "is not of this log"),
        (another_kind, 0, "has an item that is none of a log"),
        (another_kind, -1, "an item of kind 200 is in the log"),
        (another_subvolume, 0, "there is a log of subvolume 9999, which is not there"),
    ],
)
def test_a_log_that_is_not_understood_leaves_the_last_transaction(
    change: Callable[[bytearray], None], block: int, reason: str, small: Image
) -> None:
    expected = last_transaction(small)
    small.change(small.blocks[block], change)

    system = small.opened()

    assert reason in system.notes[replay.JOURNAL]
    assert replay.NOT_REPLAYED in system.notes[replay.JOURNAL]
    assert seen_by_us(system) == expected


@pytest.mark.parametrize(
    ("module", "limit", "reason"),
    [(btrfs_log, "LOG_MAX", "more than 0 MiB"), (btrfs_replay, "SECONDS", "more than -1 seconds")],
)
def test_a_log_that_is_too_much_leaves_the_last_transaction(
    module: Any, limit: str, reason: str, small: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = last_transaction(small)
    monkeypatch.setattr(module, limit, 8192 if limit == "LOG_MAX" else -1)

    system = small.opened()

    assert reason in system.notes[replay.JOURNAL]
    assert seen_by_us(system) == expected


@pytest.mark.slow
def test_a_log_with_anything_in_it_is_replayed_or_not(small: Image) -> None:
    replayed = [changed_log(small, Random(number)) for number in range(FEW)]

    assert 0 < sum(replayed) < FEW


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", IMAGES)
def test_many_logs_with_anything_in_them_are_replayed_or_not(name: str, tmp_path: Path) -> None:
    image = Image(unpacked(name, tmp_path))
    replayed = [changed_log(image, Random(f"{name} {number}")) for number in range(MANY)]

    assert 0 < sum(replayed) < MANY


def changed_log(image: Image, chance: Random) -> bool:
    """Change bytes of the log, with right checksums; tell whether it was replayed all the same."""
    places = [chance.choice(image.blocks) for _ in range(chance.choice((1, 1, 2, 5)))]
    before = {at: image.data[at : at + image.size] for at in places}
    for at in places:
        image.change(at, lambda block: bend(block, chance))
    try:
        system = image.opened()
        read_what_can_be_read(system)
        return replay.NOT_REPLAYED not in system.notes[replay.JOURNAL]
    finally:
        for at, block in before.items():
            image.data[at : at + image.size] = block


def bend(block: bytearray, chance: Random) -> None:
    """Change what is used of a block, mostly: keys at its beginning, items at its end."""
    near = min(int(chance.expovariate(0.002)), len(block) - HEADER - 8)
    at = chance.choice((HEADER + near, len(block) - 8 - near))
    width = chance.choice((1, 1, 2, 4, 8))
    block[at : at + width] = chance.choice(
        (chance.randbytes(width), b"\xff" * width, bytes(width), b"\x01".rjust(width, b"\0"))
    )


def read_what_can_be_read(system: FileSystem) -> None:
    left, seen = [system.root()], 0
    while left and seen < 2000:
        node = left.pop()
        try:
            if node.mode & 0o170000 == 0o040000:
                children = list(all_children(system, node))
                left, seen = left + children, seen + len(children)
            elif node.mode & 0o170000 == 0o100000 and not node.problem:
                system.read_at(node.handle, 0, 65536)
            system.xattrs(node.handle)
        except Damaged as error:
            assert error.reason


# The parts of it, with models.


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return unreplayed(bytearray(unpacked(SMALL, tmp_path_factory.mktemp("tree")).read_bytes()))


@given(st.data())
def test_changed_items_are_found_as_those_on_the_disk_are(tree: Any, data: st.DataObject) -> None:
    trees, root = ChangedTrees(tree.trees), tree.subvol_root(256)[0]
    owner, kind = 256, DIR_INDEX
    model = {key[2]: item for key, item in tree.trees.iter_range(root, owner, kind)}
    assert len(model) == 40
    places = st.integers(0, 60)
    for offset, item in data.draw(st.lists(st.tuples(places, st.none() | st.binary(min_size=1)))):
        trees.change(root, (owner, kind, offset), item)
        model |= {offset: item} if item is not None else {}
        if item is None:
            model.pop(offset, None)

    start, asked = data.draw(places), sorted(data.draw(st.sets(places)))
    found = [(key[2], item) for key, item in trees.iter_range(root, owner, kind, start)]
    last = trees.last(root, (owner, kind, start))
    many = trees.get_many(root, [(owner, kind, offset) for offset in asked])

    assert found == sorted((offset, item) for offset, item in model.items() if offset >= start)
    expected = max((offset for offset in model if offset <= start), default=None)
    assert (last and last[0][2]) == expected
    assert {key[2]: item for key, item in many.items()} == {
        offset: model[offset] for offset in asked if offset in model
    }
    assert [trees.get(root, (owner, kind, offset)) for offset in asked] == [
        model.get(offset) for offset in asked
    ]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (13, "inode 257 has very many names in one directory"),
        (36, "an item of kind 36 is in the log"),
        (EXTENT, "an item of kind 108 is in the log without its inode"),
    ],
)
def test_an_item_that_is_not_understood_is_named(kind: int, reason: str) -> None:
    with pytest.raises(Damaged, match=reason):
        Log().add((257, kind, 0), b"")


def test_stretches_of_a_directory_that_lie_in_others_are_gone_through_once() -> None:
    log = Log({(256, INODE, 0): bytes(INODE_SIZE)})
    for first, last in [(2, 6), (4, 4), (5, 6), (8, 2**64 - 1), (9, 9)]:
        log.add((256, DIR_RANGE, first), struct.pack("<Q", last))

    assert list(log.stretches(256)) == [(2, 6), (8, 2**64 - 1)]
    assert list(log.stretches(257)) == []
    with pytest.raises(Damaged, match="ends before it begins"):
        log.add((256, DIR_RANGE, 10), struct.pack("<Q", 9))


def extent(address: int, skipped: int, length: int) -> bytes:
    stored = skipped + length if address else 0
    return struct.pack("<QQBBHBQQQQ", 1, stored, 0, 0, 0, 1, address, stored, skipped, length)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12), st.booleans())), st.booleans())
def test_extents_lie_where_they_were_put_last(
    tree: Any, placed: list[tuple[int, int, bool]], holes: bool
) -> None:
    number, trees = 99_999, ChangedTrees(tree.trees)
    files = Subvolume(trees, tree.subvol_root(5)[0], 1)
    files.set((number, INODE, 0), bytes(INODE_SIZE))
    sums = Checksums(Subvolume(trees, tree.subvol_root(7)[0], 1), SECTOR, 8, 4096)
    extents = Extents(files, Log(), sums, SECTOR, holes)
    model: dict[int, int] = {}  # by sector of the file, where it lies

    for turn, (first, length, is_hole) in enumerate(placed, 1):
        address = 0 if is_hole else turn << 30
        extents.place(number, first * SECTOR, extent(address, SECTOR, length * SECTOR))
        for sector in range(length):
            model[first + sector] = address and address + (1 + sector) * SECTOR

    found: dict[int, int] = {}
    for key, item in files.items(number, EXTENT):
        address, _, skipped, length = struct.unpack_from("<21xQQQQ", item)
        for at in range(0, length, SECTOR):
            assert (key[2] + at) // SECTOR not in found
            found[(key[2] + at) // SECTOR] = address and address + skipped + at
    if not holes:
        model = {sector: address for sector, address in model.items() if address}
    assert found == model
    allocated = SECTOR * sum(address > 0 for address in model.values())
    assert word(files.inode(number), ALLOCATED) == allocated


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12)), max_size=8))
def test_checksums_are_those_that_were_put_last(tree: Any, taken: list[tuple[int, int]]) -> None:
    trees, base, width = ChangedTrees(tree.trees), 1 << 50, 8
    stored = Subvolume(trees, tree.subvol_root(7)[0], 1)
    checksums = Checksums(stored, SECTOR, width, tree.sb.nodesize)
    model: dict[int, bytes] = {}

    for turn, (first, count) in enumerate(taken):
        sums = [bytes([turn, sector, 0, 0, 0, 0, 0, 0]) for sector in range(count + 2)]
        start = base + first * SECTOR
        logged = [(start - SECTOR, b"".join(sums))]  # with one before and one behind
        checksums.take(logged, start, start + count * SECTOR)
        model |= {first + sector: sums[sector + 1] for sector in range(count)}

    found: dict[int, bytes] = {}
    for key, item in stored.items(OBJECT, KIND, base):
        for at in range(0, len(item), width):
            sector = (key[2] - base) // SECTOR + at // width
            assert sector not in found
            found[sector] = item[at : at + width]
    assert found == model
