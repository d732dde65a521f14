"""Whatever tools do to a mounted repository, and whenever it is killed, it equals a plain dict."""

import tempfile
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from model.mounted import MountedModel
from model.writes import VERBS, random_steps
from support.writing import CONFIG

from backgate.gateway.config import RepositoryConfig

pytestmark = [pytest.mark.mounted, pytest.mark.timeout(3600)]

NUMBER = st.integers(0, 2**20)
CONFIGS = {
    "roomy": CONFIG,
    "pressed": msgspec.structs.replace(CONFIG, spool=40_000),
    "lazy": msgspec.structs.replace(CONFIG, durability="journal"),
}


def machine(config: RepositoryConfig) -> type[RuleBasedStateMachine]:
    """Return a machine whose rules are the model's verbs."""

    class Writes(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self._home = tempfile.TemporaryDirectory(prefix="backgate-model-")
            self._model = MountedModel(Path(self._home.name), config)
            self._stack = ExitStack()
            self._stack.enter_context(self._home)
            self._stack.enter_context(self._model)

        @rule(verb=st.sampled_from(VERBS), one=NUMBER, two=NUMBER, three=NUMBER)
        def step(self, verb: str, one: int, two: int, three: int) -> None:
            self._model.do(verb, one, two, three)

        def teardown(self) -> None:
            self._stack.close()

    return Writes


def found_by_hypothesis(config: RepositoryConfig, examples: int, steps: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine(config),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=examples < 10,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_a_mount_that_is_killed_equals_the_model(config: RepositoryConfig, tmp_path: Path) -> None:
    with MountedModel(tmp_path, config) as model:
        for step in random_steps(3, 120):
            model.do(*step)

    assert model.crashes > 1


@pytest.mark.slow
def test_any_sequence_on_a_mount_equals_the_model() -> None:
    found_by_hypothesis(CONFIG, examples=3, steps=25)


@pytest.mark.soak
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_any_long_sequence_on_a_mount_equals_the_model(config: RepositoryConfig) -> None:
    found_by_hypothesis(config, examples=60, steps=60)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_thousands_of_steps_on_a_mount_equal_the_model(
    config: RepositoryConfig, seed: int, tmp_path: Path
) -> None:
    with MountedModel(tmp_path, config) as model:
        for step in random_steps(1000 + seed, 500):
            model.do(*step)
