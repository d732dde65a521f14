"""Merge the images of a disk step by step, as Xen Orchestra does."""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from support.xen_orchestra import Image, Writer, footer, header, table, vhd_file


def merge(
    writer: Writer, disk: str, times: Sequence[str], *, is_old: bool = False
) -> Iterator[str]:
    """Merge the images of `times`, the oldest first; gives what was just done, after each step.

    With `is_old` the state file is that of releases that did not yet name the chain.
    """
    images = [writer.images[disk, time] for time in times]
    steps = _merge_directories if writer.directories else _merge_files
    yield from steps(writer, images, _State(writer, images, is_old=is_old))


class _State:
    """The state file of one merge."""

    def __init__(self, writer: Writer, images: Sequence[Image], *, is_old: bool) -> None:
        self._writer, self._is_old = writer, is_old
        self._names = [Path(image.path).name for image in images]
        self._path = f"{writer.top}/{Path(images[0].path).parent}/.{self._names[0]}.merge.json"

    def write(self, *, is_cleaning_up: bool, block: int = 0) -> None:
        step = "mergeBlocks"
        if is_cleaning_up:
            step = "cleanupVhds" if self._is_old else "cleanup"
        document: dict[str, object] = {"currentBlock": block, "mergedDataSize": 0, "step": step}
        if self._is_old:
            document |= {"child": {"header": 1}, "parent": {"header": 2}}
        else:
            document |= {"child": {"uuid": "c"}, "parent": {"uuid": "p"}, "chain": self._names}
        self._writer.put(self._path, json.dumps(document).encode())

    def remove(self) -> None:
        (self._writer.store / self._path).unlink()


def _merge_directories(writer: Writer, images: Sequence[Image], state: _State) -> Iterator[str]:
    oldest, youngest = images[0], images[-1]
    top = writer.store / writer.top
    state.write(is_cleaning_up=False)
    yield "begun"
    merged = dict(oldest.blocks)
    for number in sorted({number for image in images[1:] for number in image.blocks}):
        child = next(image for image in reversed(images) if number in image.blocks)
        merged[number] = child.blocks[number]
        target = writer.store / writer.block_path(oldest, number)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(writer.store / writer.block_path(child, number), target)
        yield f"block {number} moved"
    entries = -(-len(youngest.content) // (2 << 20))
    where = f"{writer.top}/{oldest.data}"
    writer.chunk(f"{where}/bat", table(merged, entries))
    yield "table written"
    writer.chunk(f"{where}/footer", footer(len(youngest.content), youngest.identity, kind=3))
    yield "footer written"
    state.write(is_cleaning_up=True)
    yield "cleanup begun"
    for image in images[1:]:
        (top / image.path).unlink()
        yield f"the alias {image.path} deleted"
        shutil.rmtree(top / image.data)
        yield f"the data {image.data} deleted"
    name = oldest.data.removeprefix(oldest.path.rpartition("/")[0] + "/")
    writer.put(f"{writer.top}/{youngest.path}", name.encode())
    yield "alias rewritten"
    (top / oldest.path).unlink()
    yield "the alias of the oldest deleted"
    state.remove()
    yield "ended"


def _merge_files(writer: Writer, images: Sequence[Image], state: _State) -> Iterator[str]:
    oldest, youngest = images[0], images[-1]
    top = writer.store / writer.top
    entries = -(-len(youngest.content) // (2 << 20))
    merged = dict(oldest.blocks)
    tail = footer(len(oldest.content), oldest.identity, kind=3)
    state.write(is_cleaning_up=False)
    yield "begun"
    for number in sorted({number for image in images[1:] for number in image.blocks}):
        child = next(image for image in reversed(images) if number in image.blocks)
        merged[number] = child.blocks[number]
        # The tail is overwritten by blocks, and only written anew when all are there.
        whole = vhd_file(tail, header(entries), merged)
        (top / oldest.path).write_bytes(whole[:-512])
        yield f"block {number} copied"
    tail = footer(len(youngest.content), youngest.identity, kind=3)
    (top / oldest.path).write_bytes(vhd_file(tail, header(entries), merged))
    yield "footer written"
    state.write(is_cleaning_up=True)
    yield "cleanup begun"
    for image in images[1:]:
        (top / image.path).unlink()
        yield f"{image.path} deleted"
    (top / oldest.path).rename(top / youngest.path)
    yield "renamed"
    state.remove()
    yield "ended"
