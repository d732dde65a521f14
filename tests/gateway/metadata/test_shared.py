"""An index in PostgreSQL, open in several gateways at once."""

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import trio
from servers.postgresql import PostgreSQL

from backgate.gateway.errors import ConfigError, StoreError, Unreachable
from backgate.gateway.metadata import coverage, membership, names, own, progress, spans
from backgate.gateway.metadata.database import Database
from backgate.gateway.metadata.file import Transaction
from backgate.gateway.metadata.place import Shared, opened_index
from backgate.gateway.metadata.postgresql import Server
from backgate.gateway.metadata.shared import SharedIndex
from backgate.gateway.provider import ObjectInfo

pytestmark = [pytest.mark.live, pytest.mark.slow]


@pytest.fixture
def server(postgresql_server: PostgreSQL) -> Server:
    """An index that nobody has used."""
    return postgresql_server.server()


@pytest.fixture
async def two(server: Server) -> AsyncIterator[tuple[SharedIndex, SharedIndex]]:
    """The index as two gateways have it open."""
    async with AsyncExitStack() as stack:
        yield await opened(stack, server), await opened(stack, server)


async def opened(stack: AsyncExitStack, server: Server) -> SharedIndex:
    index = await opened_index(Shared(server, "store"))
    assert isinstance(index, SharedIndex)
    stack.push_async_callback(index.aclose)
    return index


def info(key: str, size: int = 1) -> ObjectInfo:
    return ObjectInfo(key, size, 1, "etag")


def expire(postgresql: PostgreSQL, server: Server, table: str) -> None:
    """Let the time pass for which a gateway counts as alive."""
    postgresql.sql(f"UPDATE {server.schema}.{table} SET until = now() - interval '1 second'")


async def test_a_change_is_known_to_all_when_it_returns(
    two: tuple[SharedIndex, SharedIndex],
) -> None:
    one, other = two
    for number in range(20):
        await one.note(own.stored, info("a", number), None)
        found = await other.read(names.object_at, b"a")
        assert found is not None
        assert found.info.size == number
        assert other.generation == one.generation


async def test_others_are_told_which_keys_changed_and_what_they_did_is_found(
    two: tuple[SharedIndex, SharedIndex],
) -> None:
    one, other = two
    before = other.generation

    await one.note(own.stored, info("d/a"), None)
    await other.note(own.stored, info("d/b"), None)
    await one.note(own.removed, [b"d/a"])
    await other.poll()
    await one.poll()

    assert other.changes.since(before) == {b"d/a", b"d/b"} | {b"d/"} & other.changes.since(before)
    assert b"d/a" in other.changes.found_since(before)
    assert b"d/b" not in other.changes.found_since(before)
    assert b"d/b" in one.changes.found_since(before)


async def test_very_many_keys_are_told_as_such(two: tuple[SharedIndex, SharedIndex]) -> None:
    one, other = two
    before = other.generation

    def many(change: Transaction) -> None:
        for number in range(200):
            own.stored(change, info(f"{number}"), None)

    await one.write(many)
    await other.poll()

    assert other.generation == one.generation
    assert other.changes.since(before) is None


async def test_who_listens_hears_at_once_of_others_and_not_of_itself(
    two: tuple[SharedIndex, SharedIndex],
) -> None:
    one, other = two
    for index in two:
        await index.news(60)  # from here on it listens
    with trio.move_on_after(0.5) as quiet:
        await other.news(60)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.note, own.stored, info("a"), None)
        with trio.fail_after(60):
            await other.news(600)
    with trio.move_on_after(0.5) as alone:
        await one.news(60)

    assert quiet.cancelled_caught
    assert alone.cancelled_caught


async def test_changes_at_once_are_counted_one_by_one(
    two: tuple[SharedIndex, SharedIndex],
) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(30):
            index = two[number % 2]
            nursery.start_soon(index.note, own.stored, info(f"{number:02}", 2), None)
    for index in two:
        now = await index.read(progress.progress)
        assert (now.objects, now.bytes) == (30, 60)


async def test_one_crawls_until_it_ends_or_is_gone(
    two: tuple[SharedIndex, SharedIndex],
    server: Server,
    postgresql_server: PostgreSQL,
) -> None:
    one, other = two
    async with one.turn() as first, other.turn() as second:
        assert (first, second) == (True, False)
        expire(postgresql_server, server, "turn")
        async with other.turn() as third:
            assert third
    async with one.turn() as fourth:
        assert fourth


async def test_a_gateway_that_is_gone_leaves_a_pass_to_be_made(
    server: Server, postgresql_server: PostgreSQL, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with AsyncExitStack() as stack:
        one = await opened(stack, server)
        gone = await opened(stack, server)
        await gone.note(own.stored, info("a"), None)
        assert not await one.read(progress.due)
        expire(postgresql_server, server, "gateway")
        one._self.beat = float("-inf")
        await one.poll()

        assert await one.read(progress.due)
        assert "gone" in caplog.text


async def test_a_change_that_was_cancelled_is_doubted_before_anything_is_answered(
    two: tuple[SharedIndex, SharedIndex],
) -> None:
    one, _ = two
    await one.write(lambda change: coverage.cover(change.db, b"", spans.END, 1, 1))

    with trio.CancelScope() as scope:
        scope.cancel()
        await one.note(own.removed, [b"a"])

    assert await one.read(coverage.span_confirmed, b"", spans.END) is None


async def test_tables_that_are_dropped_are_made_again_and_nothing_is_complete(
    two: tuple[SharedIndex, SharedIndex], server: Server, postgresql_server: PostgreSQL
) -> None:
    one, other = two
    await one.note(own.stored, info("a"), None)
    before = one.openings, one.generation

    postgresql_server.sql(f"DROP SCHEMA {server.schema} CASCADE")

    assert await one.read(names.object_at, b"a") is None
    assert await other.read(coverage.span_confirmed, b"", spans.END) is None
    assert (one.openings, one.generation) > before
    await other.note(own.stored, info("b"), None)
    assert await one.read(names.object_at, b"b") is not None


async def test_a_database_that_has_lost_changes_is_doubted(
    two: tuple[SharedIndex, SharedIndex],
    server: Server,
    postgresql_server: PostgreSQL,
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, _ = two
    await one.write(lambda change: coverage.cover(change.db, b"", spans.END, 1, 1))
    await one.note(own.stored, info("a"), None)
    known = one.generation

    postgresql_server.sql(f"UPDATE {server.schema}.state SET sequence = sequence - 1")
    await one.poll()

    assert one.generation > known
    assert await one.read(coverage.span_confirmed, b"", spans.END) is None
    assert "has lost changes" in caplog.text


async def test_the_index_of_another_store_is_refused(server: Server) -> None:
    async with AsyncExitStack() as stack:
        await opened(stack, server)
        with pytest.raises(ConfigError, match="is the index of store, not of other"):
            await opened_index(Shared(server, "other"))


async def test_the_index_of_another_release_is_refused(
    server: Server, postgresql_server: PostgreSQL
) -> None:
    async with AsyncExitStack() as stack:
        await opened(stack, server)
    postgresql_server.sql(f"UPDATE {server.schema}.origin SET version = 1")

    with pytest.raises(ConfigError, match="made by a release with index 1"):
        await opened_index(Shared(server, "store"))


async def test_many_gateways_may_make_the_index_at_once(server: Server) -> None:
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(opened, stack, server)


async def test_a_wrong_password_is_said_and_not_shown(
    server: Server, autojump_clock: trio.abc.Clock
) -> None:
    wrong = Server(server.url, server.schema, "not the password")

    with pytest.raises(Unreachable) as caught:
        await opened_index(Shared(wrong, "store"))

    assert "password authentication failed" in str(caught.value)
    assert "not the password" not in str(caught.value) + repr(wrong)


async def test_what_a_database_cannot_keep_is_an_error(
    two: tuple[SharedIndex, SharedIndex],
) -> None:
    one, _ = two
    for etag in ("\0", "\ud800"):
        with pytest.raises(StoreError):
            await one.write(own.stored, ObjectInfo("a", 1, 1, etag), None)

    assert await one.read(names.object_at, b"a") is None


async def test_any_bytes_are_kept_and_sorted_as_bytes(
    two: tuple[SharedIndex, SharedIndex],
) -> None:
    keys = ["\x01", "%s", "?", "Z", "a", "a/", "a//b", "\u00e9", "e\u0301", "\ud800", "\U0010ffff"]
    one, other = two
    for key in keys:
        await one.note(own.stored, info(key), None)

    def all_keys(db: Database) -> list[bytes]:
        return [key for (key,) in db.execute("SELECT key FROM object ORDER BY key")]

    found = await other.read(all_keys)

    assert found == sorted(spans.encoded(key) for key in keys)


def test_a_heartbeat_may_be_lost_before_a_gateway_counts_as_gone() -> None:
    assert 2 * membership.BEAT < membership.ALIVE
