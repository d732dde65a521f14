"""What a validation saw and what it comes to, as data: for the screen, for JSON, for the page."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

Tier: TypeAlias = Literal[1, 2, 3]


@dataclass(frozen=True, slots=True)
class Seen:
    """How one thing turned out. `outcome` is one of those that `grading` knows."""

    subject: str
    outcome: str
    detail: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)  # keys of a profile that follow


@dataclass(frozen=True, slots=True)
class Latency:
    """How long one kind of request took, one after the other."""

    verb: str
    times: Sequence[float]  # seconds, ascending


@dataclass(frozen=True, slots=True)
class PageTimes:
    """How long pages of one size took, and how many never came."""

    way: Literal["flat", "delimiter"]
    limit: int  # keys that were asked for
    times: Sequence[float]  # seconds, ascending, of those that came
    keys: int  # in the fullest of them
    overdue: int  # pages that did not come within the deadline
    faults: int  # pages that were refused


@dataclass(frozen=True, slots=True)
class Throughput:
    """What so many connections moved together."""

    way: Literal["put", "get"]
    connections: int
    requests: int
    faults: int
    size: int  # bytes
    seconds: float

    @property
    def rate(self) -> float:
        """Bytes per second."""
        return self.size / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Burst:
    """What became of as many requests as could be made."""

    requests: int
    seconds: float
    faults: int
    retry_after: float | None  # seconds that an answer asked to wait; None: none did
    said: str  # the first fault in the store's words
    recovery: float | None  # seconds after which a request succeeded; None: none did

    @property
    def rate(self) -> float:
        """Requests per second that were answered."""
        return (self.requests - self.faults) / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was seen, and what it means."""

    subject: str
    outcome: str
    detail: str
    tier: Tier | None  # the best that a store can be which does so; None: it cannot be used
    remedy: str  # what Backgate does about it; empty where nothing is to be done


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All of a validation."""

    store: str
    profile: str  # its title
    version: str  # of Backgate
    started: str  # "2026-11-22T17:00:00Z"
    seconds: float
    objects: int
    deadline: float  # seconds
    tier: Tier | None  # None: Backgate cannot use this store
    findings: Sequence[Finding]
    latencies: Sequence[Latency]
    pages: Sequence[PageTimes]
    throughput: Sequence[Throughput]
    burst: Burst | None
    requests: Mapping[str, int]
    faults: int  # answers that a retry was needed for
    snippet: str  # TOML: a profile that says what was seen
    left_behind: Sequence[str]  # keys that could not be deleted

    @property
    def reasons(self) -> list[Finding]:
        """What keeps the store from a better tier, the worst first."""
        weak = [one for one in self.findings if one.tier != 1]
        return sorted(weak, key=lambda one: -(one.tier or 4))

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON shows it, with what was worked out."""
        found = asdict(self)
        for table, row in zip(found["throughput"], self.throughput, strict=True):
            table["bytes_per_second"] = row.rate
        if self.burst is not None:
            found["burst"]["requests_per_second"] = self.burst.rate
        found["reasons"] = [asdict(one) for one in self.reasons]
        return found


def share(times: Sequence[float], part: float) -> float:
    """Return the time that `part` of the ascending `times` stay within; 0 when there is none."""
    return times[min(len(times) - 1, int(part * len(times)))] if times else 0.0
