"""How much is measured, and what that costs: requests, bytes and money, before they are spent."""

from dataclasses import dataclass

from backgate.gateway.profiles import Price
from backgate.gateway.provider import Limits
from backgate.gateway.units import KIB, MIB

OBJECTS = 10_000  # fewer do not show a listing that gets slow
OBJECTS_MAX = 1_000_000  # more than a validation can clean up in a night
DEADLINE = 60.0  # seconds; what the S3 provider waits for a page
SMALL = 256  # bytes of an object that is there to be listed
_GB = 10**9  # bytes, as bills count them
_DAYS_OF_A_MONTH = 30
_DEEDS = 300  # requests of the measures whose number does not depend on the plan
_ODD_KEYS = 300  # requests for names that are hard to keep
_MULTIPART = 4  # uploads of two parts and an end


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is done; the defaults are what a person waits a few minutes for."""

    objects: int = OBJECTS
    fan_out: int = 100  # objects in each directory
    page_sizes: tuple[int, ...] = (1000, 500, 250, 100, 50, 10)  # keys
    pages: int = 5  # of each size, that are timed
    connections: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    transfer: int = 4 * MIB  # bytes of an object whose transfer is timed
    burst: float = 3.0  # seconds of as many requests as 32 connections make
    burst_max: int = 3000  # requests
    rounds: int = 10  # how often what was written is looked for at once
    settling: float = 30.0  # seconds that a change may take to show
    deadline: float = DEADLINE  # seconds; a request that takes longer counts as timed out

    def transfers(self, connections: int) -> int:
        """Return how many objects are sent over so many connections: each has one."""
        return max(2, connections)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a plan asks of a store; a little more than it will be."""

    puts: int
    gets: int
    lists: int
    deletes: int
    bytes_out: int  # to the store
    bytes_in: int  # from the store
    cost: float | None  # US dollars at most; None: not known what the store charges

    @property
    def requests(self) -> int:
        return self.puts + self.gets + self.lists + self.deletes


def estimate(plan: Plan, limits: Limits, price: Price | None, minimum_days: int = 0) -> Estimate:
    """Return what `plan` costs; each put counts as the dearer class, a listing."""
    transfers = sum(plan.transfers(count) for count in plan.connections)
    moved = transfers * plan.transfer + _MULTIPART * 2 * limits.part_min
    puts = plan.objects + transfers + _DEEDS + _ODD_KEYS
    lists = 2 * len(plan.page_sizes) * plan.pages + plan.objects // 100 + 2 * plan.rounds + _DEEDS
    gets = transfers + plan.burst_max + _DEEDS + _ODD_KEYS
    deletes = puts // limits.delete_max + transfers + _ODD_KEYS
    bytes_out = moved + plan.objects * SMALL + 16 * KIB * _DEEDS
    cost = None
    if price is not None and price.list is not None:
        kept = bytes_out / _GB * max(1, minimum_days) / _DAYS_OF_A_MONTH
        cost = (puts + lists + gets) / 1000 * price.list
        cost += kept * (price.storage or 0) + moved / _GB * (price.egress or 0)
    return Estimate(puts, gets, lists, deletes, bytes_out, moved, cost)
