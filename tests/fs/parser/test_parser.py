"""Whatever happens in a worker stays there: an error for that request, a line in the log."""

import errno
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from support import hostile
from support.trees import run
from trio.testing import MockClock

from backgate.fs.parser import parser as parser_module
from backgate.fs.parser import process, supplies
from backgate.fs.parser.file import ParsedFile
from backgate.fs.parser.messages import Disk
from backgate.fs.parser.parser import Parser, Unparsed
from backgate.fs.parser.places import Places, idle_for
from backgate.fs.parser.process import WORKER, start_worker
from backgate.fs.parser.supplies import Siblings
from backgate.gateway.errors import Damaged, FileError, Unreachable
from backgate.gateway.source import Bytes, Data, Source

VOLUME = 1  # the first one on the one disk
HOSTILE = (str(Path(hostile.__file__)),)

pytestmark = pytest.mark.slow


async def nothing_beside(disk: int, name: str) -> Source | None:
    return None


@asynccontextmanager
async def parser_of(
    *sources: Source,
    program: Sequence[str] = HOSTILE,
    kind: str = "raw",
    siblings: Siblings = nothing_beside,
    places: Places | None = None,
) -> AsyncIterator[Parser]:
    parser = Parser(
        "an image",
        [Disk(f"xvd{number}", kind, number) for number in range(len(sources))],
        list(sources),
        passphrases=[],
        siblings=siblings,
        memory=8 << 20,
        places=places or Places(),
        start=partial(start_worker, program),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parser.run)
        yield parser
        nursery.cancel_scope.cancel()


def disk(deed: str) -> Source:
    return Bytes(hostile.disk(deed))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


DEADLY = {
    "spin": "signal|no answer",
    "sleep": "no answer within",
    "crash": "signal 11",
    "exit": "code 7",
    "raise a system exit": "code 3",
    "say garbage": "garbage",
    "say too much": "message of",
    "say an unknown word": "garbage",
    "say nothing more": "ended|closed",
}


@pytest.mark.parametrize("deed", DEADLY)
async def test_a_worker_that_fails_is_replaced_and_its_request_is_damage(
    deed: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with parser_of(disk(deed)) as parser:
        await parser.volumes()
        with monkeypatch.context() as patch, pytest.raises(Damaged, match=DEADLY[deed]):
            if deed in ("spin", "sleep"):
                patch.setattr(parser_module, "PATIENCE", 1.0)
            await parser.children(VOLUME, b"root", None)

        said = warnings(caplog)
        assert len(said) == 2  # two workers died of it, and the log says of what
        assert all("an image" in line and "children volume 1" in line for line in said)
        assert (await parser.child(VOLUME, b"root", b"file")).size == 1000  # the third one serves
        with pytest.raises(Damaged):
            await parser.children(VOLUME, b"root", None)
        assert len(warnings(caplog)) == 2  # and is not asked for that again


async def test_what_failed_twice_is_tried_again_after_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(parser_module, "DEADLY_FOR", 0.0)
    async with parser_of(disk("exit")) as parser:
        for workers in (2, 4):
            with pytest.raises(Damaged, match="code 7"):
                await parser.children(VOLUME, b"root", None)

            assert len(warnings(caplog)) == workers


async def test_a_worker_that_was_killed_from_outside_tells_nothing_of_the_disk(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with parser_of(disk("be killed")) as parser:
        for workers in (2, 4):
            with pytest.raises(Unparsed, match="killed from outside"):
                await parser.children(VOLUME, b"root", None)

            assert len(warnings(caplog)) == workers


async def test_what_a_parser_stumbles_over_is_damage_and_it_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reasons = {"eat": "memory", "recurse": "Recursion", "raise": "no parser expects"}
    async with parser_of(*map(disk, reasons)) as parser:
        for volume, reason in enumerate(reasons.values(), len(reasons)):
            with pytest.raises(Damaged, match=reason):
                await parser.children(volume, b"root", None)

            assert (await parser.child(volume, b"root", b"file")).size == 1000

    assert warnings(caplog) == []


@pytest.mark.parametrize(("deed", "reason"), [("eat", "memory"), ("raise", "no parser expects")])
async def test_what_is_stumbled_over_in_opening_an_image_is_damage(
    deed: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with parser_of(disk(deed), kind="hostile") as parser:
        for _ in range(2):
            with pytest.raises(Damaged, match=reason):
                await parser.volumes()
    assert warnings(caplog) == []


async def test_names_and_numbers_that_cannot_be_are_damage() -> None:
    async with parser_of(*map(disk, hostile.LISTINGS)) as parser:
        for volume, _ in enumerate(hostile.LISTINGS, len(hostile.LISTINGS)):
            with pytest.raises(Damaged):
                await parser.children(volume, b"root", None)


async def test_extents_that_lie_nowhere_are_damage() -> None:
    disks = ["", *hostile.EXTENTS]
    async with parser_of(*map(disk, disks)) as parser:
        for volume, deed in enumerate(disks, len(disks)):
            file = ParsedFile(parser, volume, b"file", 1000)
            if not deed:
                assert await file.read_at(0, 1000) == b"x" * 1000
                continue
            with pytest.raises(Damaged):
                await file.read_at(0, 1000)


async def test_more_bytes_than_asked_for_are_damage() -> None:
    async with parser_of(disk("more bytes than asked for")) as parser:
        with pytest.raises(Damaged):
            await ParsedFile(parser, VOLUME, b"file", 1000).read_at(0, 1000)


async def test_an_attribute_that_none_can_be_is_damage() -> None:
    async with parser_of(disk("")) as parser:
        with pytest.raises(Damaged, match="attribute"):
            await parser.xattrs(VOLUME, b"file")


async def test_a_worker_may_not_write_speak_start_or_become_anything() -> None:
    deeds = ["write a file", "make a socket", "start a program", "fork", "kill the gateway",
             "trace", "become root"]  # fmt: skip
    async with parser_of(*map(disk, deeds)) as parser:
        for volume, deed in enumerate(deeds, len(deeds)):
            (node,) = (await parser.children(volume, b"root", None)).nodes

            assert (deed, node.name, node.size) == (deed, b"done", 0)


async def test_a_worker_has_no_privilege_left() -> None:
    async with parser_of(disk("")) as parser:
        await parser.volumes()
        assert parser._worker is not None
        status = Path(f"/proc/{parser._worker.number}/status").read_text()

    told = dict(line.split(":\t", 1) for line in status.splitlines())
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(told[name], 16) == 0
    assert (told["NoNewPrivs"], told["Seccomp"]) == ("1", "2")
    assert "0" not in told["Uid"].split()


async def test_a_system_without_memory_ends_the_worker_first() -> None:
    async with parser_of(disk("")) as parser:
        await parser.volumes()
        assert parser._worker is not None
        told = Path(f"/proc/{parser._worker.number}/oom_score_adj").read_text()

    assert int(told) == 1000


async def test_what_is_told_cannot_command_a_terminal() -> None:
    async with parser_of(disk("")) as parser:
        assert await parser.facts(VOLUME) == {"label": "\ufffd]0;a title\ufffd"}


async def test_an_errno_that_no_file_system_answers_is_damage() -> None:
    async with parser_of(disk("say that it cannot be interrupted")) as parser:
        with pytest.raises(Damaged, match="513"):
            await parser.child(VOLUME, b"root", b"file")


async def test_a_name_that_is_not_there_is_a_sure_answer() -> None:
    async with parser_of(disk("")) as parser:
        with pytest.raises(FileError):
            await parser.child(VOLUME, b"root", b"nothing")


class Shaky:
    """A source that can be away, and that lets a test stop its reads."""

    def __init__(self, data: bytes) -> None:
        self._data, self.size = data, len(data)
        self.is_away = False
        self.fault: Exception = Unreachable("the store is away")
        self.gate = trio.Event()
        self.gate.set()
        self.reads = 0

    async def read_at(self, offset: int, length: int) -> Data:
        self.reads += 1
        await self.gate.wait()
        if self.is_away:
            raise self.fault
        return self._data[offset : offset + length]


async def test_a_store_that_is_away_is_no_damage_and_costs_no_worker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = Shaky(hostile.disk(""))
    source.is_away = True
    async with parser_of(source) as parser:
        with pytest.raises(Unreachable):
            await parser.volumes()
        worker = parser._worker
        source.is_away = False

        assert (await parser.volumes()).volumes[0].file_system == "hostile"
        assert parser._worker is worker
        assert warnings(caplog) == []


async def test_who_waited_meanwhile_has_been_as_patient_with_the_store() -> None:
    source = Shaky(hostile.disk(""))
    source.is_away, source.gate = True, trio.Event()
    failed = []

    async def ask(parser: Parser) -> None:
        with pytest.raises(Unreachable):
            await parser.volumes()
        failed.append(source.reads)

    async with parser_of(source) as parser, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask, parser)
        with trio.fail_after(120):
            await until(lambda: source.reads > 0)
        source.gate.set()

    assert len(failed) == 5
    assert max(failed) == min(failed)  # the store was asked for one of them alone


@pytest.mark.parametrize(
    "fault",
    [FileError(errno.ENOSPC, "", "the disk of the cache is full"), ArithmeticError("a bug")],
)
async def test_whatever_a_source_raises_is_for_who_asked_and_the_next_one_is_served(
    fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    source = Shaky(hostile.disk(""))
    source.is_away, source.fault = True, fault
    async with parser_of(source) as parser:
        for _ in range(2):
            with pytest.raises(type(fault)):
                await parser.volumes()
        source.is_away = False

        assert (await parser.volumes()).volumes[0].file_system == "hostile"
    assert warnings(caplog) == []


async def test_an_answer_that_comes_too_late_answers_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = hostile.disk("be slow where bytes cannot be had") + bytes(2 * hostile.FAR)
    source = Shaky(data)
    async with parser_of(source) as parser:
        await parser.volumes()
        source.is_away = True
        with monkeypatch.context() as patch:
            patch.setattr(parser_module, "PATIENCE", 1.0)
            with pytest.raises(Unreachable):
                await parser.children(VOLUME, b"root", None)
        source.is_away = False

        (node,) = (await parser.children(VOLUME, b"root", None)).nodes

        assert node.name == b"file"


async def test_a_container_is_read_where_only_root_may_enter_the_folder_of_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    for number, path in enumerate(filter(None, sys.path)):
        (closed / str(number)).symlink_to(path)
    monkeypatch.setenv("PYTHONPATH", ":".join(str(path) for path in sorted(closed.iterdir())))
    image = tmp_path / "image"
    for kind in ("qcow2", "vmdk", "vhdx"):
        run("qemu-img", "create", "-q", "-f", kind, image, "8M")
        async with parser_of(
            Bytes(image.read_bytes()), program=("-S", *WORKER), kind=kind
        ) as parser:
            assert [(one.problem, one.size) for one in (await parser.opened()).disks] == [
                ("", 8 << 20)
            ]


async def test_a_parent_that_could_not_be_asked_for_is_not_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base, top = tmp_path / "base.qcow2", tmp_path / "top.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", base, "1M")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base.name, top)
    is_away = True

    async def beside(disk: int, name: str) -> Source | None:
        if is_away:
            raise Unreachable("the store is away")
        return Bytes(base.read_bytes())

    source = Bytes(top.read_bytes())
    async with parser_of(source, kind="qcow2", siblings=beside) as parser:
        for _ in range(2):
            with pytest.raises(Unreachable):
                await parser.volumes()
        is_away = False

        assert (await parser.opened()).disks[0].problem == ""
        assert [volume.size for volume in (await parser.volumes()).volumes] == [1 << 20]
    assert warnings(caplog) == []


def split(parts: int) -> bytes:
    """Return the descriptor of a VMDK in so many parts of 64 KiB."""
    lines = [f'RW 128 FLAT "disk-f{number:03}.vmdk" 0' for number in range(parts)]
    head = '# Disk DescriptorFile\nversion=1\nparentCID=ffffffff\ncreateType="twoGbMaxExtentFlat"'
    return "\n".join([head, *lines, ""]).encode()


async def part_beside(disk: int, name: str) -> Source | None:
    return Bytes(bytes([int(name[6:9]) % 256]) * (64 << 10))


async def test_a_disk_in_hundreds_of_parts_is_whole() -> None:
    async with parser_of(
        Bytes(split(300)), program=WORKER, kind="vmdk", siblings=part_beside
    ) as parser:
        (one,) = (await parser.opened()).disks
        last = await ParsedFile(parser, 0, None, one.size).read_at(299 * (64 << 10), 64 << 10)

    assert (one.problem, one.size) == ("", 300 * (64 << 10))
    assert last == bytes([299 % 256]) * (64 << 10)


async def test_a_disk_in_too_many_parts_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supplies, "FILES_MAX", 4)
    async with parser_of(
        Bytes(split(5)), program=WORKER, kind="vmdk", siblings=part_beside
    ) as parser:
        (one,) = (await parser.opened()).disks

    assert one.problem == "it is made of more than 4 files"


async def test_who_goes_away_leaves_the_worker_to_others() -> None:
    source = Shaky(hostile.disk(""))
    source.gate = trio.Event()
    async with parser_of(source) as parser:
        with trio.move_on_after(0.5):
            await parser.volumes()
        worker = parser._worker
        source.gate.set()

        assert (await parser.volumes()).volumes[0].file_system == "hostile"
        assert parser._worker is worker


async def test_waiting_for_the_store_is_not_counted(mock_clock: MockClock) -> None:
    mock_clock.rate = 1.0
    source = Shaky(hostile.disk("be slow where bytes cannot be had") + bytes(2 * hostile.FAR))

    async def wait_long() -> None:
        before = source.reads
        await until(lambda: source.reads > before)
        mock_clock.jump(2 * parser_module.PATIENCE)  # longer than a worker may take
        source.gate.set()

    async with parser_of(source) as parser, trio.open_nursery() as nursery:
        await parser.volumes()
        worker, source.gate = parser._worker, trio.Event()
        nursery.start_soon(wait_long)

        (node,) = (await parser.children(VOLUME, b"root", None)).nodes

        assert parser._worker is worker
    assert node.name == b"file"


async def test_who_reads_much_may_take_longer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = hostile.disk("be slow over much that it reads") + bytes(2 * hostile.FAR)
    async with parser_of(Bytes(data)) as parser:
        await parser.volumes()
        monkeypatch.setattr(parser_module, "PATIENCE", 1.9)  # it takes two
        monkeypatch.setattr(process, "PACE", 1 << 40)
        with pytest.raises(Damaged, match="no answer within"):
            await parser.children(VOLUME, b"root", None)
        monkeypatch.setattr(process, "PACE", 1 << 10)

        (node,) = (await parser.children(VOLUME, b"other", None)).nodes

        assert node.name == b"file"


async def test_a_worker_that_nobody_asks_ends_and_another_sees_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("backgate.fs.parser.places.IDLE", 0.05)
    monkeypatch.setattr("backgate.fs.parser.places.DEAR", 0)
    async with parser_of(disk("")) as parser:
        before = await parser.volumes()
        first = parser._worker
        with trio.fail_after(120):
            await until(lambda: parser._worker is None)

        assert (await parser.child(VOLUME, b"root", b"file")).size == 1000
        assert parser._worker is not first
        assert await parser.volumes() == before


async def test_a_worker_whose_answers_took_long_is_kept_longer() -> None:
    async with parser_of(disk("")) as parser:
        await parser.volumes()
        await until(lambda: parser._longest > 0)
        parser._end_worker()
        after = parser._longest

    assert after == 0
    assert [idle_for(longest) for longest in (0, 1, 100, 1e6)] == [60, 60, 2000, 3600]


async def test_a_worker_that_rests_gives_its_place_to_one_that_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("backgate.fs.parser.places.REST", 0.05)
    places = Places(1)
    async with (
        parser_of(disk(""), places=places) as one,
        parser_of(disk(""), places=places) as other,
    ):
        for parser, idle in ((one, other), (other, one), (one, other)):
            await parser.volumes()
            assert (await parser.child(VOLUME, b"root", b"file")).size == 1000

            assert idle._worker is None
            assert parser._worker is not None


async def test_a_worker_that_sees_other_volumes_than_the_one_before_is_refused() -> None:
    source = Shaky(hostile.disk(""))
    async with parser_of(source) as parser:
        await parser.volumes()
        parser._end_worker()
        parser.blocks.clear()
        source._data = bytes(source.size)

        with pytest.raises(Damaged, match="other volumes"):
            await parser.child(VOLUME, b"root", b"file")


async def test_a_worker_that_cannot_start_is_damage_and_no_crash(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    program = tmp_path / "worker.py"
    program.write_text("raise ImportError('a module is missing')")
    async with parser_of(disk(""), program=(str(program),)) as parser:
        with pytest.raises(Damaged, match="a module is missing"):
            await parser.volumes()
        assert len(warnings(caplog)) == 2
        program.write_text(Path(hostile.__file__).read_text())

        assert (await parser.volumes()).volumes[0].file_system == "hostile"


async def test_no_process_to_be_had_is_damage_and_no_crash(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with parser_of(disk("")) as parser:
        with monkeypatch.context() as patch:
            patch.setattr("sys.executable", "/nonexistent")
            with pytest.raises(Damaged, match="cannot be started"):
                await parser.volumes()

        assert (await parser.volumes()).volumes[0].file_system == "hostile"


async def test_a_signal_to_all_processes_of_a_service_leaves_the_worker_to_its_gateway() -> None:
    async with parser_of(disk("")) as parser:
        await parser.volumes()
        worker = parser._worker
        assert worker is not None
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(worker.number, number)

        assert (await parser.child(VOLUME, b"root", b"file")).size == 1000
        assert parser._worker is worker


async def test_workers_end_with_the_backup() -> None:
    async with parser_of(disk("")) as parser:
        await parser.volumes()
        assert parser._worker is not None
        number = parser._worker.number

    assert not Path(f"/proc/{number}").exists()


@pytest.fixture(autouse=True)
def _modules_of_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", ":".join(path for path in sys.path if path))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - a process ends
        await trio.sleep(0.01)
