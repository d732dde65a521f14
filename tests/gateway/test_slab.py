"""`gateway/slab.py`: blocks on disk, whole or not there."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backgate.gateway.provider import ObjectInfo
from backgate.gateway.slab import BLOCK, WAYS, Place, Slab, Version
from backgate.gateway.units import MIB

LIMIT = 4 * WAYS * (BLOCK + 64) + 8192  # bytes; four sets


def version(name: str = "object", size: int = 100 * BLOCK) -> Version:
    return Version.of("memory:test", ObjectInfo(name, size, 0, "etag"))


def block(seed: int, length: int = BLOCK) -> bytes:
    return (seed.to_bytes(4, "little") * (BLOCK // 4))[:length]


@contextmanager
def slab(directory: Path, limit: int = LIMIT) -> Iterator[Slab]:
    with closing(Slab(directory / "blocks", limit)) as opened:
        yield opened


def stored(slab: Slab, of: Version, first: int, stop: int) -> bytes | None:
    places = [place for place in slab.places(of, first, stop) if place is not None]
    return bytes(slab.read(of, first, places)) if len(places) == stop - first else None


def test_a_run_comes_back_as_it_was_put(tmp_path: Path) -> None:
    data = b"".join(block(n) for n in range(7))
    with slab(tmp_path) as cache:
        cache.write(version(), 3, data)

        assert stored(cache, version(), 3, 10) == data
        assert stored(cache, version(), 4, 6) == data[BLOCK : 3 * BLOCK]
        assert stored(cache, version(), 3, 11) is None


def test_the_short_last_block_of_an_object_is_kept(tmp_path: Path) -> None:
    short = version(size=2 * BLOCK + 5)
    with slab(tmp_path) as cache:
        cache.write(short, 1, block(1) + b"tail!")

        assert stored(cache, short, 1, 3) == block(1) + b"tail!"


def test_another_version_of_the_same_key_finds_nothing(tmp_path: Path) -> None:
    newer = Version.of("memory:test", ObjectInfo("object", 100 * BLOCK, 0, "other etag"))
    with slab(tmp_path) as cache:
        cache.write(version(), 0, block(1))

        assert cache.places(newer, 0, 1) == [None]


def test_the_file_never_exceeds_its_limit(tmp_path: Path) -> None:
    limit = 3 * MIB
    with slab(tmp_path, limit) as cache:
        for number in range(40):
            cache.write(version(size=40 * BLOCK), number, block(number))

        assert (tmp_path / "blocks").stat().st_size <= limit
        assert 8 * BLOCK < cache.used <= limit


def test_blocks_are_still_there_after_a_restart(tmp_path: Path) -> None:
    with slab(tmp_path) as cache:
        cache.write(version(), 0, block(1))

    with slab(tmp_path) as cache:
        assert stored(cache, version(), 0, 1) == block(1)


def test_another_limit_empties_the_cache(tmp_path: Path) -> None:
    with slab(tmp_path) as cache:
        cache.write(version(), 0, block(1))

    with slab(tmp_path, 2 * LIMIT) as cache:
        assert cache.places(version(), 0, 1) == [None]
        assert cache.used < BLOCK


@pytest.mark.parametrize("length", [0, 10, 4096])
def test_a_damaged_header_empties_the_cache(tmp_path: Path, length: int) -> None:
    with slab(tmp_path) as cache:
        cache.write(version(), 0, block(1))
    with (tmp_path / "blocks").open("r+b") as file:
        if length:
            file.write(os.urandom(length))
        else:
            file.truncate(100)

    with slab(tmp_path) as cache:
        assert cache.places(version(), 0, 1) == [None]
        cache.write(version(), 0, block(2))
        assert stored(cache, version(), 0, 1) == block(2)


def test_a_flipped_bit_is_a_miss_and_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with slab(tmp_path) as cache:
        cache.write(version(), 0, block(1) + block(2) + block(3))
        places = [place for place in cache.places(version(), 0, 3) if place is not None]
        flip(tmp_path / "blocks", block(2))

        data = cache.read(version(), 0, places)

        assert bytes(data) == block(1)
        assert "does not match its checksum" in caplog.text
        assert [place is None for place in cache.places(version(), 0, 3)] == [False, True, False]


def flip(path: Path, content: bytes) -> None:
    """Change one byte of where `content` lies in the file."""
    data = bytearray(path.read_bytes())
    data[data.index(content) + 1000] ^= 1
    path.write_bytes(data)


def test_a_block_that_gave_way_meanwhile_is_a_silent_miss(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with slab(tmp_path, 8192 + BLOCK + 64) as cache:  # one slot
        cache.write(version(), 0, block(1))
        places = [place for place in cache.places(version(), 0, 1) if place is not None]
        cache.write(version(), 1, block(2))

        assert bytes(cache.read(version(), 0, places)) == b""
        assert caplog.text == ""


def test_any_bytes_in_the_table_are_at_worst_misses(tmp_path: Path) -> None:
    with slab(tmp_path) as cache:
        cache.write(version(), 0, block(1) + block(2))
        with (tmp_path / "blocks").open("r+b") as file:
            file.seek(4096)
            table = bytearray(file.read(4 * WAYS * 40))
            for at in range(0, len(table), 7):
                table[at] ^= 0x55
            file.seek(4096)
            file.write(table)

        assert stored(cache, version(), 0, 2) is None


def test_what_was_read_lately_outlives_what_was_not(tmp_path: Path) -> None:
    many = version(size=1000 * BLOCK)
    with slab(tmp_path, 8192 + WAYS * (BLOCK + 64)) as cache:  # one set
        for number in range(WAYS):
            cache.write(many, number, block(number))
        for _ in range(3):
            assert stored(cache, many, 5, 6) == block(5)
            cache.write(many, 100 + _, block(7))

        assert stored(cache, many, 5, 6) == block(5)


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from backgate.gateway.slab import Slab
try:
    Slab(Path({str(tmp_path / "blocks")!r}), {LIMIT})
except BlockingIOError:
    print("refused")
"""
    with slab(tmp_path):
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert result.stdout == "refused\n"


def test_others_cannot_read_the_file(tmp_path: Path) -> None:
    with slab(tmp_path):
        assert (tmp_path / "blocks").stat().st_mode & 0o777 == 0o600


def test_too_small_a_limit_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too few"):
        Slab(tmp_path / "blocks", 1000)


def test_a_place_of_the_wrong_length_is_not_believed(tmp_path: Path) -> None:
    with slab(tmp_path) as cache:
        cache.write(version(size=BLOCK + 10), 1, b"0123456789")

        assert cache.places(version(size=BLOCK + 10), 1, 2) != [None]
        assert cache.read(version(), 0, [Place(0, BLOCK, 1)]) == b""


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 30), st.integers(1, 20)), max_size=12
    ),
    slots=st.integers(1, 70),
)
def test_whatever_is_found_is_what_was_put(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]], slots: int
) -> None:
    directory = tmp_path_factory.mktemp("slab")
    with slab(directory, 8192 + slots * (BLOCK + 64)) as cache:
        for name, first, count in steps:
            cache.write(
                version(name), first, b"".join(content(name, first + n) for n in range(count))
            )
        for name, first, count in steps:
            for number in range(first, first + count):
                assert stored(cache, version(name), number, number + 1) in (
                    None,
                    content(name, number),
                )


def content(name: str, number: int) -> bytes:
    return block(ord(name) << 16 | number)


def test_a_disk_that_fails_has_nothing_and_raises_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    of = version()
    with slab(tmp_path) as cache:
        cache.write(of, 0, block(1))
        nowhere = os.open(tmp_path, os.O_RDONLY)  # reading it is EISDIR
        os.dup2(nowhere, cache._file)
        os.close(nowhere)

        assert cache.places(of, 0, 3) == [None, None, None]

    assert "reading without" in caplog.text


def test_without_an_etag_the_time_tells_versions_apart() -> None:
    before = Version.of("memory:test", ObjectInfo("object", 5, 1, ""))

    assert Version.of("memory:test", ObjectInfo("object", 5, 2, "")) != before
