"""What goes wrong in a tree reaches the caller as the right errno, and the mount lives on."""

import contextlib
import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from support.dict_tree import DictTree
from support.mounting import Mounted, mounted

from backgate.fs.running import running
from backgate.fs.tree import Tree
from backgate.gateway import errors

pytestmark = [pytest.mark.mounted, pytest.mark.slow]

LONG_KEY = "dir/" + "n" * 300
RAISED: dict[bytes, tuple[Exception, int]] = {
    b"file-error": (errors.FileError(errno.ELOOP, b"x"), errno.ELOOP),
    b"unreachable": (errors.Unreachable("store: no answer"), errno.EIO),
    b"refused": (errors.Refused("store: forbidden"), errno.EACCES),
    b"full": (errors.StoreFull("store: quota"), errno.EDQUOT),
    b"replaced": (errors.Replaced("store: another version"), errno.ESTALE),
    b"unsupported": (errors.Unsupported("store: 501"), errno.EOPNOTSUPP),
    b"invalid": (errors.InvalidKey("store: no such key", key="a//b"), errno.EINVAL),
    b"too-long": (errors.InvalidKey("store: key", key=LONG_KEY), errno.ENAMETOOLONG),
    b"damaged": (errors.Damaged("pack 1234", 77, "MAC does not match"), errno.EIO),
    b"password": (errors.PasswordNeeded("restic"), errno.EACCES),
    b"store": (errors.StoreError("store: nonsense"), errno.EIO),
    b"disk-full": (OSError(errno.ENOSPC, "full"), errno.ENOSPC),
    b"bug": (ZeroDivisionError("a bug"), errno.EIO),
    b"bugs": (ExceptionGroup("two", [ValueError("first"), KeyError("second")]), errno.EIO),
    b"group": (ExceptionGroup("one", [errors.Refused("inner")]), errno.EACCES),
}


def failing(happened: Callable[[str, bytes], None]) -> Tree:
    async def hinder(verb: str, name: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if verb == "read" and name in RAISED:
            raise RAISED[name][0]
        if (verb, name) in (("children", b"listing"), ("flush", b"unstored")):
            raise errors.Unreachable("store: no answer")
        if (verb, name) == ("closed", b"leaving"):
            raise ZeroDivisionError("while closing")
        if name == b"stuck":
            await trio.sleep_forever()

    tree = DictTree()
    tree.happened, tree.hinder = happened, hinder
    for name in RAISED:
        tree.add_file(f"files/{name.decode()}", b"x")
    tree.add_file("fine", b"fine")
    tree.add_file("leaving", b"x")
    tree.add_file("listing/file")
    tree.add_file("slow/other")
    return tree


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mounted]:
    (tmp_path / "run").mkdir()
    with mounted(failing, tmp_path, runtime=tmp_path / "run") as made:
        yield made


@pytest.mark.parametrize("name", RAISED)
def test_each_error_has_its_errno(mount: Mounted, name: bytes) -> None:
    with pytest.raises(OSError) as failed:
        (mount.path / "files" / name.decode()).read_bytes()

    assert failed.value.errno == RAISED[name][1]
    assert (mount.path / "fine").read_bytes() == b"fine"


def test_damage_is_logged_in_one_line_and_once(mount: Mounted) -> None:
    for _ in range(20):
        with pytest.raises(OSError):
            (mount.path / "files" / "damaged").read_bytes()

    lines = [line for line in mount.logged().splitlines() if "pack 1234" in line]
    assert len(lines) == 1
    assert "pack 1234 at byte 77: MAC does not match" in lines[0]


def test_a_bug_is_logged_with_its_place(mount: Mounted) -> None:
    with pytest.raises(OSError):
        (mount.path / "files" / "bug").read_bytes()

    assert "ZeroDivisionError: a bug" in mount.logged()
    assert "Traceback" in mount.logged()


def test_a_listing_that_fails_is_an_error_and_not_empty(mount: Mounted) -> None:
    with pytest.raises(OSError) as failed:
        os.listdir(mount.path / "listing")

    assert failed.value.errno == errno.EIO


def test_close_tells_that_the_bytes_are_not_stored(mount: Mounted) -> None:
    descriptor = os.open(mount.path / "unstored", os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, b"x")

    with pytest.raises(OSError) as failed:
        os.close(descriptor)

    assert failed.value.errno == errno.EIO
    assert mount.is_mounted()


def test_an_error_on_leaving_a_file_ends_nothing(mount: Mounted) -> None:
    assert (mount.path / "leaving").read_bytes() == b"x"

    mount.wait_for(lambda: "while closing" in mount.logged())
    assert (mount.path / "fine").read_bytes() == b"fine"


def test_abort_frees_whoever_waits_and_unmounts(mount: Mounted) -> None:
    failed: list[int | None] = []

    def wait() -> None:
        try:
            os.stat(mount.path / "slow" / "stuck")
        except OSError as error:
            failed.append(error.errno)

    waiting = threading.Thread(target=wait)
    waiting.start()
    mount.wait_for(lambda: "child stuck" in mount.happened())
    (control,) = running([mount.log.parent / "run"])
    answer = control.ask("abort")
    waiting.join()

    assert failed == [errno.EIO]
    assert answer["freed"] == 1
    assert mount.ended() == 0
    assert not mount.is_mounted()


def test_a_request_that_waits_holds_up_no_other(mount: Mounted) -> None:
    def wait() -> None:
        with contextlib.suppress(OSError):
            os.stat(mount.path / "slow" / "stuck")

    waiting = threading.Thread(target=wait)
    waiting.start()
    mount.wait_for(lambda: "child stuck" in mount.happened())

    assert (mount.path / "fine").read_bytes() == b"fine"
    mount.kill(signal.SIGTERM)
    assert mount.ended() == 0
    waiting.join()
