"""Every error becomes an errno; the operator hears of it once; whoever waits can be freed."""

import errno
import logging

import pyfuse3
import pytest
import trio

from backgate.fs.replies import REPEAT_AFTER, Replies, answered, errno_of, explained
from backgate.gateway import errors


class Asked:
    """What has handlers."""

    def __init__(self) -> None:
        self.replies = Replies()

    @answered
    async def read(self, error: Exception | None = None) -> str:
        await trio.lowlevel.checkpoint()
        if error is not None:
            raise error
        return "answer"

    @answered
    async def write(self, until: trio.Event) -> str:
        await until.wait()
        return "written"


@pytest.fixture
def asked() -> Asked:
    return Asked()


async def test_an_answer_is_passed_on(asked: Asked) -> None:
    assert await asked.read() == "answer"
    assert asked.replies.waiting == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.FileError(errno.ENOTEMPTY), errno.ENOTEMPTY),
        (errors.NotFound("x"), errno.ENOENT),
        (errors.AlreadyThere("x"), errno.EEXIST),
        (errors.Unreachable("x"), errno.EIO),
        (errors.Refused("x"), errno.EACCES),
        (errors.Replaced("x"), errno.ESTALE),
        (errors.StoreFull("x"), errno.EDQUOT),
        (errors.Unsupported("x"), errno.EOPNOTSUPP),
        (errors.InvalidKey("x", key="a//b"), errno.EINVAL),
        (errors.InvalidKey("x"), errno.EINVAL),
        (errors.InvalidKey("x", key="a/" + "é" * 128), errno.ENAMETOOLONG),
        (errors.Damaged("x", 0, "y"), errno.EIO),
        (errors.PasswordNeeded("x"), errno.EACCES),
        (errors.BackgateError("x"), errno.EIO),
        (OSError(errno.ENOSPC, "x"), errno.ENOSPC),
        (OSError(errno.ENOENT, "x"), errno.EIO),  # of the gateway's disk, not of the mount
        (MemoryError(), errno.EIO),
    ],
)
async def test_each_error_has_its_errno(asked: Asked, error: Exception, code: int) -> None:
    assert errno_of(error) == code
    with pytest.raises(pyfuse3.FUSEError) as failed:
        await asked.read(error)

    assert failed.value.errno == code
    assert asked.replies.errors == {errno.errorcode[code]: 1}


async def test_an_errno_chosen_by_a_handler_stays(asked: Asked) -> None:
    with pytest.raises(pyfuse3.FUSEError) as failed:
        await asked.read(pyfuse3.FUSEError(errno.EROFS))

    assert failed.value.errno == errno.EROFS


async def test_one_kind_of_error_is_logged_once_in_a_while(
    asked: Asked, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    for number in range(5):
        with pytest.raises(pyfuse3.FUSEError):
            await asked.read(errors.Unreachable(f"store: {number}"))
    now += REPEAT_AFTER
    with pytest.raises(pyfuse3.FUSEError):
        await asked.read(errors.Unreachable("store: later"))

    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["read: store: 0", "read: store: later (and 4 more like it)"]


async def test_each_damaged_object_is_told_of(
    asked: Asked, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("pack 1", "pack 1", "pack 2"):
        with pytest.raises(pyfuse3.FUSEError):
            await asked.read(errors.Damaged(name, 77, "MAC does not match"))

    assert [record.getMessage() for record in caplog.records] == [
        "read: pack 1 at byte 77: MAC does not match",
        "read: pack 2 at byte 77: MAC does not match",
    ]


async def test_an_answer_that_a_caller_expects_is_not_logged(
    asked: Asked, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    for error in (errors.FileError(errno.ENOENT), errors.NotFound("x"), errors.InvalidKey("x")):
        with pytest.raises(pyfuse3.FUSEError):
            await asked.read(error)

    assert caplog.records == []


async def test_a_bug_is_logged_with_its_traceback(
    asked: Asked, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(pyfuse3.FUSEError):
        await asked.read(ExceptionGroup("from a nursery", [ZeroDivisionError("a bug")]))

    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)


async def test_abort_answers_all_that_waits_with_eio(asked: Asked) -> None:
    codes: list[int] = []

    async def wait() -> None:
        try:
            await asked.write(trio.Event())
        except pyfuse3.FUSEError as error:
            codes.append(error.errno)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert asked.replies.abort() == 3

    assert codes == [errno.EIO] * 3
    assert await asked.read() == "answer"


async def test_a_closed_mount_answers_nothing_but_eio(asked: Asked) -> None:
    asked.replies.close()

    with pytest.raises(pyfuse3.FUSEError) as failed:
        await asked.read()

    assert failed.value.errno == errno.EIO


async def test_changes_answered_waits_for_changes_only(asked: Asked) -> None:
    written, never = trio.Event(), trio.Event()
    order: list[str] = []

    async def watch() -> None:
        await asked.replies.changes_answered()
        order.append("answered")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(asked.write, written)
        nursery.start_soon(asked.replies.answer, "read", never.wait())
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(watch)
        await trio.testing.wait_all_tasks_blocked()
        order.append("set")
        written.set()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert order == ["set", "answered"]


async def test_a_contained_task_lets_its_error_out_until_it_is_ours(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Replies().contained("task", fail(), lambda: False)
    await Replies().contained("task", fail(), lambda: True)

    assert len(caplog.records) == 1


async def test_a_bug_behind_a_command_is_explained_to_it(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(error: Exception) -> None:
        raise error

    with pytest.raises(errors.BackgateError, match="unexpected KeyError: see the log"):
        await explained("spool", fail(KeyError("x")))
    with pytest.raises(errors.Refused):
        await explained("spool", fail(ExceptionGroup("", [errors.Refused("x")])))

    assert len(caplog.records) == 1


@pytest.mark.parametrize("request_", ["fsyncdir", "setattr", "setxattr", "removexattr", "lookup"])
async def test_who_waits_with_a_directory_locked_is_known(request_: str, asked: Asked) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asked.replies.answer, "getattr", trio.Event().wait())
        await trio.testing.wait_all_tasks_blocked()
        assert not asked.replies.holds_directories

        nursery.start_soon(asked.replies.answer, request_, trio.Event().wait())
        await trio.testing.wait_all_tasks_blocked()
        assert asked.replies.holds_directories
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("change", ["link", "setxattr", "removexattr"])
async def test_every_change_is_waited_for_before_the_end(change: str, asked: Asked) -> None:
    done = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asked.replies.answer, change, done.wait())
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0) as scope:
            await asked.replies.changes_answered()
        done.set()

    assert scope.cancelled_caught
