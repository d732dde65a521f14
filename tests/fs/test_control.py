"""The two ends of a control socket, each in its own thread as they are in life."""

import json
import os
import resource
import socket
import stat
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from backgate.fs.control import ACCEPTED_MAX, Arguments, Progress, controlled
from backgate.fs.running import LINE_MAX, RunningMount, describe, running
from backgate.gateway.errors import BackgateError, FileError


async def echo(arguments: Arguments, progress: Progress) -> Mapping[str, Any]:
    for number in range(int(arguments.get("times", 0))):
        await progress({"number": number})
    return dict(arguments)


async def fail(arguments: Arguments, progress: Progress) -> Mapping[str, Any]:
    await trio.lowlevel.checkpoint()
    raise FileError(16, "/mnt/x", "in use by bash (77)")


async def crash(arguments: Arguments, progress: Progress) -> Mapping[str, Any]:
    await trio.lowlevel.checkpoint()
    raise KeyError("absent")


VERBS = {"echo": echo, "fail": fail, "crash": crash}


@pytest.fixture
def mount(tmp_path: Path) -> RunningMount:
    return describe(tmp_path, "/mnt/x", "offsite")


async def aside(act: Callable[[], object]) -> Any:
    return await trio.to_thread.run_sync(act)


async def test_an_answer_comes_with_its_progress(mount: RunningMount) -> None:
    told: list[Mapping[str, Any]] = []
    async with controlled(mount, VERBS):
        answer = await aside(lambda: mount.ask("echo", {"times": 3}, progress=told.append))

    assert answer == {"times": 3}
    assert told == [{"number": 0}, {"number": 1}, {"number": 2}]


async def test_what_a_mount_objects_is_raised(mount: RunningMount) -> None:
    async with controlled(mount, VERBS):
        with pytest.raises(BackgateError, match=r"^/mnt/x: in use by bash \(77\)$"):
            await aside(lambda: mount.ask("fail"))
        with pytest.raises(BackgateError, match="knows no 'sing'"):
            await aside(lambda: mount.ask("sing"))


async def test_a_bug_in_a_verb_ends_neither_the_mount_nor_the_socket(
    mount: RunningMount, caplog: pytest.LogCaptureFixture
) -> None:
    async with controlled(mount, VERBS):
        with pytest.raises(BackgateError, match="crash: unexpected KeyError"):
            await aside(lambda: mount.ask("crash"))

        assert await aside(lambda: mount.ask("echo", {"a": 1})) == {"a": 1}
    assert len(caplog.records) == 1


async def test_the_socket_is_the_owners_alone_and_goes_with_the_mount(
    mount: RunningMount, tmp_path: Path
) -> None:
    async with controlled(mount, VERBS):
        assert stat.S_IMODE(os.stat(mount.socket).st_mode) == 0o600
        assert await aside(lambda: running([tmp_path])) == [mount]
        assert await aside(lambda: running([tmp_path.parent])) == [mount]

    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BackgateError, match="its process"):
        mount.ask("echo")


async def test_what_a_crash_left_is_taken_over(mount: RunningMount, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(mount.socket)
    (tmp_path / "000000000000.mount.json").write_text('{"mountpoint": "/mnt/dead"}')
    (tmp_path / "111111111111.mount.json").write_text("not json")

    async with controlled(mount, VERBS):
        assert await aside(lambda: running([tmp_path])) == [mount]


@pytest.mark.parametrize(
    "sent", [b"", b"not json\n", b"[]\n", b'"echo"\n', b'{"verb": "echo"', b"x" * (LINE_MAX + 100)]
)
async def test_nonsense_is_not_answered(mount: RunningMount, sent: bytes) -> None:
    async with controlled(mount, VERBS):
        stream = await trio.open_unix_socket(mount.socket)
        try:
            await stream.send_all(sent)
            await stream.send_eof()
            answer = await stream.receive_some()
        except trio.BrokenResourceError:
            answer = b""  # it was closed before it had read everything
        await stream.aclose()

        assert answer == b""
        assert await aside(lambda: mount.ask("echo")) == {}


async def test_too_many_open_files_end_neither_the_mount_nor_the_socket(
    mount: RunningMount, caplog: pytest.LogCaptureFixture
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with controlled(mount, VERBS):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as command:
            resource.setrlimit(resource.RLIMIT_NOFILE, (command.fileno() + 1, hard))
            try:
                command.connect(mount.socket)
                await wait_all_tasks_blocked()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            answer = await aside(lambda: mount.ask("echo", {"times": 0}))

    assert answer == {"times": 0}
    assert "Too many open files" in caplog.text


def test_what_others_put_into_their_folders_neither_holds_up_nor_misleads(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mount.json")
    (tmp_path / "b.mount.json").symlink_to("/dev/zero")
    record = {"mountpoint": "/mnt", "target": "t", "pid": os.getpid(), "socket": "/x", "since": 1.0}
    for name, wrong in (("c", {"since": "now"}), ("d", {"pid": "me"}), ("e", {"mountpoint": 7})):
        (tmp_path / f"{name}.mount.json").write_text(json.dumps(record | wrong))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(tmp_path / "elsewhere"))
        listening.listen()
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "link").symlink_to(tmp_path / "elsewhere")
        for name, path in (("f", tmp_path / "elsewhere"), ("g", tmp_path / "sub" / "link")):
            (tmp_path / "sub" / f"{name}.mount.json").write_text(
                json.dumps(record | {"socket": str(path)})
            )

        assert running([tmp_path]) == []


def test_folders_that_go_while_they_are_looked_through_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    scandir = os.scandir

    def racing(path: str | Path) -> object:
        if Path(path) == gone:
            gone.rmdir()
        return scandir(path)

    monkeypatch.setattr(os, "scandir", racing)

    assert running([tmp_path]) == []
    assert not gone.exists()


async def test_a_command_that_goes_away_stops_its_verb(mount: RunningMount) -> None:
    stopped = trio.Event()

    async def report(arguments: Arguments, progress: Progress) -> Mapping[str, Any]:
        try:
            while True:
                await progress({"text": "x" * 10_000})
        finally:
            stopped.set()

    async with controlled(mount, {**VERBS, "report": report}):
        stream = await trio.open_unix_socket(mount.socket)
        await stream.send_all(json.dumps({"verb": "report"}).encode() + b"\n")
        await stream.receive_some(100)
        await stream.aclose()

        await stopped.wait()
        assert await aside(lambda: mount.ask("echo")) == {}


async def test_the_last_answer_is_sent_before_the_socket_goes(mount: RunningMount) -> None:
    asked, answer = trio.Event(), trio.Event()

    async def wait(arguments: Arguments, progress: Progress) -> Mapping[str, Any]:
        asked.set()
        await answer.wait()
        return {"is": "last"}

    results: list[object] = []

    async def ask() -> None:
        results.append(await aside(lambda: mount.ask("wait")))

    async with trio.open_nursery() as nursery, controlled(mount, {"wait": wait}):
        nursery.start_soon(ask)
        await asked.wait()
        nursery.start_soon(_set_soon, answer)
    assert results == [{"is": "last"}]


async def _set_soon(event: trio.Event) -> None:
    await trio.testing.wait_all_tasks_blocked()
    event.set()


async def test_a_mount_that_says_nothing_is_not_waited_for(
    mount: RunningMount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backgate.fs.control.FAREWELL", 0.0)

    async def sleep(arguments: Arguments, progress: Progress) -> Mapping[str, Any]:
        await trio.sleep_forever()
        raise AssertionError

    async with controlled(mount, {"sleep": sleep}):
        with pytest.raises(BackgateError, match="timed out"):
            await aside(lambda: mount.ask("sleep", patience=0.05))


async def test_connections_that_say_nothing_keep_no_command_waiting(
    mount: RunningMount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backgate.fs.control.REQUEST_WITHIN", 0.05)

    async with controlled(mount, VERBS), AsyncExitStack() as silent:
        for number in range(ACCEPTED_MAX):
            stream = await silent.enter_async_context(await trio.open_unix_socket(mount.socket))
            await stream.send_all(b'{"verb": ' if number % 2 else b"")
        await wait_all_tasks_blocked()
        monkeypatch.setattr("backgate.fs.control.REQUEST_WITHIN", 60.0)  # for who comes now

        assert await aside(lambda: mount.ask("echo", {"a": 1})) == {"a": 1}


async def test_who_takes_no_answer_is_given_up(
    mount: RunningMount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backgate.fs.control.ANSWER_TAKEN_WITHIN", 0.05)
    given_up = trio.Event()

    async def report(arguments: Arguments, progress: Progress) -> Mapping[str, Any]:
        try:
            while True:
                await progress({"text": "x" * 100_000})
        finally:
            given_up.set()

    async with controlled(mount, {"report": report}):
        stream = await trio.open_unix_socket(mount.socket)
        await stream.send_all(json.dumps({"verb": "report"}).encode() + b"\n")

        await given_up.wait()
        await stream.aclose()
