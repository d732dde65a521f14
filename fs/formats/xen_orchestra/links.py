"""Find the images of one disk: from what the backup's metadata names to the one without a parent.

By key only: an alias leads to a VHD directory, a header names the parent beside the alias. Nothing
is listed unless an image is missing and a merge might explain it. While a merge goes on, what is
read one after another may not fit together: then all of it is looked at again.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from msgspec import Struct

from backgate.fs.disks.keys import BadPath, beside
from backgate.fs.disks.vhd_directory import FILTERS
from backgate.fs.disks.vhd_format import DIFFERENCING, Footer, Header
from backgate.fs.formats.xen_orchestra.layout import ALIAS
from backgate.fs.formats.xen_orchestra.merges import Merge, Merges, StatesByDirectory
from backgate.fs.formats.xen_orchestra.remote import Remote
from backgate.gateway.errors import Damaged, Denied, NotFound, Replaced
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.units import KIB

CHAIN_MAX = 1000  # images of one disk
MISSES_MAX = 32  # objects that may turn out missing, or others, while the images are found
CHANGES_MAX = 8  # times that one of them may be another; a file is merged into in place
UNFIT_MAX = 3  # times that two images may be found not to fit; a merge takes longer than a look
ALIAS_MAX = 4 * KIB  # bytes of an alias, encrypted; Xen Orchestra takes 1024
PARTS = ("footer", "header", "bat", FILTERS)  # of a VHD directory, that say what it is

T = TypeVar("T")


class About(Struct, frozen=True):
    """What an image says of itself; it is made on top of another when it names one."""

    where: str  # the key of the file or directory
    uuid: bytes
    parent_uuid: bytes = b""
    parent_name: str | None = None

    @classmethod
    def of(cls, where: str, footer: Footer, header: Header | None) -> "About":
        """Return it from the structures of a VHD; a fixed one has no header."""
        if header is None or footer.kind != DIFFERENCING:
            return cls(where, footer.uuid)
        return cls(where, footer.uuid, header.parent_uuid, header.parent_name)


@dataclass(frozen=True, slots=True)
class Link(Generic[T]):
    """One image of a chain."""

    key: str  # of the file, alias or directory
    about: About
    image: T

    @property
    def name(self) -> str:
        """The name that its child and the states of merges have for it."""
        return self.key.rpartition("/")[2]

    def parts(self) -> list[str]:
        """Return the keys of the objects that say which image this is."""
        where = self.about.where
        inner = [] if self.key == where else [f"{where}/{part}" for part in PARTS]
        return [self.key, *inner]


class Unfit(Damaged):
    """Two images that do not belong together, or of which one was changed before it was read."""

    def __init__(self, child: Link[T], parent: Link[T]) -> None:
        super().__init__(child.key, None, f"it was not made on top of {parent.name}")
        self.pair = child.key, parent.key
        self.parts = [*child.parts(), *parent.parts()]


@dataclass(frozen=True, slots=True)
class Links(Generic[T]):
    """The images of a disk, the youngest first, and the merges among them."""

    links: Sequence[Link[T]]
    merges: Sequence[Merge]

    def require_fit(self) -> None:
        """Raise `Unfit` unless each image was made on top of the next."""
        pending = {name for merge in self.merges for name in self.names(merge)}
        for child, parent in zip(self.links, self.links[1:], strict=False):
            if {child.name, parent.name} & pending:
                continue  # the merge changes the parent's identity before the child is gone
            if child.about.parent_uuid != parent.about.uuid:
                raise Unfit(child, parent)

    def names(self, merge: Merge) -> Sequence[str]:
        """Return the images that a merge concerns; the child of the oldest where none are named."""
        if merge.names:
            return merge.names
        names = [link.name for link in self.links]
        if merge.oldest not in names:
            return ()
        at = names.index(merge.oldest)
        return names[max(0, at - 1) : at + 1]


@dataclass(frozen=True, slots=True)
class Finder(Generic[T]):
    """Finds chains; `image` opens what has a key, and is told when it may have changed."""

    remote: Remote
    image: Callable[[str, bool], Awaitable[Link[T]]]  # the second: nothing older than now will do
    weigh: Callable[[Sequence[Link[T]]], None]  # `Damaged`: they are too much
    looks: bool = True  # whether a merge that nobody told of is looked for

    async def links(
        self, key: str, states: StatesByDirectory, *, is_listing: bool = False
    ) -> Links[T]:
        """Return the images of `key`; with `is_listing`, after a look for merges that are new.

        Raises `Damaged` when an image is missing or does not fit, `StoreError`.
        """
        directory, _, name = key.rpartition("/")
        merges = Merges(self.remote, directory, states.get(directory, ()))
        if is_listing:
            await merges.list_all()
        missed, unfit = Counter[str](), Counter[tuple[str, str]]()
        while True:
            try:
                found = await self._walk(key, merges, anew=bool(missed or unfit))
                break
            except (NotFound, Replaced) as error:
                missing = error.key or key
                most = CHANGES_MAX if isinstance(error, Replaced) else 1
                is_known = missed[missing] >= most or missed.total() >= MISSES_MAX
                missed[missing] += 1
                if not is_known:  # it may be another, or somewhere else, since we were told of it
                    for part in _beside(missing):
                        await self.remote.look_again(part)
                if not await merges.list_all() and is_known:
                    raise Damaged(missing, None, _reason(error)) from None
            except Unfit as error:
                unfit[error.pair] += 1
                if unfit[error.pair] == UNFIT_MAX or len(unfit) == MISSES_MAX:
                    raise
                for part in error.parts:  # a merge may have ended after the first was read
                    await self.remote.look_again(part)
                merges = Merges(self.remote, directory, ())
                await merges.list_all()
        if any(merge.is_end_of(name) for merge in found.merges):
            text = "its backup was deleted, and younger ones are being merged into its disk"
            raise Damaged(key, None, text)
        return found

    async def _walk(self, key: str, merges: Merges, *, anew: bool) -> Links[T]:
        links: list[Link[T]] = []
        seen: set[str] = set()
        while True:
            key = await self._standing(key, merges)
            if key in seen or len(seen) == CHAIN_MAX:
                raise Damaged(key, None, "the images of this disk form a loop, or are too many")
            seen.add(key)
            links.append(await self.image(key, anew))
            if self.looks:
                await merges.look_at(key)
            self.weigh(links)
            about = links[-1].about
            if about.parent_name is None:
                break
            try:
                key = beside(key, about.parent_name, self.remote.where)
            except BadPath as error:
                raise Damaged(about.where, None, f"its parent: {error}") from None
        found = Links(links, await merges.known())
        found.require_fit()
        return found

    async def _standing(self, key: str, merges: Merges) -> str:
        """Return the key of the image that has all of what `key` names."""
        directory, _, name = key.rpartition("/")
        for merge in await merges.known():
            if merge.is_into(name) and merge.oldest != name:
                oldest = f"{directory}/{merge.oldest}"
                if await self._is_there(oldest) and (merge.names or not await self._is_there(key)):
                    return oldest
        return key

    async def _is_there(self, key: str) -> bool:
        for one in (key, f"{key}/header"):
            with suppress(NotFound):
                await self.remote.info(one)
                return True
        return False


def _beside(key: str) -> Sequence[str]:
    """Return the keys that may be wrong together with `key`: what says what a directory is.

    That a list of filters is not there is no error, so nobody else would ask for it again.
    """
    directory, _, name = key.rpartition("/")
    return [f"{directory}/{part}" for part in PARTS] if name in PARTS else [key]


def _reason(error: NotFound | Replaced) -> str:
    if isinstance(error, Replaced):
        return f"it changes all the time: {error}"
    said = f": {error}" if isinstance(error.__cause__, Denied) else ""  # else nothing more
    return f"it is missing, and without it the disk is not whole{said}"


async def target_of(remote: Remote, alias: ObjectInfo) -> str:
    """Return the key of the VHD directory that an alias leads to; `Damaged`, `StoreError`."""
    content = await remote.read(alias, ALIAS_MAX)
    try:
        target = beside(alias.key, bytes(content).decode().strip(), remote.where)
    except (BadPath, UnicodeDecodeError) as error:
        raise Damaged(alias.key, None, f"an alias that leads nowhere: {error}") from None
    if target.endswith(ALIAS):
        raise Damaged(alias.key, None, "an alias of an alias")
    return target
