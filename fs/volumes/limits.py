"""The limits of this process, raised for a while: for what is known beforehand to be costly."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def raised(*, memory: int = 0, cpu: int = 0) -> Iterator[None]:
    """Let this process use `memory` bytes and `cpu` seconds more, as far as it may, for now."""
    before, spent = _raised(resource.RLIMIT_AS, memory), time.process_time()
    seconds = _raised(resource.RLIMIT_CPU, cpu)
    try:
        yield
    finally:
        _lower(resource.RLIMIT_AS, before)
        _lower(resource.RLIMIT_CPU, seconds + int(time.process_time() - spent) + 1)


def _raised(what: int, more: int) -> int:
    """Raise a soft limit by `more` and return what it was; -1 when there is none."""
    soft, hard = resource.getrlimit(what)
    if soft == resource.RLIM_INFINITY:
        return -1
    most = soft + more if hard == resource.RLIM_INFINITY else min(soft + more, hard)
    resource.setrlimit(what, (most, hard))
    return soft


def _lower(what: int, soft: int) -> None:
    now, hard = resource.getrlimit(what)
    if now != resource.RLIM_INFINITY:
        resource.setrlimit(
            what, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard)
        )
