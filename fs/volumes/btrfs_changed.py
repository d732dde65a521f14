"""btrfs's trees with items changed in memory, for a reader who need not know of it."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator

from fs_explorer.filesystems.btrfs.btree import BTrees, Key

Item = tuple[Key, bytes]


class Changed:
    """What has become of the items of one object and kind, by the third part of their keys."""

    def __init__(self) -> None:
        self.offsets: list[int] = []  # in order
        self.items: dict[int, bytes | None] = {}  # None: it is there no more

    def set(self, offset: int, item: bytes | None) -> None:
        if offset not in self.items:
            insort(self.offsets, offset)
        self.items[offset] = item

    def over(self, stored: Iterator[Item], first: Key) -> Iterator[Item]:
        """Give what is there from `first` on, where `stored` is what was there."""
        owner, kind, start = first
        at, offsets = bisect_left(self.offsets, start), self.offsets
        for key, data in stored:
            while at < len(offsets) and offsets[at] < key[2]:
                yield from self._there(owner, kind, offsets[at])
                at += 1
            if key[2] not in self.items:
                yield key, data
        while at < len(offsets):
            yield from self._there(owner, kind, offsets[at])
            at += 1

    def last(self, before: int) -> int:
        """Return the greatest offset up to `before` at which there is an item; -1: there is none"""
        at = bisect_right(self.offsets, before) - 1
        while at >= 0 and self.items[self.offsets[at]] is None:
            at -= 1
        return self.offsets[at] if at >= 0 else -1

    def _there(self, owner: int, kind: int, offset: int) -> Iterator[Item]:
        item = self.items[offset]
        if item is not None:
            yield (owner, kind, offset), item


_NOTHING = Changed()


class ChangedTrees(BTrees):
    """The library's reader of trees, with changes; a tree is named by the address of its root.

    Changed items are found by `get`, `get_many` and `iter_range`, not by `iter_from`.
    """

    def __init__(self, trees: BTrees) -> None:
        lra, size, fsid = trees.lra, trees.nodesize, trees.fsid
        super().__init__(lra, size, fsid, trees.cache, trees.csum_type, trees.verify)
        self._changed: dict[tuple[int, int, int], Changed] = {}  # by root, object and kind

    def change(self, root: int, key: Key, item: bytes | None) -> None:
        """Have `item` at `key`; with None, nothing."""
        owner, kind, offset = key
        self._changed.setdefault((root, owner, kind), Changed()).set(offset, item)

    def get(self, root: int, key: Key) -> bytes | None:
        changed = self._of(root, key)
        return changed.items[key[2]] if key[2] in changed.items else super().get(root, key)

    def get_many(self, root: int, keys: list[Key]) -> dict[Key, bytes]:
        stored = [key for key in keys if key[2] not in self._of(root, key).items]
        found = super().get_many(root, stored)
        for key in keys:
            item = self._of(root, key).items.get(key[2])
            if item is not None:
                found[key] = item
        return found

    def iter_range(self, root: int, objectid: int, type_: int, start: int = 0) -> Iterator[Item]:
        key = (objectid, type_, start)
        stored = super().iter_range(root, objectid, type_, start)
        return self._of(root, key).over(stored, key)

    def last(self, root: int, key: Key) -> Item | None:
        """Return the last item of this object and kind that is not behind `key`."""
        changed = self._of(root, key)
        own = changed.last(key[2])
        stored = self._last_stored(root, key)
        while stored is not None and own < stored[0][2] and stored[0][2] in changed.items:
            stored = self._last_stored(root, (*key[:2], stored[0][2] - 1))
        if stored is not None and own < stored[0][2]:
            return stored
        item = changed.items.get(own)
        return None if item is None else ((*key[:2], own), item)

    def _last_stored(self, root: int, key: Key) -> Item | None:
        if key[2] < 0:
            return None
        node = self.node(root)
        at = bisect_right(node.keys, key) - 1
        while node.level and at >= 0:
            node = self._child(node, at)
            at = bisect_right(node.keys, key) - 1
        if at < 0 or node.keys[at][:2] != key[:2]:
            return None
        return node.keys[at], node.item(at)

    def _of(self, root: int, key: Key) -> Changed:
        return self._changed.get((root, *key[:2]), _NOTHING)
