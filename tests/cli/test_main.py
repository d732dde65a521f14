"""The command line: quick, and one clear line for whatever goes wrong."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from backgate import __version__
from backgate.cli import main as module
from backgate.cli.logs import HANDLER, JournalFormatter, log_to_stderr
from backgate.gateway.errors import (
    BackgateError,
    ConfigError,
    Damaged,
    FileError,
    Refused,
    UsageError,
)

COMMAND = Path(sys.executable).parent / "backgate"
HEAVY = ("boto3", "botocore", "trio", "pyfuse3", "rich", "sqlite3", "msgspec", "cryptography")


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("backgate")
    before = list(root.handlers), ours.level
    yield
    root.handlers[:], level = before
    ours.setLevel(level)


def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(COMMAND), *arguments], env=os.environ | more, capture_output=True, text=True
    )


def ending(monkeypatch: pytest.MonkeyPatch, error: BaseException, *arguments: str) -> int:
    """Run a command that raises `error`, and return the exit code."""

    @click.command()
    def command() -> None:
        raise error

    def get(_self: object, _context: click.Context, _name: str) -> click.Command:
        module._add_log_options(command)
        return command

    monkeypatch.setattr(module.Commands, "get_command", get)
    with pytest.raises(SystemExit) as caught:
        module.main(["anything", *arguments])
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.mark.slow
def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from backgate.cli.main import main\n"
        "try: main(['--help'])\n"
        f"except SystemExit: sys.stderr.write(' '.join(set({HEAVY}) & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert result.stderr == ""
    assert "Mounting:" in result.stdout
    assert "backgate mount ./store" in result.stdout


def test_a_low_soft_limit_of_descriptors_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {}
    monkeypatch.setattr(module.resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(module.resource, "setrlimit", limits.__setitem__)

    assert ending(monkeypatch, BackgateError("x")) == 1
    assert limits == {module.resource.RLIMIT_NOFILE: (4096, 4096)}


@pytest.mark.slow
def test_the_installed_command_tells_its_version() -> None:
    assert run("--version").stdout == f"backgate {__version__}\n"


@pytest.mark.slow
@pytest.mark.parametrize("command", [[], ["spool"]], ids=["backgate", "spool"])
def test_without_a_command_the_help_is_shown_as_it_is(command: list[str]) -> None:
    asked, alone = run(*command, "--help"), run(*command)

    assert alone.stderr == asked.stdout
    assert "..." not in asked.stdout.partition("Mounting:")[2]
    assert (alone.stdout, alone.returncode) == ("", 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "backgate: No such command 'nonsense'"),
        (["ls"], "backgate: ls: Missing argument 'TARGET'; see backgate ls --help"),
        (["ls", "--nonsense", "x"], "backgate: ls: No such option '--nonsense'"),
        (["ls", "./x", "--secret", "hunter2"], "backgate: --secret: write FORMAT=WHERE"),
        (["ls", "unknown"], "backgate: no repository 'unknown': no configuration file was found"),
        (["cp", "./x:backups"], "backgate: cp: where to? write: backgate cp ./x:backups DIRECTORY"),
        (["mount", "./x:backups", "/tmp", "--view", "backups"], "backgate: mount: file://"),
        (["mount", "./x", "/tmp", "-o", "noexec"], "backgate: mount: -o noexec: not understood"),
        (["spool", "retry", "./x", "key"], "backgate: spool: key: write it as it is listed"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = run(*arguments, XDG_CONFIG_HOME=str(tmp_path), HOME=str(tmp_path))

    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1
    assert "hunter2" not in result.stderr
    assert result.returncode == 2


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (UsageError("x: y"), 2, "backgate: x: y\n"),
        (ConfigError("x: y"), 2, "backgate: x: y\n"),
        (BackgateError("x: y"), 1, "backgate: x: y\n"),
        (Damaged("pack", 7, "MAC"), 1, "backgate: pack at byte 7: MAC\n"),
        (FileError(2, b"a\xff"), 1, "backgate: a\\xff: No such file or directory\n"),
        (FileNotFoundError(2, "No such file", "/x"), 1, "backgate: /x: No such file\n"),
        (OSError(28, "No space left"), 1, "backgate: operating system: No space left\n"),
        (ExceptionGroup("", [ValueError("a"), Refused("no")]), 1, "backgate: no\n"),
        (BaseExceptionGroup("", [KeyboardInterrupt()]), 130, ""),
        (KeyboardInterrupt(), 130, "\n"),
        (click.Abort(), 130, ""),
        (RuntimeError("bug"), 1, "backgate: unexpected RuntimeError: bug; `--debug` shows where\n"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_each_error_has_its_line_and_its_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    says: str,
) -> None:
    assert ending(monkeypatch, error) == code
    assert capsys.readouterr().err == says


@pytest.mark.parametrize("option", ["--debug", "-vv"])
def test_debugging_shows_where_an_error_came_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    ending(monkeypatch, BackgateError("x: y"), option)

    said = capsys.readouterr().err
    assert "Traceback" in said
    assert said.endswith("backgate: x: y\n")


def test_the_journal_is_told_levels_on_every_line() -> None:
    record = logging.LogRecord("a.b", logging.WARNING, "", 0, "one\ntwo", None, None)

    assert JournalFormatter("%(name)s: %(message)s").format(record) == "<4>a.b: one\n<4>two"


def test_other_libraries_are_held_to_warnings() -> None:
    log_to_stderr(2)
    log_to_stderr(2)

    assert logging.getLogger("backgate.x").isEnabledFor(logging.DEBUG)
    assert not logging.getLogger("botocore.auth").isEnabledFor(logging.INFO)
    names = [handler.get_name() for handler in logging.getLogger().handlers]
    assert names.count(HANDLER) == 1


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_offered_for_each_shell(shell: str) -> None:
    result = run("completion", shell)

    assert "_BACKGATE_COMPLETE" in result.stdout
    assert result.returncode == 0


@pytest.mark.slow
def test_bash_completes_commands_and_configured_targets(tmp_path: Path) -> None:
    config = tmp_path / "backgate.toml"
    config.write_text('[repository.offsite]\nurl = "s3://a"\n[repository.other]\nurl = "/b"\n')
    bash = {"_BACKGATE_COMPLETE": "bash_complete", "BACKGATE_CONFIG": str(config)}

    commands = run(COMP_WORDS="backgate m", COMP_CWORD="1", **bash).stdout
    targets = run(COMP_WORDS="backgate ls of", COMP_CWORD="2", **bash).stdout
    folders = run(COMP_WORDS="backgate mount other ", COMP_CWORD="3", **bash).stdout

    assert commands == "plain,mount\n"
    assert targets == "plain,offsite\n"
    assert folders.startswith("dir,")
