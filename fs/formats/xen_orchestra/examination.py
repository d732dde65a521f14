"""Whether the disks of backups are whole, as far as it shows without reading them.

Of each image its footer and header are read, once: they name the image below. What is found so is
kept for the next time. Blocks are not looked for.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import trio

from backgate.fs.disks.chunks import Chunks
from backgate.fs.disks.vhd_directory import FILTERS, structures_of
from backgate.fs.disks.vhd_file import FixedVhd, open_file
from backgate.fs.format import Count
from backgate.fs.formats.indexes import identity
from backgate.fs.formats.xen_orchestra.facts import Facts, Known
from backgate.fs.formats.xen_orchestra.layout import ALIAS
from backgate.fs.formats.xen_orchestra.links import About, Finder, Link, target_of
from backgate.fs.formats.xen_orchestra.merges import StatesByDirectory
from backgate.fs.formats.xen_orchestra.remote import Remote
from backgate.fs.nurseries import open_nursery
from backgate.gateway.errors import Damaged, NotFound, StoreError, Unreachable
from backgate.gateway.provider import ObjectInfo

IMAGES_AT_ONCE = 16
DIRECTORIES_AT_ONCE = 16
MERGING = (
    "a merge of its disks goes on, or was interrupted: it can be read here, but not in Xen "
    "Orchestra, whose next run may delete it"
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said of a disk; "": nothing."""

    problem: str = ""
    warning: str = ""


class Examination:
    """One look at the disks of a repository; `known` is what former ones have found."""

    def __init__(self, remote: Remote, chunks: Chunks, known: Known, count: Count) -> None:
        self._remote, self._chunks, self._known, self._count = remote, chunks, known, count
        self.used = Known({}, {})  # what is still of use
        self.verdicts: dict[str, Verdict] = {}  # by the key of the disk's youngest image
        self._images = trio.CapacityLimiter(IMAGES_AT_ONCE)
        self._directories = trio.CapacityLimiter(DIRECTORIES_AT_ONCE)

    async def run(self, disks: Iterable[str], states: StatesByDirectory) -> None:
        """Look at the disks that have these keys; raises `Unreachable`."""
        by_directory: dict[str, list[str]] = {}
        for key in sorted(disks):
            by_directory.setdefault(key.rpartition("/")[0], []).append(key)
        self._count(0, sum(map(len, by_directory.values())))
        async with open_nursery() as nursery:
            for keys in by_directory.values():
                nursery.start_soon(self._directory, keys, states)

    async def _directory(self, keys: Sequence[str], states: StatesByDirectory) -> None:
        async with self._directories:
            found: dict[str, Link[None]] = {}
            async with open_nursery() as nursery:
                for key in keys:
                    nursery.start_soon(self._read_ahead, key, found)
            finder = Finder(
                self._remote, partial(self._image, found), weigh=lambda _: None, looks=False
            )
            for key in keys:
                self.verdicts[key] = await _verdict(finder, key, states)

    async def _read_ahead(self, key: str, found: dict[str, Link[None]]) -> None:
        try:
            await self._image(found, key, False)
        except Unreachable:
            raise
        except (Damaged, StoreError) as error:  # said when its disk is looked at
            log.debug("%r: %s", key, error)
        self._count(1, 0)

    async def _image(self, found: dict[str, Link[None]], key: str, anew: bool) -> Link[None]:
        """See `Finder.image`."""
        if anew or key not in found:
            async with self._images:
                found[key] = Link(key, await self._about(key), None)
        return found[key]

    async def _about(self, key: str) -> About:
        if key.endswith(ALIAS):
            return await self._directory_image(await self._target(await self._remote.info(key)))
        try:
            info = await self._remote.info(key)
        except NotFound:
            return await self._directory_image(key)
        if (about := self._remembered(name := identity(info))) is None:
            image = await open_file(key, self._remote.source(info), may_be_fixed=False)
            header = None if isinstance(image, FixedVhd) else image.header
            about = self.used.images[name] = About.of(key, image.footer, header)
        return about

    async def _target(self, alias: ObjectInfo) -> str:
        name = identity(alias)
        target = self._known.targets.get(name) or await target_of(self._remote, alias)
        self.used.targets[name] = target
        return target

    async def _directory_image(self, directory: str) -> About:
        infos = [await self._remote.info(f"{directory}/{name}") for name in ("header", "footer")]
        await self._remote.info(f"{directory}/bat")
        with suppress(NotFound):
            infos.append(await self._remote.info(f"{directory}/{FILTERS}"))
        name = "".join(map(identity, infos))
        if (about := self._remembered(name)) is None:
            structures = await structures_of(self._remote, self._chunks, directory)
            about = self.used.images[name] = About.of(directory, *structures)
        return about

    def _remembered(self, name: str) -> About | None:
        about = self._known.images.get(name)
        if about is not None:
            self.used.images[name] = about
        return about


async def _verdict(finder: Finder[None], key: str, states: StatesByDirectory) -> Verdict:
    try:
        found = await finder.links(key, states)
    except Unreachable:
        raise
    except (Damaged, StoreError) as error:
        return Verdict(problem=str(error))
    names = {link.name for link in found.links}
    is_merging = any(names & {merge.oldest, *found.names(merge)} for merge in found.merges)
    return Verdict(warning=MERGING if is_merging else "")


async def examined(
    remote: Remote,
    chunks: Chunks,
    facts: Facts,
    disks: Iterable[str],
    states: StatesByDirectory,
    count: Count,
) -> Mapping[str, Verdict]:
    """Return what is to be said of each disk, by the key of its youngest image; `Unreachable`."""
    known = await trio.to_thread.run_sync(facts.load, limiter=remote.workers)
    examination = Examination(remote, chunks, known, count)
    await examination.run(disks, states)
    if examination.used != known:
        await trio.to_thread.run_sync(facts.save, examination.used, limiter=remote.workers)
    return examination.verdicts
