import pytest
from hypothesis import given
from hypothesis import strategies as st

from backgate.gateway.metadata.splitting import QUESTIONS, split_point

keys = st.lists(
    st.text(alphabet=st.sampled_from("0f/é\U0001f600\uffff\0-"), min_size=1, max_size=12),
    min_size=1,
    unique=True,
    max_size=60,
)


class Asked:
    """The keys of a store, and how many questions were put to it."""

    def __init__(self, keys: list[str]) -> None:
        self.keys, self.count = sorted(keys), 0

    async def first_behind(self, text: str) -> str | None:
        self.count += 1
        return next((key for key in self.keys if key > text), None)


@given(keys, st.data())
def test_a_split_point_is_a_key_of_the_stretch(found: list[str], data: st.DataObject) -> None:
    asked = Asked(found)
    first = data.draw(st.sampled_from(asked.keys))

    point = run(first, None, asked)

    assert point is None or (point in asked.keys and point > first)
    assert asked.count <= QUESTIONS


@given(keys)
def test_nothing_is_asked_behind_the_end(found: list[str]) -> None:
    ordered = sorted(found)
    texts: list[str] = []
    asked = Asked(found)

    async def first_behind(text: str) -> str | None:
        texts.append(text)
        key = await asked.first_behind(text)
        return key if key is not None and key < ordered[-1] else None

    drive(split_point(ordered[0], ordered[-1], first_behind))

    assert all(text < ordered[-1] for text in texts)


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("digits", [f"xo-vm-backups/{n // 100:06}/{n:09}.vhd" for n in range(20_000)]),
        ("hex", [f"data/{n * 2654435761 % 2**32:08x}" for n in range(20_000)]),
        ("words", [f"{'abcdefghij'[n % 10]}-{n}/x" for n in range(5_000)]),
    ],
)
def test_keys_that_share_a_long_beginning_are_split_near_the_middle(
    name: str, made: list[str]
) -> None:
    asked = Asked(made)

    point = run(asked.keys[len(made) // 50], None, asked)

    assert point is not None
    assert 0.1 < asked.keys.index(point) / len(made) < 0.9
    assert asked.count <= QUESTIONS


def test_the_last_key_is_not_split() -> None:
    asked = Asked(["a", "b"])

    assert run("b", None, asked) is None


def run(first: str, end: str | None, asked: Asked) -> str | None:
    return drive(split_point(first, end, asked.first_behind))


def drive(coroutine: object) -> str | None:
    """Run what never waits."""
    try:
        coroutine.send(None)  # type: ignore[attr-defined]
    except StopIteration as ended:
        result: str | None = ended.value
        return result
    raise AssertionError("it waited")
