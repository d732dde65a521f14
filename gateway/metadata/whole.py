"""Whether everything below a prefix is known: told by flat pages, or directory by directory."""

from backgate.gateway.metadata import coverage, spans
from backgate.gateway.metadata.children import subdirectories
from backgate.gateway.metadata.database import Database

MOST = 2000  # directories looked at, some 50 microseconds each; with more it is listed flat


def below_confirmed(db: Database, prefix: bytes) -> int | None:
    """Return when all keys below `prefix` were confirmed; None when some never were."""
    oldest = coverage.span_confirmed(db, prefix, spans.end_of(prefix))
    if oldest is not None or not (prefix == b"" or prefix.endswith(b"/")):
        return oldest
    left, seen = [prefix], 1
    while left:
        directory = left.pop()
        confirmed = coverage.level_confirmed(db, directory)
        inner = None if confirmed is None else subdirectories(db, directory, MOST - seen)
        if confirmed is None or inner is None:
            return None
        oldest = confirmed if oldest is None else min(oldest, confirmed)
        left += inner
        seen += len(inner)
    return oldest
