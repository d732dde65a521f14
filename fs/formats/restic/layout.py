"""Which objects make a restic repository, told from their keys alone.

A repository is a directory with a `config` and at least one key file. Its snapshots, and its
index files too, are landmarks, so that a known repository opens without any listing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from backgate.fs.formats.restic.documents import HEX_ID
from backgate.gateway.provider import ObjectInfo

CONFIG = "config"
# Directories by what is in them; the singular ones are those of the first S3 layout, which is flat.
_FOLDERS = {
    "keys": "keys",
    "key": "keys",
    "snapshots": "snapshots",
    "snapshot": "snapshots",
    "index": "index",
}
_FLAT_FOLDERS = ("key", "snapshot")
_HEX = frozenset("0123456789abcdef")


@dataclass(slots=True)
class Layout:
    """The objects of one repository that announce backups or are needed to open them."""

    where: str  # the repository's directory: "" or "servers/web/"
    config: ObjectInfo
    is_flat: bool = False  # packs may lie in `data/` itself
    keys: list[ObjectInfo] = field(default_factory=list)
    snapshots: dict[str, ObjectInfo] = field(default_factory=dict)  # by id
    index: dict[str, ObjectInfo] = field(default_factory=dict)  # by id

    @property
    def path(self) -> tuple[str, ...]:
        """The components of `where` as they appear below `backups/restic/`."""
        return tuple(part for part in self.where.split("/") if part not in ("", ".", ".."))

    def pack_keys(self, pack: str) -> Sequence[str]:
        """Return where the pack of that id may lie, likeliest first."""
        nested, flat = f"{self.where}data/{pack[:2]}/{pack}", f"{self.where}data/{pack}"
        return (flat, nested) if self.is_flat else (nested,)


def is_landmark(key: str) -> bool:
    """True for `config`, key, snapshot and index files; temporary names (`-tmp-1`) are none."""
    folder, _, name = key.rpartition("/")
    if name == CONFIG:
        return True
    return len(name) == HEX_ID and folder.rpartition("/")[2] in _FOLDERS and _HEX.issuperset(name)


def layouts(landmarks: Iterable[ObjectInfo]) -> Mapping[str, Layout]:
    """Return the repositories among `landmarks`, by their directories."""
    infos = list(landmarks)
    found = {
        where: Layout(where, info)
        for info in infos
        for where in [info.key.removesuffix(CONFIG)]
        if info.key.rpartition("/")[2] == CONFIG
    }
    for info in infos:
        folder, _, name = info.key.rpartition("/")
        where, slash, kind = folder.rpartition("/")
        layout = found.get(where + slash)
        if layout is None or name == CONFIG or kind not in _FOLDERS:
            continue
        layout.is_flat |= kind in _FLAT_FOLDERS
        _sort_in(layout, _FOLDERS[kind], name, info)
    return {where: layout for where, layout in found.items() if layout.keys}


def _sort_in(layout: Layout, kind: str, name: str, info: ObjectInfo) -> None:
    match kind:
        case "keys":
            layout.keys.append(info)
        case "snapshots":
            layout.snapshots[name] = info
        case _:
            layout.index[name] = info
