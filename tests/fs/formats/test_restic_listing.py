"""What announces a backup, and the path under which it appears."""

from pathlib import Path

import pytest
import trio
from support.extract import content
from support.restic import Forge
from support.restic_format import opened

from backgate.fs.formats.restic.layout import is_landmark, layouts
from backgate.gateway.errors import Unreachable
from backgate.gateway.provider import ObjectInfo

ID = "0123456789abcdef" * 4


async def no_listing(prefix: str, after: str = "") -> list[ObjectInfo]:
    """`below` of a store whose LIST is broken for good."""
    await trio.lowlevel.checkpoint()
    raise Unreachable("LIST timed out")


async def test_a_known_backup_opens_without_any_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forge = Forge(tmp_path / "web")
    forge.snapshot(forge.tree(forge.file("note", b"hello")))

    async with opened(tmp_path, tmp_path / "cache") as (format_, (backup,)):
        monkeypatch.setattr(format_.surroundings.objects, "below", no_listing)
        async with format_.open(backup) as tree:
            assert await content(tree, b"note") == b"hello"


@pytest.mark.parametrize(
    "hostname",
    ["", ".", "..", "a/b", "a\x00b", "c:d", "line\nbreak", "x" * 300, "é" * 200, "latest"],
)
async def test_host_names_become_safe_components(tmp_path: Path, hostname: str) -> None:
    forge = Forge(tmp_path / "web")
    forge.snapshot(forge.tree(), hostname=hostname)

    async with opened(tmp_path, tmp_path / "cache") as (_, (backup,)):
        part = backup.path[1]
        assert part not in ("", ".", "..")
        assert not set(part) & set("/:\0\n")
        assert len(part.encode()) <= 255


@pytest.mark.parametrize(
    ("time", "stamp"),
    [
        ("2026-11-20T02:00:00.5+02:00", "2026-11-20T00-00-00Z"),
        ("1969-12-31T23:59:59Z", "1969-12-31T23-59-59Z"),
        ("9999-12-31T23:59:59-14:00", "undated"),
        ("0000-01-01T00:00:00Z", "undated"),
    ],
)
async def test_times_are_utc_without_colons(tmp_path: Path, time: str, stamp: str) -> None:
    forge = Forge(tmp_path / "web")
    forge.snapshot(forge.tree(), time=time)

    async with opened(tmp_path, tmp_path / "cache") as (_, (backup,)):
        assert backup.path[2].rpartition("-")[0] == stamp


def test_landmarks_are_config_keys_snapshots_and_index_files() -> None:
    for key in (
        "config",
        "a/config",
        f"keys/{ID}",
        f"a/b/snapshots/{ID}",
        f"index/{ID}",
        f"key/{ID}",
    ):
        assert is_landmark(key)
    for key in (
        "",
        "reconfig",
        "a/config/b",
        f"data/01/{ID}",
        f"data/{ID}",
        f"locks/{ID}",
        f"snapshots/{ID}-tmp-12",
        f"snapshots/{ID.upper()}",
        f"snapshots/{ID[1:]}",
        f"mysnapshots/{ID}",
        ID,
    ):
        assert not is_landmark(key)


def test_a_config_without_keys_is_no_repository() -> None:
    infos = [_info("git/config"), _info("web/config"), _info(f"web/keys/{ID}")]
    infos += [_info(f"stray/keys/{ID}"), _info(f"web/snapshots/{ID}"), _info(f"snapshots/{ID}")]

    found_layouts = layouts(infos)

    assert list(found_layouts) == ["web/"]
    assert list(found_layouts["web/"].snapshots) == [ID]


def _info(key: str) -> ObjectInfo:
    return ObjectInfo(key, 1, 0, "e")
