"""One file of the spool: bytes that a tool writes, on their way into an object.

**Every byte is in the local file, or in a finished object, or zero.** The object is the stored one
that the file was opened from, or a hidden one that holds a part which had to leave when the spool
grew too full. (What was sent to an upload that is not committed cannot be read back from S3, so it
does not count.) Hence a part that has left can be read, and changed, like any other; and after a
crash everything can be sent again.

Changes happen without an await; only reading what is not local waits for the store. A write to
bytes that are just being sent waits until they have arrived, so that no object is a mixture.
"""

import errno
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import trio
from msgspec.structs import replace

from backgate.gateway.attributes import Attributes
from backgate.gateway.errors import FileError
from backgate.gateway.extents import Backing, BackingMap, Ranges
from backgate.gateway.local_file import LocalFile
from backgate.gateway.locks import Lock
from backgate.gateway.parts import Part, Upload
from backgate.gateway.provider import Body, ObjectInfo
from backgate.gateway.records import HIDDEN, Held, Spooled
from backgate.gateway.source import Data, Source
from backgate.gateway.units import MIB

READ_STEP = 8 * MIB  # bytes fetched at a time
MAPPED_FROM = 64 * MIB  # bytes; only parts of files beyond 100 GiB are larger

Sources = Callable[[ObjectInfo], Source]


class SpooledFile:
    """A file open for writing, staged, or waiting to be stored; for any number of tasks at once.

    It is dirty while it holds anything that its object does not. `key` is None once it was
    unlinked: then it lives on for those who have it open, and is never stored.
    """

    def __init__(
        self,
        number: int,
        path: Path,
        key: str,
        attributes: Attributes,
        sources: Sources,
        account: Callable[[int], None],
    ) -> None:
        self.number = number
        self.key: str | None = key
        self.attributes = attributes
        self.size = 0  # bytes
        self.local = Ranges()
        self.backing = BackingMap()
        self.is_new = True  # the store has no object of its name
        self.version = 0  # grows with each change of the bytes
        self.stored_version = 0  # which of them is in the store
        self._local_version = 0  # grows with each change of the local file
        self._synchronized_version = 0  # which of them is surely on disk
        self.flushed_version = 0  # which of them somebody closed
        self.attributes_version = 0  # grows when somebody sets them
        self.opens = 0  # descriptors that may write
        self.is_recovered = False  # an earlier run of the gateway left it
        self.if_absent = False  # to be stored only where there is no object of its name
        self.is_taken = False  # an empty object keeps its name from other gateways
        self.is_durable = False  # the journal knows it synchronized
        self.is_recorded = False  # the journal knows it
        self.flushed_at = 0.0  # seconds, monotonic
        self.since_ns = time.time_ns()  # when it came into the spool
        self.epoch = 0  # it is stored after all that was acknowledged in earlier ones
        self.hidden: set[str] = set()  # keys of hidden objects that hold bytes of it, or did
        self.reason = ""  # why it could not be stored
        self.upload: Upload | None = None  # in flight while it is written
        self.next_part = 1  # of that upload
        self.publishing = Lock()
        self.recording = Lock()  # for what must be in the journal before it is done
        self._sources, self._account = sources, account
        self._file = LocalFile(path)
        self._sending: dict[Part, trio.Event] = {}
        self._truncations = 0
        self._is_disposed = False

    @property
    def is_dirty(self) -> bool:
        """True while its object does not hold all that was written."""
        return self.version != self.stored_version

    @property
    def is_waiting(self) -> bool:
        """True when it was closed and is to be stored."""
        return self.key is not None and self.is_dirty and self.flushed_version == self.version

    @property
    def began_from(self) -> set[str]:
        """The keys of the objects, not hidden ones, that hold bytes of it."""
        return {one.info.key for one in self.backing} - self.hidden

    @property
    def unsent(self) -> int:
        """How many bytes are still to be sent until it is stored."""
        sent = self.upload.etags if self.upload is not None else ()
        return max(0, self.size - sum(part.size for part in sent))

    @property
    def is_sending(self) -> bool:
        """True while parts of it are on their way."""
        return bool(self._sending)

    @property
    def truncations(self) -> int:
        """How often it became shorter."""
        return self._truncations

    def write(self, offset: int, data: Data) -> None:
        """Put `data` at `offset`; nobody must be sending those bytes.

        Raises `FileError` (ENOSPC) when the disk of the spool is full.
        """
        view, at = memoryview(data), offset
        try:
            while view:
                count = self._file.write(at, view)
                self._wrote(at, at + count)
                at, view = at + count, view[count:]
        except OSError as error:
            raise FileError(error.errno or errno.EIO, self._file.path, f"spool: {error}") from error

    def truncate(self, size: int) -> None:
        """Make it `size` bytes long; nobody must be sending what is cut off."""
        if size < self.size:
            self._truncations += 1
            self._forget(size, self.size)
            self.backing.remove(size, self.size)
            self._file.truncate(size)
            if self.upload is not None:
                self.upload.changed(size, self.size)
        self.size = size
        self._changed()

    def set_attributes(self, attributes: Attributes) -> None:
        """Give it these attributes when it is stored."""
        self.attributes = attributes
        self.attributes_version += 1

    def renamed(self) -> None:
        """Note that its name changed; nothing has to be stored for that."""
        self.attributes = replace(self.attributes, ctime_ns=time.time_ns())

    async def read_at(self, offset: int, length: int) -> Data:
        """Return `length` bytes at `offset` as they are now, fewer only where the file ends.

        Raises `StoreError` when bytes that are not local cannot be had before the deadline.
        """
        stop = min(offset + length, self.size)
        if offset >= stop:
            return b""
        if not self._missing(Ranges(), offset, stop):
            return self._file.read(offset, stop)
        buffer, fetched = bytearray(stop - offset), Ranges()
        while missing := self._missing(fetched, offset, stop):
            one = missing[0]
            buffer[one.start - offset : one.stop - offset] = await self._fetched(one)
            fetched.add(one.start, one.stop)
        for begin, end in self.local.within(offset, min(stop, self.size)):
            buffer[begin - offset : end - offset] = self._file.read(begin, end)
        return memoryview(buffer)

    def needs(self, key: str) -> bool:
        """True while bytes of it lie in the object `key` only."""
        return any(one.info.key == key for one in self._missing(Ranges(), 0, self.size))

    async def body(self, part: Part) -> Body:
        """Return the bytes of `part` to be sent; a very large one is mapped, not read."""
        if part.size < MAPPED_FROM:
            return await self.read_at(part.start, part.size)
        while missing := self._missing(Ranges(), part.start, part.stop):
            one = missing[0]
            data = await self._fetched(one)
            for start, stop in self.local.gaps(one.start, one.stop):
                count = self._file.write(start, data[start - one.start : stop - one.start])
                self._hold(start, start + count)
        return self._file.mapped(part.start, part.stop)

    def unchanged(self, start: int, stop: int) -> Backing | None:
        """Return the object's range that is all of `[start, stop)`, if there is one."""
        held = self.backing.within(start, stop)
        whole = len(held) == 1 and (held[0].start, held[0].stop) == (start, stop)
        return held[0] if whole and not self.local.within(start, stop) else None

    @contextmanager
    def sending(self, part: Part) -> Iterator[None]:
        """Keep the bytes of `part` as they are while the context is open."""
        self._sending[part] = arrived = trio.Event()
        try:
            yield
        finally:
            del self._sending[part]
            arrived.set()
            if self._is_disposed:
                self.rest()

    async def arrived(self, start: int, stop: int) -> None:
        """Wait until nobody is sending any of `[start, stop)`."""
        while on_way := [
            event
            for part, event in self._sending.items()
            if part.start < stop and start < part.stop
        ]:
            await on_way[0].wait()

    def is_on_way(self, part: Part) -> bool:
        """True while some of `part` is being sent."""
        return any(one.start < part.stop and part.start < one.stop for one in self._sending)

    def left(self, backing: Backing) -> None:
        """Free the local bytes that `backing` holds as well."""
        self.hidden.add(backing.info.key)
        self.backing.put(backing)
        self._forget(backing.start, backing.stop)
        self._file.punch(backing.start, backing.stop)

    def unneeded(self) -> set[str]:
        """Return, once, the hidden objects that hold nothing of it any more."""
        needed = {one.info.key for one in self.backing}
        unneeded, self.hidden = self.hidden - needed, self.hidden & needed
        return unneeded

    def committed(self, info: ObjectInfo) -> None:
        """Note that `info` replaced its object: what lay in that one and was not touched since lies
        in this one too.

        Not so what lies in hidden objects: it may have been changed after it was sent, and left.
        """
        self.is_new = self.if_absent = self.is_taken = False
        self.backing = BackingMap(
            one if one.info.key in self.hidden else Backing(one.start, one.stop, info, one.start)
            for one in self.backing
        )

    def stored_as(self, info: ObjectInfo, version: int) -> None:
        """Note that `info` is what was written up to `version`."""
        self.committed(info)
        self.stored_version, self.reason = version, ""
        if version == self.version:
            self.backing = BackingMap([Backing(0, self.size, info, 0)])

    def release_clean(self) -> None:
        """Free all local bytes of a file that is stored as it is."""
        self._forget(0, self.size)
        self._file.empty()

    def record(self, *, is_durable: bool, size: int | None = None) -> Spooled:
        """Return what the journal should say of it now, or once it is cut to `size`."""
        size = self.size if size is None else size
        return Spooled(
            number=self.number,
            key=self.key or "",
            attributes=self.attributes,
            size=size,
            local=self.local.within(0, size),
            held=[Held.of(one) for one in self.backing.within(0, size)],
            epoch=self.epoch,
            is_durable=is_durable,
            is_closed=self.is_waiting,
            is_new=self.is_new,
            if_absent=self.if_absent,
            is_taken=self.is_taken,
            since_ns=self.since_ns,
            reason=self.reason,
        )

    def start_from(self, info: ObjectInfo) -> None:
        """Begin as the object `info` is."""
        self.size, self.is_new = info.size, False
        self.backing = BackingMap([Backing(0, info.size, info, 0)])

    def recover(self, record: Spooled) -> None:
        """Become what the journal says; what the local file holds beyond that is dropped."""
        self.size = record.size
        self.backing = BackingMap(held.backing() for held in record.held)
        self.backing.remove(record.size, sys.maxsize)
        self.hidden = {held.key for held in record.held if held.key.startswith(HIDDEN)}
        self.epoch, self.is_new = record.epoch, record.is_new
        self.if_absent = record.if_absent  # and no reason: it is being tried again
        self.is_taken = record.is_taken
        self.since_ns = record.since_ns or self.since_ns
        for start, stop in record.local:
            self.local.add(start, min(stop, record.size))
        self._account(self.local.total)
        self._file.truncate(record.size)
        for start, stop in self.local.gaps(0, record.size):
            self._file.punch(start, stop)
        self.version = self.flushed_version = 1
        self._synchronized_version = 0 if record.is_durable else -1
        self.is_recovered = True
        self.is_durable, self.is_recorded = record.is_durable, True
        self.flushed_at = trio.current_time()

    async def synchronize(self) -> None:
        """fsync the local file, and its name if the journal does not know it synchronized."""
        version = self._local_version
        if version != self._synchronized_version or not self.is_durable:
            await self._file.synchronize(with_name=not self.is_durable)
            self._synchronized_version = version

    def rest(self) -> None:
        """Close the local file until somebody needs it again."""
        if not self._sending:
            self._file.close()

    def dispose(self) -> None:
        """Delete the local file; nobody has it open any more."""
        self._is_disposed = True
        self.backing = BackingMap()
        self._account(-self.local.total)
        self.local = Ranges()
        self._file.remove()
        self.rest()

    @property
    def is_disposed(self) -> bool:
        return self._is_disposed

    def _wrote(self, start: int, stop: int) -> None:
        self._hold(start, stop)
        self.size = max(self.size, stop)
        if self.upload is not None:
            self.upload.changed(start, stop)
        self._changed()

    def _changed(self) -> None:
        now_ns = time.time_ns()
        self.version += 1
        self._local_version += 1
        self.attributes = replace(self.attributes, mtime_ns=now_ns, ctime_ns=now_ns)

    def _hold(self, start: int, stop: int) -> None:
        before = self.local.total
        self.local.add(start, stop)
        self._account(self.local.total - before)
        self._local_version += 1

    def _forget(self, start: int, stop: int) -> None:
        before = self.local.total
        self.local.remove(start, stop)
        self._account(self.local.total - before)

    async def _fetched(self, one: Backing) -> Data:
        data = await self._sources(one.info).read_at(one.offset, one.stop - one.start)
        if len(data) != one.stop - one.start:
            raise FileError(errno.EIO, one.info.key, "the object is shorter than it was")
        return data

    def _missing(self, fetched: Ranges, start: int, stop: int) -> list[Backing]:
        """Return what of `[start, stop)` lies in objects only and was not fetched yet."""
        return [
            one.cut(inside, min(outside, inside + READ_STEP))
            for one in self.backing.within(start, min(stop, self.size))
            for begin, end in self.local.gaps(one.start, one.stop)
            for inside, outside in fetched.gaps(begin, end)
        ]
