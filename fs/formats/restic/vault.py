"""What it takes to open a repository: its keys and its config, tried with the password once."""

from collections.abc import Sequence

import trio

from backgate.fs.format import Objects
from backgate.fs.formats.restic.crypto import Opener, Unsound
from backgate.fs.formats.restic.documents import Config, parse
from backgate.fs.formats.restic.layout import Layout
from backgate.fs.formats.restic.unlock import unlock
from backgate.fs.formats.restic.unpacked import KEY_FILE_MAX, check_id
from backgate.fs.whole import read_whole
from backgate.gateway.errors import Damaged, NotFound, PasswordNeeded
from backgate.gateway.provider import ObjectInfo

VERSIONS = (1, 2)
KEYS_MAX = 64  # key files tried; each costs half a second


class Vault:
    """One repository's lock. What opened it, or did not, is remembered until its files change."""

    def __init__(
        self, objects: Objects, password: bytes | None, scrypts: trio.CapacityLimiter
    ) -> None:
        self._objects, self._password, self._scrypts = objects, password, scrypts
        self._tried: tuple[tuple[str, str], ...] = ()
        self._result: Opener | PasswordNeeded | Damaged | None = None

    async def opener(self, layout: Layout) -> Opener:
        """Return what opens the repository's files.

        Raises `PasswordNeeded`; `Damaged` when keys or config do not hold; `StoreError`.
        """
        files = tuple((info.key, info.etag) for info in (layout.config, *layout.keys))
        if self._result is None or files != self._tried:
            try:
                self._result = await self._opened(layout)
            except (PasswordNeeded, Damaged) as error:
                self._result = error
            self._tried = files
        if isinstance(self._result, Opener):
            return self._result
        raise self._result.with_traceback(None)  # it would grow with every raise

    async def _opened(self, layout: Layout) -> Opener:
        if self._password is None:
            raise PasswordNeeded("it is encrypted and no password for it is configured")
        keys, unreadable = await self._key_files(layout.keys[:KEYS_MAX])
        opener = Opener(await unlock(keys, unreadable, self._password, self._scrypts))
        sealed = bytes(await read_whole(self._objects, layout.config, KEY_FILE_MAX))
        try:
            config = parse(opener.open(sealed), Config)
        except Unsound as error:
            raise Damaged(layout.config.key, None, str(error)) from None
        if config.version not in VERSIONS:
            reason = f"a repository of version {config.version}, 1 and 2 are known"
            raise Damaged(layout.config.key, None, reason)
        return opener

    async def _key_files(
        self, infos: Sequence[ObjectInfo]
    ) -> tuple[list[tuple[str, bytes]], list[str]]:
        found: list[tuple[str, bytes]] = []
        unreadable: list[str] = []
        for info in infos:
            try:
                data = bytes(await read_whole(self._objects, info, KEY_FILE_MAX))
                check_id(info, data)
            except (Damaged, NotFound) as error:
                unreadable.append(str(error))
            else:
                found.append((info.key, data))
        return found, unreadable
