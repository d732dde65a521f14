"""`backgate validate` on a terminal, in a script, and when somebody ends it."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support.gateway import COMMAND

from backgate.cli.main import main

pytestmark = pytest.mark.slow

MANY = "5000"  # objects; enough that somebody can interrupt while they are written
WITHIN = 120.0  # seconds


@pytest.fixture(autouse=True)
def _no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("BACKGATE_CONFIG", raising=False)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["validate", *arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_json_and_the_page_tell_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"

    assert run("memory://told", "--objects", "50", "--json", "--html", str(page)) == 0

    told = json.loads(capsys.readouterr().out)
    assert (told["tier"], told["objects"], told["store"]) == (1, 50, "memory:told")
    assert told["left_behind"] == []
    assert f"Tier {told['tier']}" in page.read_text()


def test_the_terminal_shows_tier_checks_and_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("memory://shown", "--objects", "50") == 0

    shown = capsys.readouterr().out
    for words in ("memory:shown: Tier 1", "conditional put", "Pages of a listing", "Throughput"):
        assert words in shown


def test_what_costs_money_is_not_done_unasked(capsys: pytest.CaptureFixture[str]) -> None:
    where = ("s3://bucket", "--endpoint-url", "http://127.0.0.1:9", "--credentials", "file:/none")
    keys = ("s3://bucket", "--endpoint-url", "http://127.0.0.1:9")

    assert run(*where) == 2
    assert "/none" in capsys.readouterr().err
    assert run(*keys) == 2
    said = capsys.readouterr().err
    assert "--yes agrees to it" in said
    assert "is not known" in said


def test_a_known_price_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("s3://bucket", "--provider", "aws", "--region", "eu-central-1") == 2

    assert "at most 0." in capsys.readouterr().err


def test_wrong_usage_is_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("memory://x:repository/web") == 2
    assert "without a path" in capsys.readouterr().err
    assert run("memory://x", "--html", str(tmp_path / "absent" / "page.html")) == 2
    assert "no such directory" in capsys.readouterr().err
    assert run("memory://x", "--objects", "0") == 2


def started(store: Path) -> subprocess.Popen[str]:
    """A validation in the middle of its work."""
    environment = {**os.environ, "HOME": str(store.parent)}
    process = subprocess.Popen(
        [COMMAND, "validate", store, "--objects", MANY],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + WITHIN
    while len(objects(store)) < 200:
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    return process


def objects(store: Path) -> list[Path]:
    """All of validations; `os.walk` does not mind directories that vanish under it."""
    found = os.walk(store / "backgate-validation")
    return [Path(folder, name) for folder, _, names in found for name in names]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_cleans_up(number: signal.Signals, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / "mine").write_bytes(b"x")
    process = started(store)

    process.send_signal(number)
    _, said = process.communicate(timeout=WITHIN)

    assert process.returncode == 130
    assert said == "backgate: interrupted: cleaning up\n"
    assert objects(store) == []
    assert (store / "mine").read_bytes() == b"x"


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    process = started(store)
    process.kill()
    process.communicate(timeout=WITHIN)
    assert objects(store) != []

    assert run(str(store), "--objects", "20", "--json") == 0

    assert objects(store) == []
