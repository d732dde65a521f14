"""VHD images anywhere in a repository: a file, with the parents that lie beside it."""

from collections.abc import Sequence
from typing import Protocol

from backgate.fs.disk import Disk, Member
from backgate.fs.disks.chain import Chain
from backgate.fs.disks.keys import BadPath, beside
from backgate.fs.disks.vhd_file import FixedVhd, VhdFile, open_file
from backgate.fs.disks.vhd_format import DIFFERENCING
from backgate.gateway.errors import Damaged, NotFound
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.source import Source

CHAIN_MAX = 1000  # images of one disk


class Objects(Protocol):
    """Where images lie."""

    async def info(self, key: str) -> ObjectInfo:
        """Return the object `key`, or raise `NotFound`."""

    def source(self, info: ObjectInfo) -> Source:
        """Return the object's bytes."""


async def open_vhd(objects: Objects, key: str, source: Source) -> Disk:
    """Open the disk whose youngest image is `source`, the VHD file `key`.

    A parent is looked for where the image says, and by its name beside the image; only within the
    repository. Raises `Damaged` when one is missing or another than the image was made on,
    `NotFound`, `StoreError`.
    """

    async def resolve(_missing: str = "") -> Sequence[Member]:
        return await _members(objects, key, source)

    members = await resolve()
    allocated = min(members[0].size, sum(member.allocated for member in members))
    notes = {"image": "vhd", "chain": str(len(members))}
    return Chain(members, resolve, allocated, notes)


async def _members(objects: Objects, key: str, source: Source) -> list[VhdFile | FixedVhd]:
    member = await open_file(key, source, may_be_fixed=True)
    members, seen = [member], {key}
    while isinstance(member, VhdFile) and member.footer.kind == DIFFERENCING:
        key, member = await _parent(objects, key, member)
        if key in seen or len(seen) == CHAIN_MAX:
            raise Damaged(key, None, "the images of this disk form a loop, or are too many")
        seen.add(key)
        members.append(member)
    return members


async def _parent(objects: Objects, key: str, child: VhdFile) -> tuple[str, VhdFile | FixedVhd]:
    tried: dict[str, str] = {}
    for name in await child.parent_paths():
        try:
            candidate = beside(key, name)
        except BadPath:
            continue
        if candidate in tried:
            continue
        try:
            info = await objects.info(candidate)
        except NotFound:
            tried[candidate] = candidate
            continue
        parent = await open_file(candidate, objects.source(info), may_be_fixed=True)
        if parent.footer.uuid == child.header.parent_uuid:
            return candidate, parent
        tried[candidate] = f"{candidate} (another disk)"
    looked_for = ", ".join(tried.values()) or "no path within the repository"
    raise Damaged(key, None, f"its parent is not there; looked for {looked_for}")
