"""Tests of `gateway/uploads.py`: none of ours outlives its use, none of others is touched."""

import os
from pathlib import Path

import pytest
import trio
import trio.lowlevel
from support.writing import CONFIG, PART, create, memory, opened

from backgate.gateway.errors import Unreachable
from backgate.gateway.providers.memory import Fault

DATA = os.urandom(20 * PART)


async def test_an_upload_whose_beginning_a_crash_cut_short_is_aborted_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = memory()
    others = provider.begin_upload("other")
    async with opened(tmp_path, provider) as repository:
        begin = repository.store.begin_upload

        async def cut_short(*arguments: object) -> str:
            await begin(*arguments)  # type: ignore[arg-type]
            await trio.sleep_forever()
            return ""

        monkeypatch.setattr(repository.store, "begin_upload", cut_short)
        file = await create(repository, "long")
        await file.write_at(0, DATA)
        while len(provider.uploads()) < 2:
            await trio.lowlevel.checkpoint()

    async with opened(tmp_path, provider) as repository:
        await repository.spool.drained()

        assert [one.upload for one in provider.uploads()] == [others]
        assert not repository.spool.journal.state.beginnings


async def test_an_upload_whose_beginning_was_told_twice_is_found(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    provider = memory()
    async with opened(tmp_path, provider, CONFIG, patience=60.0) as repository:
        provider.faults = [Fault(verb="begin_upload", times=1, is_lost=True)]
        file = await create(repository, "long")
        await file.write_at(0, DATA)
        await file.flush()
        await file.release()
        assert repository.content("long") == DATA
        assert len(provider.uploads()) == 1  # nobody was told its name

    async with opened(tmp_path, provider) as repository:
        await repository.spool.drained()

        assert provider.uploads() == []
        assert repository.content("long") == DATA


async def test_uploads_that_cannot_be_looked_for_are_looked_for_later(tmp_path: Path) -> None:
    provider = memory()
    async with opened(tmp_path, provider) as repository:
        provider.faults = [
            Fault(verb="begin_upload", is_lost=True),
            Fault(verb="put*", error=lambda: Unreachable("away")),
        ]
        file = await create(repository, "long")
        await file.write_at(0, DATA)
        with pytest.raises(Unreachable):
            await file.flush()
    provider.faults = [Fault(verb="*upload*", error=lambda: Unreachable("away"))]
    async with opened(tmp_path, provider) as repository:
        await repository.spool.is_recovered.wait()
        assert repository.spool.journal.state.beginnings
    provider.faults = []

    async with opened(tmp_path, provider) as repository:
        await repository.spool.drained()

        assert provider.uploads() == []
        assert repository.content("long") == DATA
