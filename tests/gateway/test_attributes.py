"""Tests of `gateway/attributes.py`."""

import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backgate.gateway.attributes import (
    Attributes,
    attributes_from_metadata,
    default_attributes,
    metadata_from_attributes,
)
from backgate.gateway.provider import ObjectInfo

INFO = ObjectInfo("file", 10, 123, "etag")
MARKER = ObjectInfo("folder/", 0, 123, "etag")
IDS = st.integers(0, 2**32 - 2)
TIMES = st.integers(-(10**17), 2**63 - 1)
TEXTS = st.text(max_size=30) | st.from_regex(r"-?[0-9]{1,25}(\.[0-9]{0,25})?", fullmatch=True)


@given(st.integers(0, 0o7777), IDS, IDS, TIMES, st.none() | TIMES)
def test_attributes_read_back_exactly(
    permissions: int, uid: int, gid: int, mtime_ns: int, atime_ns: int | None
) -> None:
    attributes = Attributes(
        mode=stat.S_IFREG | permissions, uid=uid, gid=gid, mtime_ns=mtime_ns, atime_ns=atime_ns
    )

    assert attributes_from_metadata(metadata_from_attributes(attributes), INFO) == attributes


@given(st.dictionaries(st.sampled_from(["mode", "uid", "gid", "mtime", "atime", "x"]), TEXTS))
def test_no_metadata_does_harm(metadata: dict[str, str]) -> None:
    for info in (INFO, MARKER):
        found = attributes_from_metadata(metadata, info)

        if found is not None:
            assert stat.S_ISDIR(found.mode) == info.key.endswith("/")
            assert 0 <= found.uid < 2**32
            assert 0 <= found.gid < 2**32
            assert abs(found.mtime_ns) < 2**63


def test_the_forms_are_those_of_s3fs_and_rclone() -> None:
    attributes = Attributes(mode=0o100644, uid=1000, gid=100, mtime_ns=1354040105_123456789)

    assert metadata_from_attributes(attributes) == {
        "mode": "33188",
        "uid": "1000",
        "gid": "100",
        "mtime": "1354040105.123456789",
    }


@pytest.mark.parametrize(
    ("text", "mode"),
    [("33188", 0o100644), ("100644", 0o100644), ("40755", 0o100755), ("420", 0o100644),
     ("120777", 0o120777), ("41471", 0o120777), ("9", 0o100011), ("x", 0o100644)],
)  # fmt: skip
def test_modes_are_read_as_s3fs_and_as_rclone_write_them(text: str, mode: int) -> None:
    found = attributes_from_metadata({"mode": text}, INFO)

    assert found is not None
    assert found.mode == mode


@pytest.mark.parametrize(
    ("size", "is_symlink"), [(1, True), (4095, True), (0, False), (4096, False)]
)
def test_only_an_object_that_can_hold_a_target_is_a_symlink(size: int, is_symlink: bool) -> None:
    info = ObjectInfo("link", size, 0, "etag")

    found = attributes_from_metadata({"mode": str(0o120777)}, info)

    assert found is not None
    assert stat.S_ISLNK(found.mode) == is_symlink


def test_a_time_of_rclone_with_fewer_digits_is_read() -> None:
    found = attributes_from_metadata({"mtime": "1354040105.12"}, INFO)

    assert found is not None
    assert found.mtime_ns == 1354040105_120000000


def test_an_object_without_attributes_is_the_gateways_user_s() -> None:
    assert attributes_from_metadata({"content": "x"}, INFO) is None
    assert attributes_from_metadata(None, INFO) is None
    assert default_attributes(INFO) == Attributes(
        mode=0o100644, uid=os.geteuid(), gid=os.getegid(), mtime_ns=123
    )
    assert default_attributes(MARKER).mode == 0o040755
