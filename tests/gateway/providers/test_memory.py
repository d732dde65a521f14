"""The bucket in memory: the contract, and its faults."""

import threading

import pytest

from backgate.gateway.errors import Unreachable
from backgate.gateway.provider import Abilities, KeyRules, Limits
from backgate.gateway.providers.memory import Fault, Memory
from backgate.gateway.testing.provider_contract import ProviderContract, fill, keys_of

SMALL = Limits(part_min=1024)


class TestMemory(ProviderContract):
    @pytest.fixture
    def provider(self) -> Memory:
        return Memory(abilities=Abilities(limits=SMALL, conditional_delete=True))


class TestMemoryThatIsDifferent(ProviderContract):
    @pytest.fixture
    def provider(self) -> Memory:
        rules = KeyRules(255, dot_components=False, empty_components=False)
        return Memory(
            abilities=Abilities(
                lists_in_order=False,
                conditional_put=False,
                copies_objects=False,
                copies_parts=False,
                limits=SMALL,
                keys=rules,
            )
        )


def test_a_store_without_order_lists_directory_by_directory() -> None:
    memory = Memory(abilities=Abilities(lists_in_order=False))
    fill(memory, ["o/A", "o/a-", "o/a.b", "o/a/x", "o/a0"])

    for limit in range(1, 6):
        assert keys_of(memory, limit=limit) == ["o/A", "o/a/x", "o/a-", "o/a.b", "o/a0"]


def test_a_fault_begins_and_ends_when_it_is_told() -> None:
    memory = Memory()
    memory.put("a", b"")
    memory.faults.append(
        Fault(verb="head", key="a", skip=1, times=2, error=lambda: Unreachable("x"))
    )

    answers = []
    for _ in range(4):
        try:
            answers.append(memory.head("a").key)
        except Unreachable as error:
            answers.append(str(error))

    assert answers == ["a", "x", "x", "a"]


def test_a_lost_answer_leaves_the_object_stored() -> None:
    memory = Memory()
    memory.faults.append(Fault(verb="put", times=1, is_lost=True))

    with pytest.raises(Unreachable):
        memory.put("a", b"data")

    assert memory.get("a", 0, 9) == b"data"


def test_a_short_page_is_whole_with_the_next() -> None:
    memory = Memory()
    fill(memory, ["a", "b", "c"])
    memory.faults.append(Fault(verb="page", short=2))

    page = memory.page()

    assert len(page.objects) == 2
    assert page.token is not None
    assert keys_of(memory) == ["a", "b", "c"]


def test_it_needs_a_thread_only_while_a_fault_holds_it() -> None:
    memory = Memory()
    assert memory.is_instant

    memory.faults.append(Fault(gate=threading.Event(), times=1))
    assert not memory.is_instant

    memory.faults[0].gate.set()  # type: ignore[union-attr]
    memory.check()
    assert memory.is_instant
