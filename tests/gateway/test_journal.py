"""Tests of `gateway/journal.py` and `gateway/records.py`."""

import os
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from support.full_disk import full_disk

from backgate.gateway import journal as journal_module
from backgate.gateway.attributes import Attributes
from backgate.gateway.journal import JOURNAL, Journal, read_journal
from backgate.gateway.records import (
    Aside,
    Began,
    Cleared,
    Ended,
    Gone,
    Held,
    Left,
    Move,
    Moved,
    Named,
    Record,
    Spooled,
    State,
)

ATTRIBUTES = Attributes(mode=0o100600, uid=1, gid=2, mtime_ns=3)


def spooled(number: int, key: str = "key", *, is_durable: bool = False) -> Spooled:
    return Spooled(
        number=number,
        key=key,
        attributes=ATTRIBUTES,
        size=100,
        local=[(0, 100)],
        held=[],
        epoch=0,
        is_durable=is_durable,
        is_closed=False,
        is_new=True,
        if_absent=False,
    )


def held(start: int, stop: int) -> Held:
    return Held(start, stop, 0, ".backgate/g/1", stop - start, 5, "etag")


RECORDS: list[Record] = [
    spooled(1),
    spooled(2, "other"),
    Began("upload", "key"),
    Aside(".backgate/g/1"),
    Left(1, held(20, 40)),
    Named(2, "renamed"),
    Move(1, "from/", "to/"),
    spooled(3, is_durable=True),
]


def test_what_was_appended_is_read_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for record in RECORDS:
        journal.append(record)
    journal.close()

    again = Journal(tmp_path)

    assert again.state == journal.state
    assert again.state.files[1].local == [(0, 20), (40, 100)]
    assert again.state.files[1].held == [held(20, 40)]
    assert again.state.files[2].key == "renamed"
    assert again.state.uploads == {"upload": "key"}
    again.close()


def test_what_is_done_is_forgotten(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for record in [*RECORDS, Gone(1), Gone(2), Gone(3), Ended("upload"), Moved(1)]:
        journal.append(record)
    journal.append(Cleared([".backgate/g/1"]))
    journal.close()

    state, torn = read_journal(tmp_path)

    assert (state, torn) == (State(), 0)


@given(st.integers(0, 2000), st.integers(0, 255))
@settings(max_examples=60)
def test_a_torn_end_loses_only_what_was_torn(
    tmp_path_factory: pytest.TempPathFactory, cut: int, junk: int
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    journal = Journal(folder)
    states, sizes = [State()], [(folder / JOURNAL).stat().st_size]
    for number in range(1, 6):
        journal.append(spooled(number, "x" * number * 20))
        sizes.append((folder / JOURNAL).stat().st_size)
        states.append(read_journal(folder)[0])
    journal.close()
    cut %= sizes[-1]

    data = (folder / JOURNAL).read_bytes()[:cut]
    (folder / JOURNAL).write_bytes(data + bytes([junk]) * 3)
    state, torn = read_journal(folder)

    whole = max((n for n, size in enumerate(sizes) if size <= cut), default=0)
    assert state.files == states[whole].files
    assert torn


def test_a_torn_journal_is_kept_aside_and_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path)
    journal.append(spooled(1))
    journal.close()
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b"half a rec")

    again = Journal(tmp_path)
    again.append(spooled(2))
    again.close()

    assert set(read_journal(tmp_path)[0].files) == {1, 2}
    assert again.torn == len(b"half a rec")
    assert (tmp_path / f"{JOURNAL}.torn").exists()
    assert "torn" in caplog.text


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(spooled(1))
    journal.append(spooled(2))
    journal.close()
    data = bytearray((tmp_path / JOURNAL).read_bytes())
    data[-5] ^= 1
    (tmp_path / JOURNAL).write_bytes(data)

    state, torn = read_journal(tmp_path)

    assert set(state.files) == {1}
    assert torn


async def test_concurrent_callers_share_one_fsync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, calls = Journal(tmp_path), 0
    fsync = os.fsync

    def counted(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    async with trio.open_nursery() as nursery:
        for number in range(1, 50):
            journal.append(spooled(number))
            nursery.start_soon(journal.synchronize)

    assert 1 <= calls <= 3
    journal.close()


async def test_a_failed_fsync_is_told_and_made_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    journal.append(spooled(1))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(5, "I/O error")))
        with pytest.raises(OSError, match="I/O error"):
            await journal.synchronize()

    await journal.synchronize()

    assert set(read_journal(tmp_path)[0].files) == {1}
    journal.close()


def test_a_journal_that_has_grown_long_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "COMPACT_FROM", 2000)
    journal = Journal(tmp_path)
    journal.append(spooled(1))
    for _ in range(200):
        journal.append(spooled(2))
        journal.append(Gone(2))

    journal.close()

    assert (tmp_path / JOURNAL).stat().st_size < 4000
    assert set(read_journal(tmp_path)[0].files) == {1}


def test_a_journal_that_a_full_disk_takes_in_part_stays_as_it_was(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number in range(1, 20):
        journal.append(spooled(number))
    journal.close()
    size = (tmp_path / JOURNAL).stat().st_size

    with full_disk(size - 1), pytest.raises(OSError):
        Journal(tmp_path)

    state, torn = read_journal(tmp_path)
    assert (len(state.files), torn) == (19, 0)


def test_a_torn_journal_is_not_lost_to_a_full_disk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path)
    for number in range(1, 20):
        journal.append(spooled(number))
    journal.close()
    os.truncate(tmp_path / JOURNAL, (tmp_path / JOURNAL).stat().st_size - 1)

    with full_disk(100), pytest.raises(OSError):
        Journal(tmp_path)

    assert len(read_journal(tmp_path)[0].files) == 18
    assert "torn" in caplog.text


def test_files_are_remembered_in_the_order_they_became_durable() -> None:
    state = State()
    for number, is_durable in ((1, False), (2, False), (2, True), (1, True)):
        state.apply(spooled(number, is_durable=is_durable))

    assert list(state.files) == [2, 1]
