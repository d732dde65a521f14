"""What a service manager hears, on a real datagram socket."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from backgate.fs.notify import keep_alive, notify, watchdog_interval


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        yield listening


def heard(manager: socket.socket) -> list[bytes]:
    messages = []
    while True:
        try:
            messages.append(manager.recv(4096))
        except BlockingIOError:
            return messages


def test_nobody_is_told_where_nobody_asked() -> None:
    assert not notify("READY=1", {})
    assert not notify("READY=1", {"NOTIFY_SOCKET": "vsock:2:1"})


def test_the_service_manager_is_told(manager: socket.socket) -> None:
    assert notify("READY=1\nSTATUS=mounted", {"NOTIFY_SOCKET": manager.getsockname()})

    assert heard(manager) == [b"READY=1\nSTATUS=mounted"]


def test_a_service_manager_that_cannot_be_told_is_no_error(
    manager: socket.socket, tmp_path: Path
) -> None:
    assert not notify("WATCHDOG=1", {"NOTIFY_SOCKET": str(tmp_path / "gone")})

    environment = {"NOTIFY_SOCKET": manager.getsockname()}
    while notify("WATCHDOG=1", environment):  # until its queue is full, since nobody reads it
        pass
    assert heard(manager)


def test_an_abstract_address_is_one_too() -> None:
    name = f"backgate-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")

        assert notify("READY=1", {"NOTIFY_SOCKET": f"@{name}"})

        assert listening.recv(100) == b"READY=1"


@pytest.mark.parametrize(
    ("environment", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "nonsense"}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),  # another process's watchdog
    ],
)
def test_the_watchdog_wants_signs_of_life(
    environment: dict[str, str], interval: float | None
) -> None:
    assert watchdog_interval(environment) == interval


async def test_signs_of_life_come_twice_as_often_as_needed(
    manager: socket.socket, autojump_clock: trio.testing.MockClock
) -> None:
    environment = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "2000000"}

    with trio.move_on_after(4.5):
        await keep_alive(environment)

    assert heard(manager) == [b"WATCHDOG=1"] * 5
