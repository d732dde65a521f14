"""What is printed is safe for a terminal, whole for a program, and readable for a person."""

import io
import json
import stat
import sys

import pytest

from backgate.cli import output
from backgate.cli.entries import entry_record, long_line
from backgate.cli.output import (
    JsonArray,
    print_json,
    print_name,
    print_table,
    printable,
    progress_bar,
    time_text,
)
from backgate.fs.tree import Entry


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_control_characters_of_a_name_never_reach_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)

    print_name(b"evil\x1b]0;title\x07\nname")

    assert terminal.getvalue() == "evil\\x1b]0;title\\x07\\nname\n"


def test_a_program_gets_the_bytes_of_a_name(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    print_name(b"\xff\n", end=b"\0")
    sys.stdout.flush()

    assert capfdbinary.readouterr().out == b"\xff\n\0"


@pytest.mark.parametrize(
    ("name", "text"),
    [(b"plain", "plain"), ("ünï".encode(), "ünï"), (b"\xff", "\\xff"), (b"a\tb", "a\\tb")],
)
def test_a_name_is_escaped_only_where_it_must_be(name: bytes, text: str) -> None:
    assert printable(name) == text


def test_json_keeps_names_readable_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": "ünï"})
    print_json({"name": "\udcff"})

    readable, escaped = capsys.readouterr().out.split("}\n")[:2]
    assert "ünï" in readable
    assert json.loads(escaped + "}")["name"].encode("utf-8", "surrogateescape") == b"\xff"


@pytest.mark.parametrize("values", [[], [1], [{"a": 1}, {"b": 2}]])
def test_a_json_array_is_one_document(
    values: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    array = JsonArray()
    for value in values:
        array.add(value)
    array.close()

    assert json.loads(capsys.readouterr().out) == values


def test_a_table_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("NAME", "SIZE", "X"), [("a", "10", "x"), ("longer", "7", "")], "SIZE")

    assert capsys.readouterr().out == "NAME    SIZE  X\na         10  x\nlonger     7\n"


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59Z"),
        (1_700_000_000_999_999_999, "2023-11-14T22:13:20Z"),
        (2**90, f"@{2**90 // 10**9}"),
    ],
)
def test_any_time_can_be_shown(time_ns: int, text: str) -> None:
    assert time_text(time_ns) == text


def test_without_a_terminal_no_bar_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("copying", is_bytes=True) as progress:
        progress(1, 2)

    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_a_bar_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")

    with progress_bar("copying", is_bytes=True) as progress:
        progress(5, 10)

    assert "copying" in terminal.getvalue()
    assert output.shows_progress()


def test_an_entry_is_a_record_and_a_line() -> None:
    entry = Entry(name=b"x", mode=stat.S_IFLNK | 0o777, size=3, uid=1, gid=2, target=b"a\x1bb")

    record, line = entry_record(b"backups/x", entry), long_line(entry)

    assert (record["type"], record["mode"], record["target"]) == ("symlink", "0777", "a\x1bb")
    assert line.startswith("lrwxrwxrwx      1      2 ")
    assert line.endswith("x -> a\\x1bb")
