"""Who takes part where restic works: restic itself, and mounts with what restic is told there."""

from dataclasses import dataclass

from benchmarks.bench import Bench
from benchmarks.contenders import Contender
from benchmarks.peers import Backgate

NATIVE = "restic's own S3 backend"
WIDE = ("-o", "local.connections=5")  # as many as restic's S3 backend has; else it is two


@dataclass(frozen=True, slots=True)
class Entrant:
    """Who shows the bucket, None for restic itself, and how restic is told to work there."""

    contender: Contender | None
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        name = NATIVE if self.contender is None else self.contender.name
        return f"{name}, restic {' '.join(self.options)}" if self.options else name


def as_advised(bench: Bench, folder: str, *, writeback: bool = False) -> Entrant:
    """Return Backgate as `docs/backing-up.md` advises for restic."""
    settings = {"writeback": True} if writeback else {}
    mount = Backgate(bench.home / folder, bench.server, {}, view="repository", **settings)
    return Entrant(mount, WIDE)
