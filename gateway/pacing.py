"""Hold requests to the rate that a store takes, and all of a kind when it asks for time.

A store that is asked more often than it takes answers none of the callers well; one caller's
Retry-After is news for the others too.
"""

import trio

from backgate.gateway.provider import Rates

BURST = 10  # requests that may follow one another at once
LONGEST_HOLD = 60.0  # seconds; a store that wants more is asked again by each caller's own patience

_KINDS = {"get": "get", "head": "get", "check": "get", "page": "list", "uploads": "list"}


class Pacing:
    """When the next request of a kind may be made, over all tasks."""

    def __init__(self, rates: Rates) -> None:
        limits = {"get": rates.get, "put": rates.put, "list": rates.list}
        self._intervals = {kind: 1 / limit for kind, limit in limits.items() if limit}  # seconds
        self._due: dict[str, float] = {}  # when one more would be exactly on time
        self._held: dict[str, float] = {}  # until when none may be made

    async def turn(self, verb: str) -> None:
        """Return when a request may be made; who is cancelled meanwhile has used up its turn."""
        kind = _KINDS.get(verb, "put")
        if (held := self._held.get(kind, 0.0)) > trio.current_time():
            await trio.sleep_until(held)
        interval = self._intervals.get(kind)
        if interval is None:
            return
        now = trio.current_time()
        due = max(self._due.get(kind, now - BURST * interval), now - BURST * interval)
        self._due[kind] = due + interval
        if due > now:
            await trio.sleep_until(due)

    def hold(self, verb: str, seconds: float) -> None:
        """Let no request of this kind be made for so long: the store has asked for it."""
        kind = _KINDS.get(verb, "put")
        until = trio.current_time() + min(seconds, LONGEST_HOLD)
        self._held[kind] = max(self._held.get(kind, 0.0), until)
