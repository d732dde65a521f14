"""Names, modes and times as Go writes them, envelopes, and compressed frames."""

import os
import stat
from datetime import UTC, datetime, timedelta

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as some
from support.restic import seal

from backgate.fs.formats.restic.compression import decompress, decompress_unknown
from backgate.fs.formats.restic.crypto import OVERHEAD, Key, Opener, Unsound
from backgate.fs.formats.restic.values import mode_from_go, name_from_go, time_ns_from_go
from backgate.gateway.units import MIB

KEY = Key(b"e" * 32, b"k" * 16, b"r" * 16)


@pytest.mark.parametrize(
    ("quoted", "name"),
    [
        ("plain", b"plain"),
        ("日本", "日本".encode()),
        (r"\a\b\f\n\r\t\v\\\"\'", b"\a\b\f\n\r\t\v\\\"'"),
        (r"\xe9\x00\xff", b"\xe9\x00\xff"),
        (r"\u00ad\U0001f600", "\u00ad\U0001f600".encode()),
        (r"\101\377", b"A\xff"),
        (r"\\x41", rb"\x41"),
    ],
)
def test_names_are_unquoted_as_by_go(quoted: str, name: bytes) -> None:
    assert name_from_go(quoted) == name


@pytest.mark.parametrize(
    "quoted", ["\\", "\\q", "\\x4", "\\u12", "\\ud800", "\\U00110000", "\\400"]
)
def test_a_name_that_go_would_not_write_is_refused(quoted: str) -> None:
    with pytest.raises(Unsound):
        name_from_go(quoted)


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.slow
@given(some.binary())
def test_any_bytes_survive_quoting(name: bytes) -> None:
    assert name_from_go("".join(f"\\x{byte:02x}" for byte in name)) == name


@pytest.mark.parametrize(
    ("kind", "go_mode", "mode"),
    [
        ("file", 0o644, stat.S_IFREG | 0o644),
        ("dir", 1 << 31 | 1 << 20 | 0o777, stat.S_IFDIR | 0o1777),
        ("file", 1 << 23 | 0o755, stat.S_IFREG | 0o4755),
        ("dir", 1 << 31 | 1 << 22 | 0o770, stat.S_IFDIR | 0o2770),
        ("symlink", 1 << 27 | 0o777, stat.S_IFLNK | 0o777),
        ("dev", 1 << 26 | 0o660, stat.S_IFBLK | 0o660),
        ("chardev", 1 << 26 | 1 << 21 | 0o666, stat.S_IFCHR | 0o666),
        ("fifo", 1 << 25, stat.S_IFIFO),
        ("socket", 1 << 24, stat.S_IFSOCK),
        ("irregular", 1 << 19, stat.S_IFREG),
    ],
)
def test_modes_are_those_of_stat(kind: str, go_mode: int, mode: int) -> None:
    assert mode_from_go(kind, go_mode) == mode


@given(
    some.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)),
    some.integers(-14 * 60, 14 * 60),
    some.integers(0, 999_999_999),
)
def test_any_time_in_any_zone_is_nanoseconds_since_1970(
    time: datetime, minutes: int, nanoseconds: int
) -> None:
    time = time.replace(microsecond=0, tzinfo=UTC)
    local = time + timedelta(minutes=minutes)
    zone = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
    text = f"{local.year:04}-{local:%m-%dT%H:%M:%S}.{nanoseconds:09}{zone}"
    days = (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)

    assert time_ns_from_go(text) == days * 1_000_000_000 + nanoseconds


def test_the_year_0_and_short_fractions_are_times() -> None:
    assert time_ns_from_go("0000-03-01T00:00:00Z") == -62_162_035_200 * 10**9
    assert time_ns_from_go("1970-01-01T00:00:00.5Z") == 500_000_000
    assert time_ns_from_go("1969-12-31T23:59:59.999999999Z") == -1


@pytest.mark.parametrize(
    "text",
    ["", "2026-11-20", "2026-13-01T00:00:00Z", "20261-01-01T00:00:00Z", "٢٠٢٦-01-01T00:00:00Z"],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(Unsound):
        time_ns_from_go(text)


@given(some.binary(max_size=5000))
def test_an_envelope_gives_back_what_was_sealed(plain: bytes) -> None:
    assert Opener(KEY).open(seal(KEY, plain)) == plain


def test_any_flipped_bit_of_an_envelope_is_noticed() -> None:
    sealed = seal(KEY, b"secret")
    for at in range(len(sealed)):
        forged = bytearray(sealed)
        forged[at] ^= 0x80
        with pytest.raises(Unsound):
            Opener(KEY).open(bytes(forged))


@pytest.mark.parametrize("sealed", [b"", b"x" * (OVERHEAD - 1), bytes(OVERHEAD + 5)])
def test_what_cannot_be_an_envelope_is_refused(sealed: bytes) -> None:
    with pytest.raises(Unsound):
        Opener(KEY).open(sealed)


def test_a_key_never_shows_itself() -> None:
    assert "eeee" not in repr(KEY)


def test_a_frame_must_hold_exactly_what_the_index_says() -> None:
    plain = os.urandom(1000)
    with_size = zstandard.ZstdCompressor().compress(plain)
    without = zstandard.ZstdCompressor(write_content_size=False).compress(plain)

    for frame in (with_size, without):
        assert decompress(frame, 1000) == plain
        for length in (0, 999, 1001, 10**9):
            with pytest.raises(Unsound):
                decompress(frame, length)
    for bad in (b"", b"no frame", with_size[:-3]):
        with pytest.raises(Unsound):
            decompress(bad, 1000)


def test_a_frame_of_unknown_length_is_stopped_at_the_limit() -> None:
    bomb = zstandard.compress(bytes(20 * MIB))

    assert len(decompress_unknown(bomb, 20 * MIB)) == 20 * MIB
    with pytest.raises(Unsound):
        decompress_unknown(bomb, 10 * MIB)
    with pytest.raises(Unsound):
        decompress_unknown(b"no frame", MIB)
