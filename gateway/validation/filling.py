"""As many objects as were asked for, written over all connections: what the listings then show."""

import time
from functools import partial
from itertools import islice

from backgate.gateway.validation.asking import CONNECTIONS
from backgate.gateway.validation.bench import Bench
from backgate.gateway.validation.plan import SMALL
from backgate.gateway.validation.report import Seen

AT_ONCE = 1024  # keys that are handed out together; a listing of calls must not grow with the plan


async def fill(bench: Bench) -> Seen:
    """How fast are small objects written?"""
    bench.area.fill(bench.plan.objects, bench.plan.fan_out)
    keys = bench.area.filled
    body = bytes(SMALL)
    began = time.monotonic()
    while batch := list(islice(keys, AT_ONCE)):
        puts = [partial(bench.provider.put, key, body) for key in batch]
        await bench.asker.all_of("put", puts, CONNECTIONS)
    took = max(time.monotonic() - began, 1e-9)
    rate = bench.plan.objects / took
    return Seen("small objects", "measured", f"{rate:.0f} put/s over {CONNECTIONS} connections")
