"""Uploads in parts: out of order, copied, given up, told of."""

from functools import partial

from backgate.gateway.errors import AlreadyThere, NotFound, StoreError, Unsupported
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.units import KIB
from backgate.gateway.validation.bench import Bench
from backgate.gateway.validation.report import Seen

LEAST = KIB  # bytes; where a store takes parts of any size

_END = b"the end"


async def multipart(bench: Bench) -> Seen:
    """Do parts, sent in any order, become one object?"""
    key, size = bench.area.key("uploads/whole"), _part(bench)
    upload = await _begin(bench, key)
    blocks = {1: b"\1" * size, 2: b"\2" * size, 3: _END}
    etags = {
        number: await _send(bench, key, upload, number, blocks[number]) for number in (3, 1, 2)
    }
    info = await _commit(bench, key, upload, [(number, etags[number]) for number in (1, 2, 3)])
    borders = await bench.get(key, size - 2, size + 2) + await bench.get(key, 2 * size, info.size)
    if info.size != 2 * size + len(_END) or borders != b"\1\1\2\2" + _END:
        return Seen("multipart", "damaged", f"{info.size} bytes instead of {2 * size + len(_END)}")
    return Seen("multipart", "works")


async def copied_parts(bench: Bench) -> Seen:
    """Can a part be made of another object, on the store's side?"""
    key, source = bench.area.key("uploads/copied"), bench.area.key("uploads/whole")
    upload = await _begin(bench, key)
    size = _part(bench)
    call = partial(bench.provider.copy_part, key, upload, 1, source, 1, size + 1)
    try:
        etag = await bench.asker.surely("copy_part", call)
    except StoreError as error:
        return Seen("copied parts", "missing", str(error), {"copies_parts": False})
    await _commit(bench, key, upload, [(1, etag)])
    if await bench.get(key, size - 2, size) != b"\1\2":
        return Seen("copied parts", "missing", "the bytes are others", {"copies_parts": False})
    return Seen("copied parts", "work")


async def given_up(bench: Bench) -> Seen:
    """Are uploads that nobody finished told of, and gone when they are aborted?"""
    key = bench.area.key("uploads/given-up")
    upload = await _begin(bench, key)
    etag = await _send(bench, key, upload, 1, _END)
    pending = await bench.asker.surely("uploads", partial(bench.provider.uploads, key))
    await bench.asker.surely("abort_upload", partial(bench.provider.abort_upload, key, upload))
    try:
        await _commit(bench, key, upload, [(1, etag)])
    except NotFound:
        is_told = [one.upload for one in pending] == [upload]
        return Seen("pending uploads", "told" if is_told else "not told")
    return Seen("pending uploads", "kept", "one that was aborted could be completed")


async def conditional_commit(bench: Bench) -> Seen:
    """Does an upload that must not replace anything do so?"""
    subject, key = "conditional commit", bench.area.key("uploads/conditional")
    await bench.put(key, b"old")
    upload = await _begin(bench, key)
    etag = await _send(bench, key, upload, 1, b"new")
    commit = partial(bench.provider.commit_upload, key, upload, [(1, etag)], if_absent=True)
    try:
        await bench.asker.surely("commit_upload", commit)
    except AlreadyThere:
        return Seen(subject, "enforced")
    except Unsupported as error:
        return Seen(subject, "rejected", str(error), {"conditional_put": "rejected"})
    return Seen(subject, "ignored", "the object was replaced", {"conditional_put": "ignored"})


def _part(bench: Bench) -> int:
    return max(LEAST, bench.provider.abilities.limits.part_min)


async def _begin(bench: Bench, key: str) -> str:
    call = partial(bench.provider.begin_upload, key)
    return bench.area.began(key, await bench.asker.surely("begin_upload", call))


async def _send(bench: Bench, key: str, upload: str, number: int, body: bytes) -> str:
    call = partial(bench.provider.put_part, key, upload, number, body)
    return await bench.asker.surely("put_part", call)


async def _commit(bench: Bench, key: str, upload: str, parts: list[tuple[int, str]]) -> ObjectInfo:
    call = partial(bench.provider.commit_upload, key, upload, parts)
    return await bench.asker.surely("commit_upload", call)
