"""A line that damages every other body for a while, and what must come of it."""

from servers.faultproxy import FaultProxy, Rule

from backgate.gateway.provider import Provider
from backgate.gateway.store import ObjectStore

DATA = bytes(range(256)) * 4096  # a mebibyte
FLIPPED = 300_000  # the byte that arrives wrong


async def right_bytes_arrive(provider: Provider, proxy: FaultProxy, match: str) -> None:
    """Store objects and a part by requests that `match`, three of them damaged; read them back."""
    store = ObjectStore(provider)
    upload = await store.begin_upload("parts")
    proxy.rules.append(Rule(match=match, every=2, times=3, upload_flips_at=FLIPPED))

    for key in ("b", "c"):
        await store.put(key, DATA)
        await store.put(f"lock-{key}", DATA, if_absent=True)
    part = await store.put_part("parts", upload, 1, DATA)
    await store.commit_upload("parts", upload, [(1, part)])

    for key in ("b", "c", "lock-b", "lock-c", "parts"):
        assert await store.get(key, 0, len(DATA)) == DATA
    assert store.counters.retries == 3
