"""One repository ("remote"): its objects, decrypted where it is encrypted.

`encryption.json` says with what. Without it an object that is no JSON where JSON belongs shows that
the repository is encrypted all the same. Whether the key is right is told by `metadata.json`, and
where that is gone or damaged, by any backup's metadata; so a wrong key is never taken for damage.
"""

from collections.abc import Sequence
from contextlib import suppress

import trio

from backgate.fs.format import Surroundings
from backgate.fs.formats.xen_orchestra.crypto import ALGORITHMS, KEY, NotAuthentic, Opener
from backgate.fs.formats.xen_orchestra.documents import METADATA_MAX, Encryption, parse
from backgate.fs.formats.xen_orchestra.sealed import SealedSource
from backgate.fs.whole import read_whole
from backgate.gateway.errors import Damaged, Denied, NotFound, PasswordNeeded, Replaced, StoreError
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.source import Data, Source
from backgate.gateway.units import KIB

ENCRYPTION, KEY_CHECK = "encryption.json", "metadata.json"
SMALL_MAX = 64 * KIB  # bytes of both
SAMPLES = 8  # backups' metadata that the key is tried on
HEAD = 24  # bytes that show that a document is not encrypted; no metadata is shorter
BELIEVED = 5.0  # seconds that a store is taken to answer after it has told of something
_PRINTABLE = frozenset(b"\t\n\r" + bytes(range(0x20, 0x7F)))
NONE = "none"


class Remote:
    """The objects below the prefix `where`; `fs.disk.Files` of its disks."""

    def __init__(self, where: str, lent: Surroundings) -> None:
        self.where = where
        self.workers = lent.workers
        self._lent = lent
        self._opener: Opener | None = None
        self._unlocked_by: tuple[str, ...] | None = None  # versions of the files that said how
        self._landmarks: Sequence[ObjectInfo] = ()  # objects that are there, some of them
        self._answered = -float("inf")  # trio's time

    @property
    def opener(self) -> Opener | None:
        """What opens its objects; None where nothing is encrypted."""
        return self._opener

    @property
    def was_unlocked(self) -> bool:
        """True when it was known once how its objects are opened."""
        return self._unlocked_by is not None

    async def info(self, key: str) -> ObjectInfo:
        """Return the object `key`, or raise `NotFound`, `StoreError`.

        A store that lets nobody list denies what is not there: it is taken for absent, unless
        everything is denied now.
        """
        try:
            return await self._lent.objects.info(key)
        except Denied as error:
            raise await self._meant_by(error, key) from error

    async def renewed(self, key: str) -> ObjectInfo:
        """Return the object `key` as the store has it now, or raise `NotFound`, `StoreError`."""
        try:
            return await self._lent.objects.renewed(key)
        except Denied as error:
            raise await self._meant_by(error, key) from error

    async def _meant_by(self, denied: Denied, key: str) -> StoreError:
        """Return `NotFound` if objects that are there are not denied, else the same error."""
        if trio.current_time() >= self._answered + BELIEVED:
            for info in self._landmarks:
                with suppress(Denied, NotFound):
                    await self._lent.objects.renewed(info.key)
                    self._answered = trio.current_time()
                    break
            else:
                return denied
        text = f"it is not there, or may not be read, which this store tells alike: {denied}"
        return NotFound(text, key=key)

    def source(self, info: ObjectInfo) -> Source:
        return _Asked(self, info, self._lent.objects.source(info))

    async def meant_by_refusal(self, denied: Denied, info: ObjectInfo) -> StoreError:
        """Return `NotFound` if what was denied when it was read is not there, else the same."""
        try:
            await self.renewed(info.key)
        except NotFound as error:
            return error
        return denied

    def opened(self, key: str, stored: Data) -> Data:
        if self._opener is None:
            return stored
        try:
            return self._opener.open(stored)
        except NotAuthentic as error:
            raise Damaged(key, None, str(error)) from None

    async def read(self, info: ObjectInfo, limit: int) -> Data:
        """Return what a whole object of at most `limit` bytes holds; `Damaged`, `StoreError`."""
        stored = await read_whole(self, info, limit)
        if self._opener is None or len(stored) <= SMALL_MAX:
            return self.opened(info.key, stored)
        return await trio.to_thread.run_sync(self.opened, info.key, stored, limiter=self.workers)

    def plain_source(self, info: ObjectInfo, *, is_verified: bool = False) -> Source:
        """Return the bytes that the object holds, of any size; `Damaged`."""
        if self._opener is None:
            return self.source(info)
        objects = self._lent.objects
        return SealedSource(objects, info, self._opener, self.workers, is_verified=is_verified)

    async def look_again(self, key: str) -> None:
        """Have `info` tell of the object `key` as it is now, where the store can be asked."""
        with suppress(StoreError):
            await self._lent.objects.renewed(key)

    async def below(self, prefix: str) -> list[str]:
        """Return the keys of objects with that prefix as they are now, one page of them.

        Where nobody may list, what is known of them; `StoreError` when nothing is.
        """
        with suppress(StoreError):
            await self._lent.objects.confirm(prefix)
        return [info.key for info in await self._lent.objects.below(prefix)]

    async def unlock(self, samples: Sequence[ObjectInfo]) -> None:
        """Find out how objects are opened; `samples` are metadata of backups.

        Raises `PasswordNeeded` when no key, or a wrong one, is configured; `StoreError`.
        """
        self._landmarks = samples[:SAMPLES]
        settings, check = await self._found(ENCRYPTION), await self._found(KEY_CHECK)
        documents = ([check] if check else []) + list(samples[:SAMPLES])
        versions = tuple(info.etag for info in (settings, check) if info is not None)
        if versions == self._unlocked_by and (versions or self._opener is None):
            return
        algorithms = await self._algorithms(settings, documents)
        self._opener = await self._opener_for(algorithms, documents) if algorithms else None
        self._unlocked_by = None if algorithms is None else versions

    async def _found(self, name: str) -> ObjectInfo | None:
        try:
            return await self.info(self.where + name)
        except NotFound:
            return None

    async def _algorithms(
        self, settings: ObjectInfo | None, documents: Sequence[ObjectInfo]
    ) -> Sequence[str] | None:
        """Return what may have encrypted the repository; empty: nothing; None: nobody can tell."""
        if settings is not None:
            try:
                content = await read_whole(self, settings, SMALL_MAX)
                algorithm = parse(settings.key, content, Encryption).algorithm
            except Damaged:
                return ALGORITHMS
            if algorithm != NONE and algorithm not in ALGORITHMS:
                raise PasswordNeeded(
                    f"it is encrypted with {algorithm!a:.40}, which is not supported"
                )
            return () if algorithm == NONE else (algorithm,)
        found: Sequence[str] | None = None
        for info in documents:
            if info.size < HEAD:  # cut off, or never written: it is a document of neither kind
                continue
            with suppress(NotFound, Replaced):  # it is being replaced, or deleted
                if _is_text(await self.source(info).read_at(0, HEAD)):
                    return ()
                found = ALGORITHMS
        return found

    async def _opener_for(
        self, algorithms: Sequence[str], documents: Sequence[ObjectInfo]
    ) -> Opener:
        key = self._lent.secret
        if key is None:
            raise PasswordNeeded("it is encrypted and no key for it is configured")
        if len(key) != KEY:
            raise PasswordNeeded(f"the configured key has {len(key)} bytes, it must have {KEY}")
        openers = [Opener(algorithm, key) for algorithm in algorithms]
        for info in documents:
            if info.size > METADATA_MAX:
                continue
            try:
                sealed = await read_whole(self, info, METADATA_MAX)
            except (Damaged, NotFound, Replaced):  # it is being replaced, or deleted
                continue
            for opener in openers:
                if _opens(opener, sealed):
                    return opener
            await trio.lowlevel.checkpoint()
        raise PasswordNeeded("the configured key does not open it")


class _Asked:
    """The bytes of an object of `remote`; denied is told from gone, as far as the store does."""

    def __init__(self, remote: Remote, info: ObjectInfo, source: Source) -> None:
        self.size = source.size
        self._remote, self._info, self._source = remote, info, source

    async def read_at(self, offset: int, length: int) -> Data:
        """See `Source`; raises `NotFound`, `StoreError`."""
        try:
            return await self._source.read_at(offset, length)
        except Denied as error:
            raise await self._remote.meant_by_refusal(error, self._info) from error


def _is_text(head: Data) -> bool:
    """True for the beginning of a JSON document, which no cipher gives by chance."""
    return all(byte in _PRINTABLE for byte in head)


def _opens(opener: Opener, sealed: Data) -> bool:
    try:
        opener.open(sealed)
    except NotAuthentic:
        return False
    return True
