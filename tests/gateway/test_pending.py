"""Tests of `gateway/pending.py`: without a gateway the same is listed that one would find."""

from pathlib import Path

from support.writing import create, memory, opened

from backgate.gateway.pending import read_pending


async def test_what_a_torn_journal_does_not_know_is_listed(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    async with opened(tmp_path, memory()) as repository:
        for name in ("a", "b"):
            file = await create(repository, name)
            await file.write_at(0, b"content")
    journal = spool / "journal"
    journal.write_bytes(journal.read_bytes()[:-1])

    listed = read_pending(spool, [])

    assert sorted((one.key, one.state) for one in listed) == [
        ("?", "left over"),
        ("a", "left over"),
    ]
    async with opened(tmp_path, memory()) as repository:
        assert [one.number for one in repository.spool.pending()] == [one.number for one in listed]


async def test_what_was_done_with_is_not_listed(tmp_path: Path) -> None:
    async with opened(tmp_path, memory()) as repository:
        file = await create(repository, "a")
        await file.write_at(0, b"content")
        await repository.tree.unlink(await repository.tree.root(), b"a")

    assert read_pending(tmp_path / "spool", []) == []
