"""Objects one by one: stored, read, read in part, described, copied, deleted."""

import time
from collections.abc import Callable
from functools import partial

from backgate.gateway.errors import NotAsSent, NotFound, Replaced, StoreError
from backgate.gateway.provider import Provider
from backgate.gateway.units import KIB
from backgate.gateway.validation.bench import Bench
from backgate.gateway.validation.report import Latency, Seen

LENGTH = 64 * KIB  # bytes
TIMED = 20  # requests of each kind, one after the other
METADATA_SIZES = (2048, 1024, 512, 256)  # bytes, names and values
BATCH = 50  # keys

_TEXTS = {"mode": "33188", "empty": "", "letters": "é 日本", "blanks": " a  b ", "sign": "a=b; c"}
_KINDS = {"crc32c": "CRC-32C", "sha256": "SHA-256", "md5": "MD5"}
_DATA = bytes(range(256)) * (LENGTH // 256)


async def put_and_get(bench: Bench) -> Seen:
    """Is what was stored what is read?"""
    bodies = {"empty": b"", "one": b"x", "many": _DATA}
    for name, body in bodies.items():
        key = bench.area.key(f"deeds/{name}")
        stored = await bench.put(key, body)
        found = await bench.head(key)
        read = await bench.get(key, 0, len(body) + 1)
        if read != body or found.size != len(body) or stored.etag != found.etag:
            return Seen("put and get", "damaged", f"{name}: {len(read)} of {len(body)} bytes")
    absent = bench.area.key("deeds/absent")
    try:
        await bench.head(absent)
    except NotFound:
        return Seen("put and get", "works")
    return Seen("put and get", "damaged", "an object was found that nobody had stored")


async def checksums(bench: Bench) -> Seen:
    """Is a body refused that is not what its checksum says?"""
    subject, kinds = "checksums", bench.provider.checksums
    key = bench.area.key("deeds/damaged")
    found: dict[str, str] = {}  # kind -> what the store does about a wrong one
    for kind in kinds:
        try:
            notices = partial(_notices, bench.provider, key, kind)
            found[kind] = "refused" if await bench.asker.surely("put", notices) else "taken"
        except StoreError as error:
            found[kind] = f"not known: {error}"
    told = "; ".join(f"a wrong {_KINDS.get(kind, kind)}: {what}" for kind, what in found.items())
    if not kinds:
        return Seen(subject, "not needed", "bodies are not sent over a line")
    if found[kinds[0]] == "refused":
        return Seen(subject, "checked", told)
    better = [kind for kind in ("sha256", "md5") if found.get(kind) == "refused"]
    if better:
        return Seen(subject, "others checked", told, {"upload_checksum": better[0]})
    return Seen(subject, "ignored", told)


def _notices(provider: Provider, key: str, kind: str) -> bool:
    try:
        provider.put_damaged(key, kind)
    except NotAsSent:
        return True
    return False


async def latencies(bench: Bench) -> Seen:
    """How long does one small request take?"""
    key = bench.area.key("deeds/timed")
    calls: dict[str, Callable[[], object]] = {
        "put": partial(bench.provider.put, key, _DATA[: 4 * KIB]),
        "head": partial(bench.provider.head, key),
        "get": partial(bench.provider.get, key, 0, 4 * KIB),
        "page": partial(bench.provider.page, bench.area.prefix + "deeds/", limit=10),
    }
    for verb, call in calls.items():
        await bench.asker.surely(verb, call)  # the connection is there
        answers = [await bench.asker.once(verb, call) for _ in range(TIMED)]
        times = sorted(one.seconds for one in answers if one.error is None)
        bench.latencies.append(Latency(verb, times))
    typical = [
        f"{one.verb} {one.times[len(one.times) // 2] * 1000:.0f} ms"
        for one in bench.latencies
        if one.times
    ]
    return Seen("latency", "measured", ", ".join(typical))


async def ranges(bench: Bench) -> Seen:
    """Is a part of an object read without the rest?"""
    key = bench.area.key("deeds/ranges")
    await bench.put(key, _DATA)
    for start, stop in ((0, 10), (1000, 5000), (LENGTH - 5, LENGTH), (LENGTH - 5, LENGTH + 100)):
        if await bench.get(key, start, stop) != _DATA[start:stop]:
            return Seen("ranges", "wrong", f"bytes {start} to {stop} are others")
    if await bench.get(key, LENGTH + 10, LENGTH + 20):
        return Seen("ranges", "wrong", "there are bytes behind the end")
    return Seen("ranges", "work")


async def versions(bench: Bench) -> Seen:
    """Is a version that was replaced refused to who asks for it by its etag?"""
    key = bench.area.key("deeds/versions")
    old = await bench.put(key, b"old")
    new = await bench.put(key, b"new")
    if old.etag == new.etag:
        return Seen("versions", "not told apart", f"both have the etag {old.etag}")
    try:
        await bench.get(key, 0, 3, old.etag)
    except Replaced:
        return Seen("versions", "told apart")
    return Seen("versions", "not told apart", "a read by the old etag got the new bytes")


async def metadata(bench: Bench) -> Seen:
    """How much can be kept beside an object, and does it read back exactly?"""
    texts = {
        "mode": "33188",
        "empty": "",
        "letters": "é 日本",
        "blanks": " a  b ",
        "sign": "a=b; c",
    }
    key = bench.area.key("deeds/metadata")
    await bench.put(key, b"", texts)
    found = (await bench.head(key)).metadata or {}
    changed = sorted(name for name in texts if found.get(name) != texts[name])
    if changed:
        return Seen("metadata", "changed", f"not as it was: {', '.join(changed)}")
    for size in METADATA_SIZES:
        if await _keeps(bench, size):
            settings = {} if size == METADATA_SIZES[0] else {"limits.metadata_max": size}
            outcome = "little" if settings else "kept"
            return Seen("metadata", outcome, f"{size} bytes for an object", settings)
    return Seen("metadata", "changed", f"less than {METADATA_SIZES[-1]} bytes for an object")


async def _keeps(bench: Bench, size: int) -> bool:
    name, key = "long", bench.area.key("deeds/metadata")
    text = "x" * (size - len(name))
    put = partial(bench.provider.put, key, b"", {name: text})
    answer = await bench.asker.once("put", put)
    return answer.error is None and (await bench.head(key)).metadata == {name: text}


async def copies(bench: Bench) -> Seen:
    """Does the store copy by itself, with and without new metadata?"""
    source, target = bench.area.key("deeds/source"), bench.area.key("deeds/copies/target")
    await bench.put(source, _DATA, {"mode": "1"})
    for given, expected in ((None, {"mode": "1"}), ({"mode": "2"}, {"mode": "2"})):
        call = partial(bench.provider.copy, source, target, given)
        info = await bench.asker.surely("copy", call)
        if info.metadata != expected or await bench.get(target, 0, LENGTH) != _DATA:
            return Seen(
                "copies", "wrong", "bytes or metadata are others", {"copies_objects": False}
            )
    return Seen("copies", "work")


async def batch_delete(bench: Bench) -> Seen:
    """Are many objects deleted by one request?"""
    count = min(BATCH, bench.provider.abilities.limits.delete_max)
    keys = [bench.area.key(f"deeds/batch/{number}") for number in range(count)]
    puts = [partial(bench.provider.put, key, b"") for key in keys]
    await bench.asker.all_of("put", puts, 8)
    began = time.perf_counter()
    failed = await bench.asker.delete(keys)
    took = time.perf_counter() - began
    left = await bench.names(f"{bench.area.prefix}deeds/batch/")
    if failed or any(not name.endswith("/") for name in left):
        return Seen("batch delete", "incomplete", f"{len(failed) or len(left)} of {count} are left")
    learnt = dict(bench.provider.learnt())
    outcome = "one by one" if learnt.get("delete_integrity") == "single" else "works"
    return Seen("batch delete", outcome, f"{count} objects in {took:.2f} s", learnt)
