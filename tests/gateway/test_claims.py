"""Tests of `gateway/claims.py`."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from backgate.gateway.claims import Claims


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a/", "a/b", True),
        ("a/b", "a/", True),
        ("a/", "a", False),
        ("a/", "a/b/", True),
        ("a/", "ab", False),
    ],
)
async def test_changes_of_one_name_happen_one_after_another(
    one: str, other: str, overlap: bool
) -> None:
    claims, has_claim = Claims(), trio.Event()

    async def claim() -> None:
        async with claims.claim(other):
            has_claim.set()

    async with trio.open_nursery() as nursery, claims.claim(one):
        nursery.start_soon(claim)
        await wait_all_tasks_blocked()
        assert has_claim.is_set() == (not overlap)

    assert has_claim.is_set()


async def test_a_claim_ends_with_an_error() -> None:
    claims = Claims()

    with pytest.raises(ZeroDivisionError):
        async with claims.claim("a", "b"):
            raise ZeroDivisionError

    async with claims.claim("a", "b"):
        pass
