"""Whatever tools do to a writable repository, and wherever it crashes, it equals a plain dict."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model.writes import VERBS, Model, random_steps
from support.writing import CONFIG, memory

NUMBER = st.integers(0, 2**20)
STEPS = st.lists(st.tuples(st.sampled_from(VERBS), NUMBER, NUMBER, NUMBER), max_size=40)
PRESSED = msgspec.structs.replace(CONFIG, spool=40_000)  # bytes; less than most files have
LAZY = msgspec.structs.replace(CONFIG, durability="journal")
CONFIGS = {"roomy": CONFIG, "pressed": PRESSED, "lazy": LAZY}


@pytest.mark.slow
@pytest.mark.parametrize("config", [CONFIG, PRESSED], ids=["roomy", "pressed"])
def test_any_sequence_of_operations_equals_the_model(
    tmp_path_factory: pytest.TempPathFactory, config: Any
) -> None:
    @settings(
        max_examples=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        derandomize=True,
    )
    @given(steps=STEPS)
    def equals(steps: list[tuple[str, int, int, int]]) -> None:
        model = Model(tmp_path_factory.mktemp("run"), memory(), config)
        trio.run(model.run, steps)

    equals()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_long_random_runs_equal_the_model(tmp_path: Path, config: Any, seed: int) -> None:
    model = Model(tmp_path, memory(), config)

    trio.run(model.run, random_steps(seed, 100))


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(100, 125))
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_thousands_of_steps_equal_the_model(tmp_path: Path, config: Any, seed: int) -> None:
    model = Model(tmp_path, memory(), config)

    trio.run(model.run, random_steps(seed, 400))


@pytest.mark.slow
def test_a_store_that_copies_no_parts_gives_the_same(tmp_path: Path) -> None:
    model = Model(tmp_path, memory(copies_parts=False), PRESSED)

    trio.run(model.run, random_steps(1, 150))


@pytest.mark.slow
def test_a_store_without_order_gives_the_same(tmp_path: Path) -> None:
    model = Model(tmp_path, memory(lists_in_order=False), PRESSED)

    trio.run(model.run, random_steps(2, 150))
