"""An ACL and the permission bits of a mode say the same."""

import errno
import stat
import struct

import pytest

from backgate.fs.acl import ACCESS, DEFAULT, inherited, limited_to, shown_with
from backgate.gateway.errors import FileError

NO_ID = 0xFFFFFFFF
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20


def acl(*entries: tuple[int, int] | tuple[int, int, int]) -> bytes:
    packed = (struct.pack("<HHI", *(*entry, NO_ID)[:3]) for entry in entries)
    return struct.pack("<I", 2) + b"".join(packed)


LONG = acl((USER_OBJ, 7), (USER, 6, 1000), (GROUP_OBJ, 0), (MASK, 6), (OTHER, 1))
SHORT = acl((USER_OBJ, 6), (GROUP_OBJ, 4), (OTHER, 0))


def test_the_mask_is_what_the_mode_shows_of_the_group() -> None:
    assert shown_with(stat.S_IFREG | 0o4000, LONG) == (stat.S_IFREG | 0o4761, LONG)


def test_an_acl_that_says_no_more_than_a_mode_is_none() -> None:
    assert shown_with(0o777, SHORT) == (0o640, None)


def test_chmod_changes_the_mask_and_not_the_group() -> None:
    changed = acl((USER_OBJ, 6), (USER, 6, 1000), (GROUP_OBJ, 0), (MASK, 4), (OTHER, 0))

    assert limited_to(LONG, 0o640) == changed
    assert limited_to(SHORT, 0o751) == acl((USER_OBJ, 7), (GROUP_OBJ, 5), (OTHER, 1))


def test_a_file_takes_the_default_of_its_directory_within_its_mode() -> None:
    mode, xattrs = inherited({DEFAULT: LONG}, stat.S_IFREG | 0o640)

    access = acl((USER_OBJ, 6), (USER, 6, 1000), (GROUP_OBJ, 0), (MASK, 4), (OTHER, 0))
    assert (mode, xattrs) == (stat.S_IFREG | 0o640, {ACCESS: access})


def test_a_directory_hands_the_default_on() -> None:
    mode, xattrs = inherited({DEFAULT: LONG}, stat.S_IFDIR | 0o777)

    assert mode == stat.S_IFDIR | 0o761
    assert xattrs == {ACCESS: LONG, DEFAULT: LONG}


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"\2\0\0",
        struct.pack("<I", 3) + SHORT[4:],
        SHORT[:-1],
        acl((USER_OBJ, 6), (OTHER, 0)),
        acl((USER_OBJ, 8), (GROUP_OBJ, 0), (OTHER, 0)),
    ],
)
def test_what_is_no_acl_is_refused(broken: bytes) -> None:
    with pytest.raises(FileError) as refused:
        shown_with(0o644, broken)
    assert refused.value.errno == errno.EINVAL
    assert inherited({DEFAULT: broken}, 0o644) == (0o644, {})
