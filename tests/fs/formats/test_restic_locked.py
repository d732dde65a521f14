"""A repository without its password says so in its place, and hides nothing else."""

from pathlib import Path

import pytest
import trio
from support.extract import content
from support.restic import PASSWORD, Forge, flip, write_named
from support.restic_format import found, opened

from backgate.fs.formats.restic.unlock import trimmed
from backgate.gateway.errors import Unreachable


class Broken:
    """A source of a store that does not answer."""

    size = 1000

    async def read_at(self, offset: int, length: int) -> bytes:
        await trio.lowlevel.checkpoint()
        raise Unreachable("no route to the store")


def forge_snapshot(path: Path, password: str = PASSWORD) -> Forge:
    forge = Forge(path, password=password)
    forge.snapshot(forge.tree(forge.file("note", b"hello")))
    return forge


@pytest.mark.parametrize("password", [None, b"wrong"])
async def test_a_locked_repository_leaves_a_note_and_hides_no_other(
    tmp_path: Path, password: bytes | None
) -> None:
    forge_snapshot(tmp_path / "one", "another password")
    forge_snapshot(tmp_path / "two", "wrong")

    async with opened(tmp_path, tmp_path / "cache", password) as (_, backups):
        locked = backups[0]

        assert (locked.path, locked.key, locked.is_complete) == (("one",), "one/config", False)
        assert "secrets = { restic" in locked.reason
        note = locked.files["PASSWORD-NEEDED.txt"].decode()
        assert "'one/'" in note and 'secrets = { restic = "' in note and "1 snapshot waits" in note
        assert backups[1].is_complete is (password is not None)


async def test_a_locked_repository_at_the_top_has_its_note_at_the_top(tmp_path: Path) -> None:
    forge_snapshot(tmp_path)

    async with opened(tmp_path, tmp_path / "cache", None) as (_, (locked,)):
        assert locked.path == ()
        assert b"the top directory" in locked.files["PASSWORD-NEEDED.txt"]


async def test_every_key_is_tried_and_a_damaged_one_stops_no_other(tmp_path: Path) -> None:
    forge = forge_snapshot(tmp_path / "web", "the first")
    flip(forge.add_key("the second"), 30)
    write_named(tmp_path / "web" / "keys", b"no JSON")
    forge.add_key("greedy", N=1 << 30)
    forge.add_key("odd", N=3)
    forge.add_key("argon", kdf="argon2")
    forge.add_key(PASSWORD)

    async with opened(tmp_path, tmp_path / "cache") as (_, (backup,)):
        assert backup.is_complete
    async with opened(tmp_path, tmp_path / "cache", b"none") as (_, (backup,)):
        assert "none of 2 keys" in backup.reason
        assert "scrypt parameters out of bounds" in backup.reason


async def test_keys_that_take_too_long_are_not_all_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = 128 * 2**15 * 8
    monkeypatch.setattr("backgate.fs.formats.restic.unlock.SCRYPTS_WORK", 3 * work)
    forge = forge_snapshot(tmp_path / "web", "the first")
    for number in range(4):
        forge.add_key(f"slow {number}", N=2**15, r=8, p=1)

    async with opened(tmp_path, tmp_path / "cache", b"none") as (_, (backup,)):
        assert "the keys before it took too long" in backup.reason


async def test_a_new_key_opens_what_was_locked(tmp_path: Path) -> None:
    forge = forge_snapshot(tmp_path / "web", "another")

    async with opened(tmp_path, tmp_path / "cache") as (format_, (before,)):
        forge.add_key(PASSWORD)
        (after,) = await found(format_)

    assert (before.is_complete, after.is_complete) == (False, True)


async def test_the_empty_password_is_one(tmp_path: Path) -> None:
    forge_snapshot(tmp_path / "web", "")

    async with opened(tmp_path, tmp_path / "cache", b"\n") as (_, (backup,)):
        assert backup.is_complete


def test_white_space_around_a_password_does_not_count() -> None:
    assert trimmed(b" \t a b\r\n") == b"a b"
    assert trimmed("\u00a0\u3000é\u2028".encode()) == "é".encode()
    assert trimmed(b"\x1ca\xff ") == b"\x1ca\xff"


async def test_a_version_of_the_future_is_not_guessed_at(tmp_path: Path) -> None:
    Forge(tmp_path / "web", version=3).snapshot("00" * 32)

    async with opened(tmp_path, tmp_path / "cache") as (_, (backup,)):
        assert not backup.is_complete
        assert "version 3" in backup.reason


async def test_a_damaged_config_is_told(tmp_path: Path) -> None:
    flip(forge_snapshot(tmp_path / "web").path / "config", 50)

    async with opened(tmp_path, tmp_path / "cache") as (_, (backup,)):
        assert not backup.is_complete
        assert "web/config: the MAC" in backup.reason


async def test_what_could_not_be_asked_is_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forge = forge_snapshot(tmp_path / "web")

    async with opened(tmp_path, tmp_path / "cache") as (format_, (backup,)):
        forge.snapshot(forge.tree(), hostname="other")
        objects = format_.surroundings.objects
        with monkeypatch.context() as patch:
            patch.setattr(objects, "source", lambda info: Broken())
            with pytest.raises(Unreachable):
                await found(format_)
        async with format_.open(backup) as tree:
            assert await content(tree, b"note") == b"hello"
        assert len(await found(format_)) == 2
