"""The tables of blob locations know what all index files say, with little memory and work."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import trio

from backgate.fs.formats.restic import index as index_module
from backgate.fs.formats.restic.crypto import Unsound
from backgate.fs.formats.restic.index import BlobIndex
from backgate.fs.formats.restic.index_build import Records, merge
from backgate.fs.formats.restic.segment import RECORD, SCAN_MAX, Location, Segment, write_segment
from backgate.gateway.errors import Damaged, NotFound, StoreError

Known = dict[bytes, list[Location]]


class Files:
    """Index files by id, and which of them were loaded."""

    def __init__(self) -> None:
        self.data: dict[bytes, bytes | Exception] = {}
        self.loaded: list[bytes] = []

    async def load(self, index_id: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        self.loaded.append(index_id)
        data = self.data[index_id]
        if isinstance(data, Exception):
            raise data
        return data

    def add(self, known: Known) -> bytes:
        index_id = os.urandom(32)
        self.data[index_id] = document(known)
        return index_id


def some_locations(count: int, seed: int) -> Known:
    rnd = random.Random(seed)
    packs = [rnd.randbytes(32) for _ in range(count // 20 + 1)]
    return {
        rnd.randbytes(32): [
            Location(rnd.choice(packs), rnd.randrange(1 << 32), rnd.randrange(32, 1 << 23), length)
        ]
        for length in (rnd.choice((0, rnd.randrange(1 << 32))) for _ in range(count))
    }


def document(known: Known) -> bytes:
    packs: dict[str, list[dict[str, object]]] = {}
    for blob, locations in known.items():
        for location in locations:
            entry: dict[str, object] = {"id": blob.hex(), "type": "data"}
            entry |= {"offset": location.offset, "length": location.length}
            if location.plain_length:
                entry["uncompressed_length"] = location.plain_length
            packs.setdefault(location.pack.hex(), []).append(entry)
    listed = [{"id": pack, "blobs": blobs} for pack, blobs in packs.items()]
    return msgspec.json.encode({"supersedes": ["ab" * 32], "packs": listed})


def new_index(directory: Path, files: Files) -> BlobIndex:
    return BlobIndex("web/", directory, files.load, trio.CapacityLimiter(2))


def check(index: BlobIndex, known: Known) -> None:
    for blob, locations in known.items():
        assert sorted(index.find(blob), key=repr) == sorted(locations, key=repr)
        assert index.find(blob[:-1] + bytes([blob[-1] ^ 1])) == []


async def test_everything_is_found_and_nothing_else(tmp_path: Path) -> None:
    files, known = Files(), [some_locations(3000, 1), some_locations(1, 2), {}]
    index = new_index(tmp_path, files)

    await index.update([files.add(one) for one in known])

    check(index, known[0] | known[1])
    assert index.count == 3001


async def test_all_copies_of_a_blob_are_found(tmp_path: Path) -> None:
    files, blob = Files(), os.urandom(32)
    copies = [Location(os.urandom(32), number, 100, 0) for number in range(5)]
    index = new_index(tmp_path, files)

    await index.update([files.add({blob: copies[:3]}), files.add({blob: copies[3:]})])

    check(index, {blob: copies})


async def test_a_later_run_reads_no_index_file_again(tmp_path: Path) -> None:
    files, known = Files(), some_locations(500, 1)
    ids = [files.add(known)]
    await new_index(tmp_path, files).update(ids)
    files.loaded.clear()

    index = new_index(tmp_path, files)
    await index.update(ids)
    more = some_locations(500, 2)
    await index.update([*ids, files.add(more)])

    check(index, known | more)
    assert len(files.loaded) == 1


async def test_what_deleted_index_files_said_is_forgotten(tmp_path: Path) -> None:
    files, old, new = Files(), some_locations(500, 1), some_locations(500, 2)
    index = new_index(tmp_path, files)
    kept = files.add(some_locations(10, 3))
    await index.update([files.add(old), kept])

    await index.update([files.add(new), kept])

    check(index, new | some_locations(10, 3))
    assert index.find(next(iter(old))) == []
    assert len(list(tmp_path.iterdir())) <= 2


@pytest.mark.slow
async def test_many_small_tables_are_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "RUN", 100)
    files, known = Files(), [some_locations(60, seed) for seed in range(40)]
    ids = [files.add(one) for one in known]
    index = new_index(tmp_path, files)

    for number in range(1, 41):
        await index.update(ids[:number])
        assert len(list(tmp_path.iterdir())) <= index_module.SEGMENTS_MAX

    check(index, {blob: where for one in known for blob, where in one.items()})


async def test_a_damaged_table_is_made_again(tmp_path: Path) -> None:
    files, known = Files(), some_locations(300, 1)
    ids = [files.add(known)]
    await new_index(tmp_path, files).update(ids)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()

    for damaged in (
        b"",
        whole[:50],
        whole[:-1],
        whole + b"x",
        flipped(whole, 0),
        flipped(whole, -9),
    ):
        path.write_bytes(damaged)
        index = new_index(tmp_path, files)
        await index.update(ids)
        check(index, known)


async def test_left_overs_of_a_crash_are_cleared_away(tmp_path: Path) -> None:
    files = Files()
    (tmp_path / "x.index.1.tmp").write_bytes(b"half")
    os.utime(tmp_path / "x.index.1.tmp", (0, 0))

    await new_index(tmp_path, files).update([files.add(some_locations(5, 1))])

    assert [path.suffix for path in tmp_path.iterdir()] == [".index"]


async def test_a_bad_index_file_is_left_out_and_remembered(tmp_path: Path) -> None:
    files, known = Files(), some_locations(50, 1)
    good, bad, odd, gone = files.add(known), os.urandom(32), os.urandom(32), os.urandom(32)
    files.data |= {bad: Damaged("web/index/x", 0, "MAC"), odd: b'{"packs": 7}'}
    files.data[gone] = NotFound("gone")
    index = new_index(tmp_path, files)

    await index.update([good, bad, odd, gone])

    check(index, known)
    assert index.damaged.keys() == {bad, odd}


async def test_what_was_read_before_a_fault_is_not_read_again(tmp_path: Path) -> None:
    files, known = Files(), some_locations(50, 1)
    ids = sorted([files.add(known), files.add({}), os.urandom(32)])
    late = next(one for one in ids if one not in files.data)
    files.data[late] = StoreError("no route")
    index = new_index(tmp_path, files)

    with pytest.raises(StoreError):
        await index.update(ids)
    files.data[late] = document({})
    await index.update(ids)

    check(index, known)


@pytest.mark.parametrize(
    "blob",
    [
        {"id": "ab" * 31, "offset": 0, "length": 50},
        {"id": " " + "ab" * 31 + "a", "offset": 0, "length": 50},
        {"id": "zz" * 32, "offset": 0, "length": 50},
        {"id": "ab" * 32, "offset": -1, "length": 50},
        {"id": "ab" * 32, "offset": 1 << 32, "length": 50},
        {"id": "ab" * 32, "offset": 0, "length": 31},
        {"id": "ab" * 32, "offset": 0, "length": 1 << 40},
        {"id": "ab" * 32, "offset": 0, "length": 50, "uncompressed_length": -1},
        {"id": "ab" * 32, "offset": "0", "length": 50},
    ],
    ids=str,
)
def test_nonsense_in_an_index_file_is_refused_whole(
    blob: dict[str, object], tmp_path: Path
) -> None:
    records = Records()
    fine = {"id": "cd" * 32, "offset": 0, "length": 50}
    data = msgspec.json.encode({"packs": [{"id": "ef" * 32, "blobs": [fine, blob]}]})

    with pytest.raises(Unsound):
        records.add(b"i" * 32, data)

    assert records.count == 0
    records.add(b"i" * 32, msgspec.json.encode({"packs": [{"id": "ef" * 32, "blobs": [fine]}]}))
    records.write(tmp_path / "table")
    assert Segment(tmp_path / "table").find(b"\xcd" * 32) == [Location(b"\xef" * 32, 0, 50, 0)]


@pytest.mark.slow
def test_ids_that_crowd_one_prefix_are_found_without_reading_them_all(tmp_path: Path) -> None:
    crowd = {bytes(28) + number.to_bytes(4, "big"): number for number in range(20_000)}
    known = {blob: [Location(b"p" * 32, number, 50, 0)] for blob, number in crowd.items()}
    records = Records()
    records.add(b"i" * 32, document(known))
    records.write(tmp_path / "table")
    segment = Segment(tmp_path / "table")
    read: list[int] = []
    whole = segment.records
    segment.records = lambda first, count: read.append(count) or whole(first, count)  # type: ignore

    for blob in random.Random(1).sample(sorted(known), 200):
        assert segment.find(blob) == known[blob]

    assert max(read) * RECORD <= SCAN_MAX


@pytest.mark.slow
def test_merged_tables_know_what_each_knew(tmp_path: Path) -> None:
    segments: list[Segment] = []
    known: Known = {}
    for number in range(3):
        one = some_locations(9000, number)
        known |= one
        records = Records()
        records.add(bytes([number]) * 32, document(one))
        records.write(tmp_path / f"{number}")
        segments.append(Segment(tmp_path / f"{number}"))

    merge(segments, tmp_path / "merged")

    merged = Segment(tmp_path / "merged")
    assert merged.index_ids == {bytes([number]) * 32 for number in range(3)}
    assert is_sorted(merged.records(0, merged.count))
    assert all(merged.find(blob) == where for blob, where in known.items())


def test_a_table_is_written_piece_by_piece(tmp_path: Path) -> None:
    sizes: list[int] = []

    def pieces() -> Iterator[bytes]:
        for number in range(10):
            sizes.extend(path.stat().st_size for path in tmp_path.iterdir())
            yield bytes([number]) * RECORD * 10_000

    write_segment(tmp_path / "table", [], [], 100_000, pieces())

    assert sizes == sorted(set(sizes)) and sizes[-1] > 8 * RECORD * 10_000


def is_sorted(records: bytes) -> bool:
    ids = [records[at : at + 32] for at in range(0, len(records), RECORD)]
    return ids == sorted(ids)


def flipped(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)
