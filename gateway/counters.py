"""What a store was asked, and how it answered; for `backgate status` and for the log."""

import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from backgate.gateway.errors import StoreError

log = logging.getLogger(__name__)

NOTABLE = 5.0  # seconds of waiting that an administrator should hear of; less is daily life


@dataclass(slots=True)
class Counters:
    """Counts since the store was opened; only ever changed on trio's thread."""

    store: str = ""  # what messages call it
    requests: Counter[str] = field(default_factory=Counter)  # per verb, retries included
    bytes_in: int = 0  # bytes of objects, from the store
    bytes_out: int = 0  # bytes of objects, to the store
    retries: int = 0
    errors: int = 0  # attempts that failed with a fault of the store
    last_error: str = ""
    last_error_time: float | None = None  # seconds since 1970
    expired: str = ""  # where new credentials are waited for; empty: those there are do
    waiting: int = 0  # calls that wait out a fault at this moment
    _waiting_since: float = 0.0  # monotonic seconds
    _is_reported: bool = False  # the log knows that somebody waits

    def failed(self, error: StoreError) -> None:
        """Count an attempt that failed; the log hears of it once calls have waited for long."""
        self.errors += 1
        self.last_error = str(error)
        self.last_error_time = time.time()
        if self.waiting and not self._is_reported:
            waited = time.monotonic() - self._waiting_since
            if waited > NOTABLE:
                self._is_reported = True
                log.warning("%s: trying again for %.0f s now: %s", self.store, waited, error)

    @contextmanager
    def waiting_out(self) -> Iterator[None]:
        """Count a call as waiting for as long as the context is open."""
        if self.waiting == 0:
            self._waiting_since = time.monotonic()
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1
            if self.waiting == 0 and self._is_reported:
                self._is_reported = False
                log.info("%s: nobody is waiting any more", self.store)
