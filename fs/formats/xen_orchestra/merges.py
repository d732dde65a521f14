"""Merges that go on, or were interrupted: what their state files say of a directory of disks.

Xen Orchestra merges the older images of a chain into the oldest, P, so that the youngest of them,
A, stands alone. First every block is moved into P (the tables of the others still claim it), then
the others are deleted, then P takes the name of A. In either state all bytes are there.
"""

import logging
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from backgate.fs.formats.xen_orchestra.documents import MergeState, parse
from backgate.fs.formats.xen_orchestra.remote import Remote
from backgate.gateway.errors import Damaged, NotFound
from backgate.gateway.units import MIB

STATE_MAX = MIB  # bytes of a state file
STATES_MAX = 64  # state files of one directory
_PREFIX, _SUFFIX = ".", ".merge.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Merge:
    """One merge: the names of the images, the oldest first; of old releases only that one."""

    oldest: str
    names: tuple[str, ...]
    is_cleaning_up: bool

    def is_into(self, name: str) -> bool:
        """True when the image `name` is what all is merged for."""
        return self.is_cleaning_up and (not self.names or self.names[-1] == name)

    def is_end_of(self, name: str) -> bool:
        """True when the image `name` is given up in it: younger blocks come into what it has."""
        return name in self.names[:-1] or (not self.names and self.oldest == name)


def state_key(image: str) -> str:
    """Return where the state of a merge into `image` (a key) lies."""
    directory, _, name = image.rpartition("/")
    return f"{directory}/{_PREFIX}{name}{_SUFFIX}"


class Merges:
    """The merges of one directory of disks, as far as they are known."""

    def __init__(self, remote: Remote, directory: str, states: Iterable[str]) -> None:
        self._remote, self._directory = remote, directory
        self._found: dict[str, Merge] = {}  # by state file
        self._to_read = list(dict.fromkeys(states))[:STATES_MAX]
        self._is_listed = False

    async def known(self) -> Sequence[Merge]:
        """Return the merges whose state files were read by now; `StoreError`."""
        while self._to_read:
            await self._read(self._to_read[-1])
            self._to_read.pop()
        return list(self._found.values())

    async def look_at(self, image: str) -> None:
        """Learn whether something is merged into `image` (a key); nothing is listed for it."""
        await self._read(state_key(image))

    async def list_all(self) -> bool:
        """Learn of all merges by listing the state files; False when that was done before."""
        if self._is_listed:
            return False
        self._is_listed = True
        keys = await self._remote.below(f"{self._directory}/{_PREFIX}")
        self._to_read += [key for key in keys if _is_state(key) and key not in self._found]
        self._to_read = self._to_read[:STATES_MAX]
        return bool(self._to_read)

    async def _read(self, key: str) -> None:
        if key in self._found:
            return
        try:
            # Whoever had to list has met with a change, of which listings may know nothing.
            asked = self._remote.renewed if self._is_listed else self._remote.info
            info = await asked(key)
            state = parse(key, await self._remote.read(info, STATE_MAX), MergeState)
        except NotFound:
            return
        except Damaged as error:  # where it matters, an image or a block will turn out missing
            log.warning("the state of a merge cannot be read: %s", error)
            return
        names = tuple(posixpath.basename(name) for name in state.chain or ())
        oldest = names[0] if names else _oldest(key)
        self._found[key] = Merge(oldest, names, state.is_cleaning_up)
        log.info("%s: a merge goes on, or was interrupted; reading takes account of it", key)


def _is_state(key: str) -> bool:
    return key.endswith(_SUFFIX)


def _oldest(key: str) -> str:
    return posixpath.basename(key).removeprefix(_PREFIX).removesuffix(_SUFFIX)


StatesByDirectory = Mapping[str, Sequence[str]]  # keys of state files
