"""The catalogue arranges what formats find, opens it on use, and never shows a listing short."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from support.objects import FolderObjects

from backgate.fs.catalogue import Catalogue
from backgate.fs.format import Backup, BackupFormat, Surroundings
from backgate.fs.opened import IDLE_MAX, OpenBackups, open_backups
from backgate.fs.root_tree import RootTree
from backgate.fs.tree import Children, Entry, Tree
from backgate.gateway.errors import Damaged, FileError, Unreachable
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.source import Bytes, Source


class Note:
    """A tree of one file, `note`, that holds the announcing object's key."""

    is_immutable = True

    def __init__(self, text: bytes, format_: "Notes") -> None:
        self._text, self._format, self._opening = text, format_, format_.openings

    async def is_outdated(self) -> bool:
        return self._opening in self._format.outdated

    async def root(self) -> Entry:
        return Entry(name=b"", mode=0o40755)

    async def child(self, directory: Entry, name: bytes) -> Entry:
        if name != b"note":
            raise FileError(2, name)
        return Entry(name=name, mode=0o100644, size=len(self._text))

    async def children(self, directory: Entry, cursor: bytes | None = None) -> Children:
        return Children([await self.child(directory, b"note")], None)

    @asynccontextmanager
    async def open(self, file: Entry) -> AsyncIterator[Source]:
        yield Bytes(self._text)

    async def xattrs(self, entry: Entry) -> Mapping[bytes, bytes]:
        return {}


class Notes(BackupFormat):
    """`<subject>/<number>.note` is a backup, `.half` unfinished, `.locked` one to explain."""

    name = "notes"
    openings = 0
    open_now = 0
    outdated: Sequence[int] = ()  # openings of which there is more by now

    def is_landmark(self, key: str) -> bool:
        return key.endswith((".note", ".half", ".locked"))

    async def backups(self, landmarks: Sequence[ObjectInfo]) -> list[Backup]:
        return [self._backup(info) for info in landmarks]

    def _backup(self, info: ObjectInfo) -> Backup:
        stem, suffix = info.key.rsplit(".", 1)
        return Backup(
            path=tuple(stem.split("/")),
            key=info.key,
            time_ns=int(stem[-1]) if stem[-1].isdigit() else 0,
            is_complete=suffix == "note",
            reason="" if suffix == "note" else suffix,
            has_latest=stem[-1].isdigit(),
            files={"READ-ME.txt": b"locked"} if suffix == "locked" else {},
        )

    @asynccontextmanager
    async def open(self, backup: Backup) -> AsyncIterator[Tree]:
        if "broken" in backup.key:
            raise Damaged(backup.key, 0, "broken on purpose")
        self.openings += 1
        self.open_now += 1
        try:
            yield Note(backup.key.encode(), self)
        finally:
            self.open_now -= 1


class Keys:
    """Landmarks out of a plain list of keys, which can fail."""

    def __init__(self, *keys: str) -> None:
        self.keys, self.generation, self.fails = list(keys), 0, False

    async def complete(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.fails:
            raise Unreachable("the store is away")

    async def landmarks(
        self, formats: Mapping[str, BackupFormat]
    ) -> Mapping[str, Sequence[ObjectInfo]]:
        infos = [ObjectInfo(key, 0, 0, "") for key in self.keys]
        return {
            name: [info for info in infos if format_.is_landmark(info.key)]
            for name, format_ in formats.items()
        }


@pytest.fixture
async def opened() -> AsyncIterator[OpenBackups]:
    async with open_backups() as opened:
        yield opened


@pytest.fixture
def notes(tmp_path: Path, nursery: trio.Nursery) -> Notes:
    workers = trio.CapacityLimiter(1)
    return Notes(Surroundings(FolderObjects(tmp_path), tmp_path, None, nursery, workers, 0))


async def names(tree: Tree, entry: Entry) -> list[bytes]:
    found: list[bytes] = []
    cursor = None
    while True:
        page = await tree.children(entry, cursor)
        found += [entry.name for entry in page.entries]
        if (cursor := page.cursor) is None:
            return found


async def walk(tree: Tree, path: str) -> tuple[Tree, Entry]:
    entry = await tree.root()
    for name in path.split("/"):
        entry = await tree.child(entry, name.encode())
        if entry.junction is not None:
            tree = entry.junction
            entry = await tree.root()
    return tree, entry


async def test_a_backup_appears_under_its_format_subject_and_time(notes, opened) -> None:
    catalogue = Catalogue(Keys("web/1.note", "web/2.note"), {"notes": notes}, opened)

    tree, entry = await walk(catalogue, "notes/web/2/note")

    async with tree.open(entry) as source:
        assert bytes(await source.read_at(0, 100)) == b"web/2.note"


async def test_latest_points_at_the_newest(notes, opened) -> None:
    catalogue = Catalogue(Keys("web/3.note", "web/1.note", "web/2.note"), {"notes": notes}, opened)

    _, entry = await walk(catalogue, "notes/web/latest")

    assert entry.target == b"3"


async def test_an_unfinished_backup_is_listed_but_not_shown(notes, opened) -> None:
    catalogue = Catalogue(Keys("web/1.half"), {"notes": notes}, opened)

    found = await catalogue.found()

    assert [(one.backup.is_complete, one.backup.reason) for one in found] == [(False, "half")]
    assert await names(catalogue, await catalogue.root()) == []


async def test_a_locked_repository_shows_what_to_do(notes, opened) -> None:
    catalogue = Catalogue(Keys("web.locked", "db/1.note"), {"notes": notes}, opened)

    tree, entry = await walk(catalogue, "notes/web/READ-ME.txt")

    async with tree.open(entry) as source:
        assert bytes(await source.read_at(0, 100)) == b"locked"
    assert await names(*(await walk(catalogue, "notes"))) == [b"db", b"web"]


async def test_an_archive_beside_a_directory_of_its_name_gives_way(notes, opened) -> None:
    for keys in (("a.note", "a/b.note"), ("a/b.note", "a.note")):
        catalogue = Catalogue(Keys(*keys), {"notes": notes}, opened)

        shown = await names(*(await walk(catalogue, "notes")))

        assert len(shown) == 2
        assert shown[0] == b"a"
        assert shown[1].startswith(b"a~")
        assert await names(*(await walk(catalogue, "notes/a"))) == [b"b"]


async def test_two_backups_of_one_path_are_both_shown(notes, opened) -> None:
    catalogue = Catalogue(Keys("a.note", "a.note"), {"notes": notes}, opened)

    assert len(await names(*(await walk(catalogue, "notes")))) == 2


async def test_a_backup_is_opened_once_and_only_when_used(notes, opened) -> None:
    catalogue = Catalogue(Keys("a.note", "b.note"), {"notes": notes}, opened)

    await names(*(await walk(catalogue, "notes")))
    unused = notes.openings
    await walk(catalogue, "notes/a/note")
    await walk(catalogue, "notes/a/note")

    assert (unused, notes.openings) == (0, 1)


async def test_idle_backups_are_closed_beyond_a_number(notes, opened) -> None:
    keys = [f"n{number}.note" for number in range(IDLE_MAX + 8)]
    catalogue = Catalogue(Keys(*keys), {"notes": notes}, opened)

    for key in keys:
        await walk(catalogue, f"notes/{key.removesuffix('.note')}/note")
    await trio.testing.wait_all_tasks_blocked()

    assert notes.openings == len(keys)
    assert notes.open_now <= IDLE_MAX + 1


async def test_a_broken_backup_harms_only_itself(notes, opened) -> None:
    catalogue = Catalogue(Keys("broken.note", "good.note"), {"notes": notes}, opened)

    for _ in range(2):
        with pytest.raises(Damaged, match="broken on purpose"):
            await walk(catalogue, "notes/broken/note")

    await walk(catalogue, "notes/good/note")


async def test_a_new_backup_appears_when_the_index_changed(notes, opened) -> None:
    keys = Keys("a.note")
    catalogue = Catalogue(keys, {"notes": notes}, opened)
    before = await names(*(await walk(catalogue, "notes")))

    keys.keys.append("b.note")
    keys.generation += 1

    assert before == [b"a"]
    assert await names(*(await walk(catalogue, "notes"))) == [b"a", b"b"]


async def test_a_known_backup_opens_when_the_store_cannot_be_listed(notes, opened) -> None:
    keys = Keys("a.note")
    keys.fails = True
    catalogue = Catalogue(keys, {"notes": notes}, opened)

    await walk(catalogue, "notes/a/note")
    with pytest.raises(Unreachable):
        await catalogue.found()
    with pytest.raises(Unreachable):
        await names(catalogue, await catalogue.root())
    with pytest.raises(Unreachable):
        await walk(catalogue, "notes/b")


async def test_the_top_shows_its_trees_side_by_side(notes, opened) -> None:
    catalogue = Catalogue(Keys("a.note"), {"notes": notes}, opened)
    top = RootTree({b"backups": catalogue})

    _, entry = await walk(top, "backups/notes/a/note")

    assert entry.size == len("a.note")
    assert await names(top, await top.root()) == [b"backups"]
    with pytest.raises(FileError):
        await walk(top, "other")


class Distant(Notes):
    """Another format, whose backups cannot always be asked for."""

    name = "distant"
    is_away = False
    asked = 0

    async def backups(self, landmarks: Sequence[ObjectInfo]) -> list[Backup]:
        self.asked += 1
        if self.is_away:
            raise Unreachable("the store is away")
        return await super().backups(landmarks)


@pytest.fixture
def distant(notes: Notes) -> Distant:
    return Distant(notes.surroundings)


async def test_a_format_that_cannot_be_asked_hides_no_other(notes, distant, opened) -> None:
    catalogue = Catalogue(Keys("a.note"), {"distant": distant, "notes": notes}, opened)
    distant.is_away = True

    assert await names(*(await walk(catalogue, "notes"))) == [b"a"]
    for path in ("distant", "notes/b", "distant/a"):
        with pytest.raises((Unreachable, FileError)) as caught:
            await walk(catalogue, path)
        assert isinstance(caught.value, Unreachable) == path.startswith("distant")
    with pytest.raises(Unreachable):
        await names(catalogue, await catalogue.root())
    with pytest.raises(Unreachable):
        await catalogue.found()


async def test_a_listing_that_failed_is_made_again(notes, distant, opened) -> None:
    catalogue = Catalogue(Keys("a.note"), {"distant": distant}, opened)
    distant.is_away = True
    with pytest.raises(Unreachable):
        await catalogue.found()

    distant.is_away = False

    assert len(await catalogue.found()) == 1
    assert await names(*(await walk(catalogue, "distant"))) == [b"a"]


async def test_what_was_known_stays_while_nobody_can_be_asked(notes, distant, opened) -> None:
    keys = Keys("a.note")
    catalogue = Catalogue(keys, {"distant": distant}, opened)
    await walk(catalogue, "distant/a/note")
    keys.keys.append("b.note")
    keys.generation += 1
    distant.is_away = True

    for _ in range(3):
        await walk(catalogue, "distant/a/note")
    asked = distant.asked
    with pytest.raises(Unreachable):
        await names(*(await walk(catalogue, "distant")))

    assert asked == 2  # known names do not wait for the store each time


async def test_a_backup_that_was_stored_anew_is_opened_anew(notes, opened) -> None:
    tree = opened.tree(notes, Backup(path=("a",), key="a", time_ns=1, version="one"))
    again = opened.tree(notes, Backup(path=("a",), key="a", time_ns=2, version="one"))
    other = opened.tree(notes, Backup(path=("a",), key="a", time_ns=1, version="two"))
    for one in (tree, again, other):
        await one.root()

    assert tree == again != other
    assert notes.openings == 2


async def test_a_backup_of_which_there_is_more_by_now_is_opened_anew(notes, opened) -> None:
    tree = opened.tree(notes, Backup(path=("a",), key="a", time_ns=1))
    shown = await tree.root()
    note = await tree.child(shown, b"note")
    async with tree.open(note) as source:
        notes.outdated = [1]
        for _ in range(2):
            await tree.child(shown, b"note")
        used = notes.open_now

        assert await source.read_at(0, 100) == b"a"  # of what was opened before
    await trio.testing.wait_all_tasks_blocked()

    assert (used, notes.openings, notes.open_now) == (2, 2, 1)
