"""When what the index knows completely must be asked for again."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from backgate.gateway.units import SECOND_NS

SHARE = 20  # a pass over everything, begun by age alone, takes at most 1/20 of the time

Writers = Literal["exclusive", "shared"]


@dataclass(frozen=True, slots=True)
class Freshness:
    """How old an answer may be.

    With an exclusive writer nothing gets old; with shared ones it does after `max_age` seconds. A
    time in the future (the clock was set back) counts as old.
    """

    writers: Writers
    max_age: float  # seconds
    now_ns: Callable[[], int]  # nanoseconds since 1970

    @property
    def is_exclusive(self) -> bool:
        return self.writers == "exclusive"

    @property
    def is_strict(self) -> bool:
        """True when nothing old may be answered: each question waits for the store's own word."""
        return not self.is_exclusive and self.max_age <= 0

    def age(self, confirmed_ns: int) -> float:
        """Return the seconds since `confirmed_ns`."""
        return (self.now_ns() - confirmed_ns) / SECOND_NS

    def is_fresh(self, confirmed_ns: int) -> bool:
        """True when what was confirmed then needs no refresh."""
        return self.is_exclusive or 0 <= self.age(confirmed_ns) < self.max_age

    def is_fresh_pass(self, confirmed_ns: int | None, took_ns: int | None) -> bool:
        """True when no pass over everything, as the one that took `took_ns`, should begin again.

        One that was never made (None) does not get old.
        """
        if self.is_exclusive or confirmed_ns is None:
            return True
        pause = SHARE * (took_ns or 0) / SECOND_NS
        return 0 <= self.age(confirmed_ns) < max(self.max_age, pause)
