"""Change mode, owner, times and extended attributes where a repository keeps them.

A repository of kind `repository` keeps what is set after an object was stored in its metadata cache
only: a request less for each of the many that tools make. One of kind `mirror` keeps it with the
object, which is copied onto itself, so that another gateway, or this one without its cache, shows
the same. What is still in the spool takes its attributes along when it is stored.
"""

import errno
from collections.abc import Awaitable, Callable

import trio

from backgate.gateway.attributes import Attributes, metadata_from_attributes
from backgate.gateway.errors import BackgateError, FileError, NotFound
from backgate.gateway.keys import name_of, parent_of
from backgate.gateway.metadata.rows import Known, Subdirectory
from backgate.gateway.namespace import Namespace
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.spool import Spool
from backgate.gateway.spooled import SpooledFile

Change = Callable[[Attributes], Attributes]
Shown = Callable[[str], Awaitable[tuple[ObjectInfo, Attributes]]]  # an object, as it is shown


class AttributeChanges:
    """Changes of attributes in one repository; `with_objects` keeps them in the store."""

    def __init__(self, spool: Spool, names: Namespace, shown: Shown, *, with_objects: bool) -> None:
        self._spool, self._names, self._shown = spool, names, shown
        self._with_objects = with_objects
        self._store, self._metadata = spool.store, spool.metadata
        self._copies = spool.renames.copies

    async def of_spooled(self, file: SpooledFile, change: Change) -> None:
        """Change a file of the spool; one that is stored as it is, where the repository keeps it.

        Raises `FileError` (E2BIG) for more than the store keeps, and `StoreError`.
        """
        attributes = change(file.attributes)
        if self._with_objects and attributes.xattrs:
            self._copies.expect_room(file.key or "", metadata_from_attributes(attributes))
        before = file.attributes
        self._spool.set_attributes(file, attributes)
        try:
            await self._keep_if_stored(file)
        except BackgateError:
            self._spool.set_attributes(file, before)
            raise

    async def of_object(self, key: str, change: Change) -> Known | SpooledFile:
        """Change an object, and return it as it is now; raises what `of_spooled` does."""
        while (spooled := self._spool.writing(key)) is None:
            async with self._spool.claims.claim(key):
                if self._spool.writing(key) is not None:
                    continue  # opened meanwhile: it would take what it began with along
                info, shown = await self._shown(key)
                attributes = change(shown)
                if self._with_objects:
                    return await self._renew(key, attributes)
                await self._metadata.attributes_changed(key, attributes)
                return Known(info, attributes, is_settled=True)
        self._spool.hold(spooled)  # or its name may be that of another file before it is our turn
        try:
            await self.of_spooled(spooled, change)
        finally:
            with trio.CancelScope(shield=True):
                await self._spool.release(spooled)
        return spooled

    async def of_directory(self, prefix: str, attributes: Attributes) -> None:
        """Give a directory attributes; raises what `of_spooled` does."""
        async with self._spool.claims.claim(prefix[:-1]):  # not what is below it
            await self._expect_directory(prefix)
            if self._with_objects:
                await self._keep_directory(prefix, attributes)
            await self._metadata.directory_changed(prefix, attributes)

    async def _keep_if_stored(self, file: SpooledFile) -> None:
        """Keep the attributes of a file where its object's are; a dirty one takes them along.

        With objects, that is waited for; else whoever stores the file notes those that it has then.
        """
        while (key := file.key) is not None and (self._with_objects or not file.is_dirty):
            async with self._spool.claims.claim(key):  # whoever stores or renames it now has ended
                if file.key != key:
                    continue
                if not file.is_dirty and self._with_objects:
                    await self._renew(key, file.attributes)
                elif not file.is_dirty:
                    await self._metadata.attributes_changed(key, file.attributes)
                return

    async def _expect_directory(self, prefix: str) -> None:
        """Raise `FileError` (ENOENT) for one that was renamed or removed: it must not come back."""
        parent = parent_of(prefix[:-1])
        try:
            found = await self._metadata.look_up_name(parent, name_of(prefix[len(parent) : -1]))
        except NotFound:
            found = None
        if not isinstance(found, Subdirectory):
            raise FileError(errno.ENOENT, prefix)

    async def _keep_directory(self, prefix: str, attributes: Attributes) -> None:
        try:
            marker = (await self._metadata.look_up(prefix)).info
        except NotFound:
            marker = None
        if marker is not None and marker.size:
            await self._renew(prefix, attributes)
            return
        metadata = metadata_from_attributes(attributes)
        self._copies.expect_room(prefix, metadata)
        info = await self._store.put(prefix, b"", metadata)
        await self._metadata.stored(info, attributes)

    async def _renew(self, key: str, attributes: Attributes) -> Known:
        info = await self._copies.renew(key, attributes)
        await self._metadata.stored(info, attributes)
        self._names.moved(key, info)
        return Known(info, attributes, is_settled=True)
