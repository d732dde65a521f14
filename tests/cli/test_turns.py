"""`backgate turns`: what a gateway that died has left is shown, and ended when a person says so."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.gateway import Gateway, gateway

from backgate.gateway.config import RepositoryConfig
from backgate.gateway.journal import Journal, read_journal
from backgate.gateway.moves import purpose_of
from backgate.gateway.providers import open_provider
from backgate.gateway.records import Move
from backgate.gateway.turns import name_of_turn

pytestmark = pytest.mark.slow  # each command is a process

SAID = b'{"directory": "lock.exclusive/", "host": "web\\u001b[1m"}'


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Gateway]:
    objects = tmp_path / "objects"
    objects.mkdir()
    table = {"url": str(objects), "writers": "shared"}
    with gateway(tmp_path / "gateway", table) as found:
        put(tmp_path, "lock.exclusive/", "gone/rename-1", SAID)
        yield found


def put(tmp_path: Path, directory: str, mark: str, said: bytes) -> None:
    config = RepositoryConfig(name="store", url=f"file://{tmp_path}/objects")
    provider, _ = open_provider(config, None)
    provider.put(name_of_turn(directory), said, {"backgate-taken": mark})
    provider.close()


def test_a_turn_is_ended_when_a_person_says_that_its_gateway_is_gone(made: Gateway) -> None:
    shown = made.run("turns", "list", "store").stdout
    asked = made.run("turns", "end", "store", "repository/lock.exclusive", check=False)
    (turn,) = made.json("turns", "list", "store")  # type: ignore[misc]
    ended = made.json("turns", "end", "store", "repository/lock.exclusive/", "--yes")
    again = made.run("turns", "end", "store", "repository/lock.exclusive", check=False)

    assert re.search(r" +gone +web\\x1b\[1m +repository/lock.exclusive$", shown, re.M)
    assert "never run again? [y/N]" in asked.stdout
    assert asked.returncode == 130
    assert (turn["directory"], turn["gateway"], turn["is_own"]) == (
        "lock.exclusive/",
        "gone",
        False,
    )
    assert ended == []
    assert again.returncode == 1
    assert "no gateway is making repository/lock.exclusive" in again.stderr


def test_a_turn_of_this_gateway_is_ended_without_a_question_unless_it_runs(
    made: Gateway, tmp_path: Path
) -> None:
    made.mount()
    made.umount()
    (path,) = made.home.glob("state/**/journal")
    state, _ = read_journal(path.parent)
    move = Move(7, "", name_of_turn("mine/"), is_taken=False, since_ns=5)
    put(tmp_path, "mine/", f"{state.header.gateway}/{purpose_of(move)}", b"")
    made.mount()
    running = made.run("turns", "end", "store", "repository/mine", check=False)
    made.umount()
    journal = Journal(path.parent)
    journal.append(move)
    journal.close()

    shown = made.run("turns", "list", "store").stdout
    ended = made.json("turns", "end", "store", "repository/mine")

    assert running.returncode == 2
    assert "another gateway is writing here" in running.stderr
    assert "this one" in shown
    assert isinstance(ended, list)
    assert [one["gateway"] for one in ended] == ["gone"]
