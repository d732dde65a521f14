"""Send files of the spool: small ones by one put, larger ones in parts, while the tool still
writes.

A part that is full leaves in the background as soon as the allowance of bytes in flight allows, so
close has little left to send. Files that are sent in parts take turns with one another and with
small ones, so that a long one keeps nobody waiting for all of it. When the spool is pressed for
room, a part is stored as a hidden object instead: only then may the local disk forget it (see
`spooled.py`). The store copies it into the upload, beside what is being sent.
"""

import logging
from collections.abc import Sequence

import trio

from backgate.gateway.allowance import Allowance
from backgate.gateway.aside import Asides
from backgate.gateway.attributes import metadata_from_attributes
from backgate.gateway.copies import Copies
from backgate.gateway.errors import BackgateError, NotFound, Replaced, StoreError, Unsupported
from backgate.gateway.extents import Backing
from backgate.gateway.journal import Journal
from backgate.gateway.parts import Part, PartPlan, Upload, composition
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.records import Held, Left
from backgate.gateway.room import Room
from backgate.gateway.spooled import SpooledFile
from backgate.gateway.store import ObjectStore
from backgate.gateway.units import MIB
from backgate.gateway.uploads import Uploads

SPOOLED = "backgate-spooled"  # metadata name; says which file replaced the object it began from
IN_FLIGHT = 64 * MIB  # bytes of parts and small files in memory, over all files together

log = logging.getLogger(__name__)


class Uploader:
    """Sends the files of one spool to its store."""

    def __init__(
        self,
        store: ObjectStore,
        journal: Journal,
        uploads: Uploads,
        asides: Asides,
        nursery: trio.Nursery,
        plan: PartPlan,
        room: Room,
        copies: Copies | None,
        gateway: str,
    ) -> None:
        """With `copies` an object has its last attributes, whatever that takes."""
        self._store, self._journal, self._asides = store, journal, asides
        self._uploads, self._copies, self._gateway = uploads, copies, gateway
        self._nursery, self.plan, self._room = nursery, plan, room
        self.ahead = 0  # parts that are about to leave, or leaving, before anybody waits for them
        self._allowance = Allowance(IN_FLIGHT)

    def advance(self, file: SpooledFile) -> None:
        """Begin to send the parts of a growing file that are full; nobody waits for them."""
        if file.size < self.plan.single or (file.backing and file.upload is None):
            return
        while True:
            part = self.plan.part(file.next_part)
            if part.stop > file.size or not file.local.covers(part.start, part.stop):
                return
            if file.upload is None:
                file.upload = Upload(file.key or "", self.plan, file.attributes_version)
            file.next_part += 1
            self.ahead += 1
            self._nursery.start_soon(self._send_ahead, file, file.upload, part)

    async def store(self, file: SpooledFile, key: str) -> ObjectInfo:
        """Store the file as it is now under `key`, and return what was stored.

        Raises `StoreError` when that cannot be done before the deadline; nothing is lost.
        """
        try:
            return await self._stored(file, key)
        except Replaced:
            if not await self._was_stored(file, key):
                raise
            return await self._stored(file, key)

    async def _stored(self, file: SpooledFile, key: str) -> ObjectInfo:
        size = file.size
        if file.upload is not None and (file.upload.key != key or size <= self.plan.single):
            self.give_up(file)
        if file.upload is None and size <= self.plan.single:
            return _checked(await self._put(file, key, size), size)
        try:
            return _checked(await self._complete(file, key, size), size)
        except NotFound:  # the upload is gone: some stores abort what is older than a limit
            self.give_up(file)
            return _checked(await self._complete(file, key, size), size)

    async def put_aside(self, file: SpooledFile, part: Part) -> None:
        """Move the bytes of `part` into a hidden object, so that the spool has room again."""
        async with self._allowance.taken(part.size, file.number):
            if file.is_disposed or file.is_on_way(part):
                return
            if not file.local.covers(part.start, part.stop):
                return  # it has left already, or was cut off
            with file.sending(part):
                body = await file.body(part)
                await self._leave(file, part, await self._asides.put(body))

    def give_up(self, file: SpooledFile) -> None:
        """Abort the upload of `file`, if there is one, in the background."""
        upload, file.upload = file.upload, None
        file.next_part = 1
        if upload is not None:
            upload.is_given_up = True
            if upload.upload:
                self._uploads.give_up(upload.key, upload.upload)

    async def _was_stored(self, file: SpooledFile, key: str) -> bool:
        """True when a crash came between the store's answer and the journal.

        Then the object that the file began from was replaced by the file itself.
        """
        if key not in file.began_from:
            return False
        info = await self._store.head(key)
        if (info.metadata or {}).get(SPOOLED) != self._mark(file) or info.size < file.size:
            return False
        self.give_up(file)
        file.committed(info)
        return True

    def _mark(self, file: SpooledFile) -> str:
        return f"{self._gateway}/{file.number}/{file.since_ns}"

    def _metadata(self, file: SpooledFile) -> dict[str, str]:
        metadata = metadata_from_attributes(file.attributes)
        return {**metadata, SPOOLED: self._mark(file)} if file.began_from else metadata

    async def _put(self, file: SpooledFile, key: str, size: int) -> ObjectInfo:
        async with self._allowance.taken(size):
            body = await file.read_at(0, size)
            metadata = self._metadata(file)
            return await self._store.put(key, body, metadata, if_absent=file.if_absent)

    async def _complete(self, file: SpooledFile, key: str, size: int) -> ObjectInfo:
        """Send what was not sent yet, all at once within the allowance, and commit."""
        parts = self.plan.parts(size)
        if file.upload is None:
            abilities = self._store.abilities
            if file.backing and abilities.copies_parts and not abilities.limits.equal_parts:
                parts = composition(
                    size, file.local, file.backing, abilities.limits, self.plan.first
                )
            file.upload = Upload(key, self.plan, file.attributes_version)
        upload = file.upload
        await self._begin(file, upload)
        etags = await self._send_all(file, upload, parts)
        info = await self._store.commit_upload(key, upload.upload, etags, if_absent=file.if_absent)
        file.upload = None
        file.committed(info)
        self._uploads.ended(upload.upload)
        if file.attributes_version == upload.attributes_version:
            return info
        return await self._with_attributes(file, info)

    async def _send_all(
        self, file: SpooledFile, upload: Upload, parts: Sequence[Part]
    ) -> list[tuple[int, str]]:
        errors: list[BackgateError | OSError] = []
        # A copy: what is written meanwhile makes the upload forget parts that are right for us.
        etags = {part: upload.etags.get(part, "") for part in parts}

        async def send(part: Part) -> None:
            try:
                etags[part] = await self._send_in_turn(file, upload, part)
            except (BackgateError, OSError) as error:
                errors.append(error)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for part in parts:
                if not etags[part]:
                    nursery.start_soon(send, part)
        if errors:
            raise errors[0]
        return [(part.number, etag) for part, etag in etags.items()]

    async def _with_attributes(self, file: SpooledFile, info: ObjectInfo) -> ObjectInfo:
        """Replace what an upload was begun with by what was set since, where one copy can."""
        if self._copies is not None:
            return await self._copies.renew(info.key, file.attributes)
        if info.size > self._store.abilities.limits.copy_max:
            return info
        metadata = self._metadata(file)
        try:
            return await self._store.copy(info.key, info.key, metadata)
        except Unsupported:
            return info

    async def _begin(self, file: SpooledFile, upload: Upload) -> None:
        async with upload.beginning:
            if upload.upload or upload.is_given_up:
                return
            upload.attributes_version = file.attributes_version
            metadata = self._metadata(file)
            upload.upload = await self._uploads.begin(upload.key, metadata)
            if upload.is_given_up:
                self._uploads.give_up(upload.key, upload.upload)

    async def _send_ahead(self, file: SpooledFile, upload: Upload, part: Part) -> None:
        """Send one part while the file is written; a failure is for close to meet again.

        What has to leave the disk leaves first, and then the store copies it: no writer waits for
        that. A store that cannot copy gets it twice.
        """
        copies_parts = self._store.abilities.copies_parts
        leaves_first = copies_parts and self._room.is_pressed
        try:
            try:
                if leaves_first:
                    await self.put_aside(file, part)
                else:
                    await self._send_in_turn(file, upload, part, is_ahead=True)
                    if not copies_parts and self._room.is_pressed:
                        await self.put_aside(file, part)
            finally:
                self.ahead -= 1
                self._room.changed()
            if leaves_first:
                await self._send_in_turn(file, upload, part, is_ahead=True)
        except (BackgateError, OSError) as error:
            log.debug("part %d of %r did not leave early: %s", part.number, upload.key, error)

    async def _send_in_turn(
        self, file: SpooledFile, upload: Upload, part: Part, *, is_ahead: bool = False
    ) -> str:
        """Send `part` unless that has been done, and return its etag; "" for an outdated one."""
        size = 0 if self._copied(file, part) else part.size
        async with self._allowance.taken(size, file.number):
            await file.arrived(part.start, part.stop)
            if part in upload.etags:
                return upload.etags[part]
            if is_ahead and self._is_outdated(file, upload, part):
                return ""
            with file.sending(part):
                await self._begin(file, upload)
                if upload.is_given_up:
                    raise StoreError(f"{upload.key}: its upload was given up", key=upload.key)
                etag = await self._send(file, upload, part)
                upload.sent(part, etag)
                return etag

    async def _send(self, file: SpooledFile, upload: Upload, part: Part) -> str:
        held = self._copied(file, part)
        if held is not None:
            return await self._copy_part(upload, part, held)
        body = await file.body(part)
        return await self._store.put_part(upload.key, upload.upload, part.number, body)

    async def _copy_part(self, upload: Upload, part: Part, held: Backing) -> str:
        key, start = held.info.key, held.offset
        return await self._store.copy_part(
            upload.key, upload.upload, part.number, key, start, start + part.size, held.info.etag
        )

    async def _leave(self, file: SpooledFile, part: Part, info: ObjectInfo) -> None:
        """Let the local disk forget `part`, once the journal knows where it is."""
        backing = Backing(part.start, part.stop, info, 0)
        async with file.recording:
            if not file.is_disposed:
                self._journal.append(Left(file.number, Held.of(backing)))
                if file.is_durable:
                    await self._journal.synchronize()
            if file.is_disposed:  # before, or meanwhile
                self._asides.remove([info.key])
                return
            file.left(backing)
            self._asides.remove(file.unneeded())

    def _copied(self, file: SpooledFile, part: Part) -> Backing | None:
        """Return what the store can copy `part` from, if it can."""
        if not self._store.abilities.copies_parts:
            return None
        return file.unchanged(part.start, part.stop)

    def _is_outdated(self, file: SpooledFile, upload: Upload, part: Part) -> bool:
        return upload.is_given_up or file.is_disposed or file.size < part.stop


def _checked(info: ObjectInfo, size: int) -> ObjectInfo:
    if info.size != size:
        raise StoreError(f"{info.key}: {info.size} bytes were stored of {size}", key=info.key)
    return info
