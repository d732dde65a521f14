"""What ext4 committed fast is read whole or not at all, and makes of its files what they were."""

import os
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from struct import pack

import pytest
from fs_explorer.io.blockmap import Extent
from fs_explorer.io.view import BufferRA
from hypothesis import given
from hypothesis import strategies as st
from support.busy import Busy
from support.disks import BytesDevice, FileDevice
from support.file_systems import (
    Seen,
    all_children,
    loop_mounted,
    run,
    seen_before,
    seen_by_the_kernel,
    seen_by_us,
    unpacked,
)

from backgate.fs.volume import Node
from backgate.fs.volumes import replay
from backgate.fs.volumes.checksums import plain_crc32c
from backgate.fs.volumes.ext import ExtFileSystem
from backgate.fs.volumes.ext_changed import place
from backgate.fs.volumes.ext_changes import Changes, Name
from backgate.fs.volumes.fast_commits import (
    ADD_RANGE,
    CREATE,
    DELETE_RANGE,
    HEAD,
    HOLE,
    INODE,
    LINK,
    PADDING,
    TAIL,
    UNLINK,
    UNWRITTEN,
    Change,
    FastCommits,
    Mapped,
    Named,
    Stored,
)
from backgate.fs.volumes.jbd2 import replay_journal
from backgate.fs.volumes.jbd2_place import SUPER_AT
from backgate.gateway.errors import Damaged

BLOCK = 1024  # bytes
OURS, OLDER = 0xFFFF_FFFF, 0xFFFF_FFFE  # transactions


def tag(number: int, value: bytes) -> bytes:
    return pack("<HH", number, len(value)) + value


def name(what: int, directory: int, inode: int, text: bytes) -> bytes:
    return tag(what, pack("<II", directory, inode) + text)


def head(transaction: int = OURS, features: int = 0) -> bytes:
    return tag(HEAD, pack("<II", features, transaction))


def fast_commit(*tags: bytes, transaction: int = OURS) -> list[bytes]:
    """Return the blocks of one commit; what does not fit in a block is in the next."""
    blocks, crc = [b""], 0
    for one in tags:
        if len(blocks[-1]) + len(one) > BLOCK - 4:
            blocks[-1] += tag(PADDING, bytes(BLOCK - len(blocks[-1]) - 4))
            blocks.append(b"")
        blocks[-1] += one
    length = BLOCK - len(blocks[-1]) - 4
    begun = pack("<HHI", TAIL, length, transaction)
    crc = plain_crc32c(b"".join(blocks) + begun, 0)
    blocks[-1] = (blocks[-1] + begun + pack("<I", crc)).ljust(BLOCK, b"\0")
    return blocks


def read(*blocks: bytes) -> tuple[list[list[Change]], str]:
    area = FastCommits([*blocks, bytes(BLOCK)], OURS)
    return list(area.commits()), area.problem


ONE = fast_commit(head(), name(UNLINK, 2, 12, b"gone"))
TWO = fast_commit(
    name(CREATE, 2, 13, b"x" * 255),
    tag(INODE, pack("<I", 13) + b"i" * 160),
    *(tag(ADD_RANGE, pack("<IIHHI", 13, at, 1, 2, at)) for at in range(200)),
    tag(ADD_RANGE, pack("<IIHHI", 13, 5, 0x8002, 0, 7)),
    tag(DELETE_RANGE, pack("<III", 13, 8, 0xFFFF_FFF0)),
)
THREE = fast_commit(name(LINK, 11, 13, b"\xff"))


def test_each_change_is_told_in_its_order() -> None:
    commits, problem = read(*ONE, *TWO, *THREE)

    assert len(TWO) > 3
    assert problem == ""
    assert commits == [
        [Named(UNLINK, 2, 12, b"gone")],
        [
            Named(CREATE, 2, 13, b"x" * 255),
            Stored(13, b"i" * 160),
            *(Mapped(13, at, 1, 2 << 32 | at) for at in range(200)),
            Mapped(13, 5, 2, UNWRITTEN),
            Mapped(13, 8, 0xFFFF_FFF0, HOLE),
        ],
        [Named(LINK, 11, 13, b"\xff")],
    ]


@pytest.mark.parametrize(
    "left",
    [
        [b"\xff" * BLOCK],
        fast_commit(name(LINK, 2, 2, b"x"), transaction=OLDER),
        fast_commit(head(OLDER), name(LINK, 2, 2, b"x"), transaction=OLDER),
        TWO[:-1],
    ],
    ids=["noise", "an older commit", "an older beginning", "one that has not ended"],
)
def test_what_was_left_behind_the_last_commit_is_not_one(left: list[bytes]) -> None:
    assert read(*ONE, *left) == (read(*ONE)[0], "")


@pytest.mark.parametrize("first", [[], TWO, fast_commit(head(OLDER), transaction=OLDER)])
def test_without_a_head_of_the_last_transaction_there_are_none(first: list[bytes]) -> None:
    assert read(*first) == ([], "")


@pytest.mark.parametrize("at", range(0, BLOCK, 97))
def test_a_commit_that_is_damaged_ends_them_and_is_told(at: int) -> None:
    damaged = bytearray(TWO[1])
    damaged[at] ^= 0x10

    commits, problem = read(*ONE, TWO[0], bytes(damaged), *TWO[2:], *THREE)

    assert commits == read(*ONE)[0]
    assert problem == "one is damaged"


@pytest.mark.parametrize("behind", [0, 12], ids=["head", "tail"])
def test_a_number_of_a_transaction_that_is_damaged_is_told(behind: int) -> None:
    damaged = bytearray(ONE[0])
    damaged[damaged.index(pack("<I", OURS), behind)] ^= 1

    assert read(bytes(damaged), *THREE) == ([], "one is damaged")


def test_a_commit_behind_a_damaged_one_is_not_applied_without_it() -> None:
    damaged = b"\0" * 4 + ONE[0][4:]
    area = [*fast_commit(head(), name(LINK, 2, 11, b"first")), damaged, *THREE]

    commits, problem = read(*area)

    assert commits == [[Named(LINK, 2, 11, b"first")]]
    assert problem == "one is damaged"


def test_features_that_are_not_known_are_told() -> None:
    commits, problem = read(*fast_commit(head(features=4), name(LINK, 2, 11, b"first")))

    assert commits == []
    assert problem == "the features 0x4 are not supported"


def test_more_changes_than_anybody_commits_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backgate.fs.volumes.fast_commits.CHANGES_MAX", 100)

    commits, problem = read(*ONE, *TWO, *THREE)

    assert commits == read(*ONE)[0]
    assert problem == "there are more than 100 changes"


def changed(*commits: list[Change]) -> Changes:
    changes = Changes()
    for one in commits:
        changes.add(one)
    return changes


def test_a_file_moved_over_another_has_its_name() -> None:
    changes = changed(
        [Named(UNLINK, 2, 12, b"b"), Named(LINK, 2, 11, b"b"), Named(UNLINK, 2, 11, b"a")]
    )

    assert changes.names == {2: {b"b": Name(11, {11, 12}), b"a": Name(0, {11})}}
    assert changes.contradictory == set()


def test_nothing_stays_of_the_file_whose_number_a_new_one_has() -> None:
    old = [
        Stored(12, b"old"),
        Mapped(12, 0, 1, 100),
        Named(LINK, 12, 13, b"below"),
        Named(UNLINK, 2, 12, b"old"),
    ]
    new = [Stored(12, b"new"), Mapped(12, 7, 1, 200), Named(CREATE, 2, 12, b"new")]

    changes = changed(old, [*new, Mapped(12, 8, 1, 201), Stored(12, b"newer")])

    assert changes.heads == {12: b"newer"}
    assert changes.created == {12}
    assert changes.ranges == {12: [Mapped(12, 7, 1, 200), Mapped(12, 8, 1, 201)]}
    assert changes.names == {2: {b"old": Name(0, {12}), b"new": Name(12, {12})}}


def test_a_name_given_twice_is_a_contradiction() -> None:
    changes = changed([Named(LINK, 2, 11, b"a")], [Named(LINK, 2, 12, b"a")])

    assert changes.contradictory == {2}


STRETCHES = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 15), st.none() | st.integers(0, 900)), max_size=25
)


@given(STRETCHES)
def test_stretches_lie_where_they_were_put_last(stretches: list[tuple[int, int, int]]) -> None:
    extents: list[Extent] = []
    expected: dict[int, int] = {}
    disk = BufferRA(b"")

    for start, length, at in stretches:
        new = [] if at is None or not length else [Extent(start, length, disk, at)]
        place(extents, start, start + length, new)
        for offset in range(length):
            expected.pop(start + offset, None)
            if at is not None:
                expected[start + offset] = at + offset

    assert expected == {
        one.voff + offset: one.roff + offset for one in extents for offset in range(one.length)
    }
    assert extents == sorted(extents, key=lambda one: one.voff)


KINDS = [
    "",
    "-b 1024 -I 128 -J size=8",
    "-O metadata_csum_seed,orphan_file -b 4096",
    "-O ^dir_index,^filetype,^64bit -b 2048",
    "-O ^extent,^64bit",
]
WARM_UP = 1000  # steps before the first copy
MOST_STEPS = 120  # between two copies
FEW, MANY = 2, 20  # copies
UNDISTURBED = "noatime,commit=600"  # by full commits every five seconds


def committed(seen: Mapping[bytes, Seen]) -> dict[bytes, Seen]:
    """Return what is in fast commits: not how large and old a directory is."""
    made_up = dict.fromkeys(("mtime_ns", "atime_ns", "ctime_ns", "size", "allocated"), 0)
    return {
        path: replace(one, **made_up) if stat.S_ISDIR(one.mode) else one
        for path, one in seen.items()
    }


@pytest.mark.slow
def test_what_was_committed_fast_is_there(tmp_path: Path) -> None:
    name = "ext4-crashed-fast-commits"
    system = ExtFileSystem(FileDevice(unpacked(name, tmp_path)))

    seen = seen_by_us(system)

    assert " fast commits" in system.notes[replay.JOURNAL]
    assert committed(seen) == committed(seen_before(name, tmp_path))


def fixture(directory: Path) -> bytearray:
    return bytearray(unpacked("ext4-crashed-fast-commits", directory).read_bytes())


@pytest.mark.parametrize(("at", "mask"), [(0x65, 0x04), (0x61, 0x80)], ids=["checksums", "inline"])
def test_what_is_not_proved_by_checksums_is_told_and_left_alone(
    at: int, mask: int, tmp_path: Path
) -> None:
    data = fixture(tmp_path)
    data[SUPER_AT + at] ^= mask  # which features there are

    told = replay_journal(BytesDevice(data))

    assert told.changes is None
    assert re.search("but not [4-9] fast commits, .* may be missing", told.notes[replay.JOURNAL])


def test_a_commit_that_is_damaged_is_told_and_those_before_it_are_there(tmp_path: Path) -> None:
    data = fixture(tmp_path)
    last = data.rindex(b"has the number of another")
    data[last] ^= 1

    system = ExtFileSystem(BytesDevice(data))

    names = {node.name for node in all_children(system, system.root())}
    assert b"has the number of another" not in names
    assert names >= {b"old", b"new", b"replaced"}
    assert " fast commits, but not" in system.notes[replay.JOURNAL]


def test_an_inode_that_does_not_fit_its_commit_is_a_name_and_no_more(tmp_path: Path) -> None:
    data = fixture(tmp_path)
    system = ExtFileSystem(BytesDevice(data))
    node = system.child(system.root().handle, b"changed")
    number = int.from_bytes(node.inode, "big")
    assert system.xattrs(node.handle) == {b"user.short": b"kept"}
    system = ExtFileSystem(BytesDevice(data))
    system._tree._changes.created.add(number)  # as if its attributes were of another file

    names = {node.name: node for node in all_children(system, system.root())}

    assert "does not fit what its fast commit says" in names[b"changed"].problem
    assert names[b"cut"].problem == ""


def test_a_directory_that_does_not_fit_its_commits_is_damage(tmp_path: Path) -> None:
    system = ExtFileSystem(BytesDevice(fixture(tmp_path)))
    changes, root = system._tree._changes, system.root().handle
    changes.names[2][b"lost+found"] = Name(0, {99})

    with pytest.raises(Damaged, match="do not fit directory 2"):
        system.children(root)


@pytest.mark.slow
def test_no_damage_of_them_does_more_than_to_be_noticed(tmp_path: Path) -> None:
    data, chance = fixture(tmp_path), Random(1)
    places = [at for at in range(0, len(data), BLOCK) if any(data[at : at + BLOCK])]
    begun = data.index(head(0)[:4])
    committed = [at for at in places if begun <= at < begun + 40 * BLOCK]

    for _ in range(100):
        bent = bytearray(data)
        for _ in range(chance.randrange(1, 5)):
            at = chance.choice(chance.choice((places, committed)))
            bent[at + chance.randrange(BLOCK)] = chance.randrange(256)
        with suppress(Damaged):
            system = ExtFileSystem(BytesDevice(bent))
            visit(system, system.root())


def visit(system: ExtFileSystem, directory: Node) -> None:
    for node in all_children(system, directory):
        with suppress(Damaged):
            if stat.S_ISDIR(node.mode) and not node.problem:
                visit(system, node)
            elif stat.S_ISREG(node.mode):
                assert len(system.read_at(node.handle, 0, BLOCK)) <= BLOCK


@pytest.mark.mounted
def test_a_file_that_got_its_first_name_late_is_there(tmp_path: Path) -> None:
    image = tmp_path / "image"
    run("truncate", "-s", "32M", image)
    run("mkfs.ext4", "-q", "-O", "fast_commit", image)
    with loop_mounted(image, f"rw,{UNDISTURBED}") as root:
        (root / "first").write_bytes(b"")
        os.sync()
        file = os.open(root, os.O_TMPFILE | os.O_RDWR)
        os.write(file, b"late" * 1000)
        run("ln", "-L", f"/proc/{os.getpid()}/fd/{file}", root / "late")
        os.fsync(file)
        os.close(file)
        run("cp", "--sparse=always", image, tmp_path / "copy")

    system = ExtFileSystem(FileDevice(tmp_path / "copy"))

    node = system.child(system.root().handle, b"late")
    assert system.read_at(node.handle, 0, 5000) == b"late" * 1000


@pytest.mark.slow
@pytest.mark.mounted
def test_files_are_those_that_were_committed(tmp_path: Path) -> None:
    compare("", FEW, tmp_path)


@pytest.mark.soak
@pytest.mark.mounted
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
def test_files_are_those_that_were_committed_whatever_the_features(
    kind: str, tmp_path: Path
) -> None:
    assert compare(kind, MANY, tmp_path)


def compare(kind: str, copies: int, directory: Path) -> int:
    """Use a file system, and compare `copies` of it with what it was; count who has fast commits.

    A copy has none when something has made the kernel commit in full: anybody's sync will do.
    """
    image, copy, chance, found = directory / "image", directory / "copy", Random(kind), 0
    run("truncate", "-s", "256M", image)
    run("mkfs.ext4", "-q", "-O", "fast_commit", *kind.split(), image)
    with loop_mounted(image, f"rw,{UNDISTURBED}") as root:
        busy = Busy(str(root), 1, "fast")
        for _ in range(WARM_UP):
            busy.step()
        os.sync()
        for _ in range(copies):
            for _ in range(chance.randrange(1, MOST_STEPS)):
                busy.step()
            (root / "mark").write_bytes(b"%d" % busy.number)  # else nothing need be committed
            commit_all(root)
            run("cp", "--sparse=always", image, copy)
            expected = committed(seen_by_the_kernel(root))
            system = ExtFileSystem(FileDevice(copy))
            seen = committed(seen_by_us(system))
            assert seen.keys() == expected.keys(), system.notes
            assert {path: seen[path] for path in seen if seen[path] != expected[path]} == {}
            found += "fast commit" in system.notes[replay.JOURNAL]
    return found


def commit_all(root: Path) -> None:
    for path in root.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
