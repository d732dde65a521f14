"""Headers, numbers and pax records; Python's tarfile is the oracle."""

import struct
import tarfile
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as some

from backgate.fs.formats.tar import header, pax
from backgate.fs.formats.tar.acl import acl_to_xattr
from backgate.fs.formats.tar.header import BLOCK, BadHeader


def block_of(format_: int = tarfile.GNU_FORMAT, name: str = "name", **fields: object) -> bytes:
    """Return the last header block that tarfile writes for a member."""
    member = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(member, field, value)
    return member.tobuf(format_, "utf-8", "surrogateescape")[-BLOCK:]


@given(some.integers(-(2**80), 2**80))
def test_numbers_in_base_256_come_back(value: int) -> None:
    first = 0x80 if value >= 0 else 0xFF
    field = bytes([first]) + (value % 2**88).to_bytes(11, "big")

    assert header.number(field) == value


@given(some.integers(0, 8**11 - 1), some.sampled_from([b"", b" ", b"\0", b" \0"]))
def test_numbers_in_octal_come_back(value: int, end: bytes) -> None:
    assert header.number(b"%011o" % value + end) == value
    assert header.number(b"  %o" % value + end) == value


def test_an_empty_field_is_zero() -> None:
    assert header.number(bytes(8)) == header.number(b" " * 8) == 0


@pytest.mark.parametrize("field", [b"12x4567\0", b"0000 12\0", b"-0000001", b"9999999\0"])
def test_what_is_no_number_is_refused(field: bytes) -> None:
    with pytest.raises(BadHeader, match="not a number"):
        header.number(field)


@given(
    some.integers(0, 2**63 - 1),
    some.integers(0, 2**40),
    some.integers(-(2**40), 2**40),
    some.integers(0, 0o7777),
    some.text(min_size=1, max_size=30).filter(lambda t: "\0" not in t),
)
def test_headers_are_read_as_tarfile_wrote_them(
    size: int, uid: int, mtime: int, mode: int, name: str
) -> None:
    name = name.encode("utf-8", "replace").decode().strip("/") or "x"
    head = header.parse(block_of(name=name, size=size, uid=uid, mtime=mtime, mode=mode))

    assert (head.size, head.uid, head.mtime, head.mode) == (size, uid, mtime, mode)
    if len(name.encode()) <= 100:
        assert head.name == name.encode()


def test_a_ustar_prefix_is_put_in_front() -> None:
    name = "a" * 90 + "/" + "b" * 90

    assert header.parse(block_of(tarfile.USTAR_FORMAT, name)).name == name.encode()


def test_devices_have_numbers() -> None:
    for format_ in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT):
        block = block_of(format_, type=tarfile.BLKTYPE, devmajor=8, devminor=17)
        head = header.parse(block)
        assert (head.kind, head.major, head.minor) == (header.DEVICE, 8, 17)


@given(some.integers(0, BLOCK - 1), some.integers(1, 255))
def test_one_changed_byte_is_noticed_or_means_the_same(at: int, change: int) -> None:
    block = bytearray(block_of(name="some/name", size=1234, mtime=1_600_000_000))
    before = header.parse(bytes(block))
    block[at] ^= change

    try:
        after = header.parse(bytes(block))
    except BadHeader:
        return
    assert 148 <= at < 156  # the checksum field itself, written in another way
    assert after.size == before.size


def test_checksums_over_signed_bytes_are_taken_too() -> None:
    block = bytearray(block_of(name="\udcff\udcfe"))
    signed = sum(struct.unpack("148b8x356b", block)) + 8 * 32
    block[148:156] = b"%06o\0 " % signed

    assert header.parse(bytes(block)).name == b"\xff\xfe"


@given(
    some.dictionaries(
        some.text(min_size=1, max_size=20).filter(lambda t: "=" not in t), some.binary(max_size=300)
    )
)
def test_pax_records_come_back(records: dict[str, bytes]) -> None:
    data = b""
    for key, value in records.items():
        body = b" " + key.encode("utf-8", "replace") + b"=" + value + b"\n"
        length = len(body) + 1
        while len(b"%d" % length) + len(body) != length:
            length += 1
        data += b"%d" % length + body

    expected = {key.encode("utf-8", "replace"): value for key, value in records.items()}
    assert pax.parse(data)[0] == expected


@pytest.mark.parametrize(
    "data",
    [
        b"99 path=x\n",
        b"5 p\n",
        b"x",
        b"11 path=abc ",
        b"9 path=\n",
        b"0 a=b\n",
        b"7 =abc\n",
        b"-5 a=b\n",
    ],
)
def test_pax_records_that_do_not_fit_are_refused(data: bytes) -> None:
    with pytest.raises(BadHeader):
        pax.parse(data)


@given(some.binary(max_size=200))
def test_any_bytes_are_pax_records_or_refused(data: bytes) -> None:
    with suppress(BadHeader):
        pax.parse(data)


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        (b"0", 0),
        (b"1350244992.023960108", 1350244992_023960108),
        (b"-1.5", -1_500_000_000),
        (b"12.1234567899999", 12_123456789),
        (b"7.", 7_000_000_000),
    ],
)
def test_pax_times_keep_their_fraction(text: bytes, time_ns: int) -> None:
    assert pax.time_ns(text) == time_ns


def test_xattrs_of_star_and_libarchive() -> None:
    found = pax.xattrs(
        {
            b"SCHILY.xattr.user.a": b"\0=\n",
            b"LIBARCHIVE.xattr.user.b%20c": b"AQID",
            b"LIBARCHIVE.xattr.user.a": b"AA",
            b"RHT.security.selinux": b"label\0",
        }
    )

    assert found == {b"user.a": b"\0=\n", b"user.b c": b"\1\2\3", b"security.selinux": b"label\0"}


def test_an_acl_by_numbers_becomes_the_kernel_s_attribute() -> None:
    value = acl_to_xattr(
        b"user::rwx,user:1000:r-x,group::r--,group:lisa:rw-:7,mask::rwx,other::---"
    )

    assert value is not None
    assert value[:4] == b"\2\0\0\0"
    entries = [struct.unpack_from("<HHI", value, at) for at in range(4, len(value), 8)]
    no = 0xFFFF_FFFF
    assert entries == [(1, 7, no), (2, 5, 1000), (4, 4, no), (8, 6, 7), (16, 7, no), (32, 0, no)]


def test_an_acl_by_name_is_left_out() -> None:
    assert acl_to_xattr(b"user::rwx,user:lisa:r-x,other::---") is None
    assert acl_to_xattr(b"") is None
    assert acl_to_xattr(b"user::rwxx,x") is None
