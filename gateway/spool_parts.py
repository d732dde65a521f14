"""What a spool is made of; `recovery.open_spool` makes it."""

from dataclasses import dataclass
from pathlib import Path

import trio

from backgate.gateway.aside import Asides
from backgate.gateway.claims import Claims
from backgate.gateway.deletions import Deletions
from backgate.gateway.journal import Journal
from backgate.gateway.leaving import Leaving
from backgate.gateway.metadata.cache import Metadata
from backgate.gateway.moves import Moves
from backgate.gateway.renames import Renames
from backgate.gateway.room import Room
from backgate.gateway.shelf import Shelf
from backgate.gateway.spooled import Sources
from backgate.gateway.staged import StagedNames
from backgate.gateway.store import ObjectStore
from backgate.gateway.taking import Taking
from backgate.gateway.turns import Turns
from backgate.gateway.upload import Uploader
from backgate.gateway.uploads import Uploads


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of one spool."""

    directory: Path
    gateway: str  # names this spool among all that write to one store
    store: ObjectStore
    metadata: Metadata
    sources: Sources
    staged: StagedNames
    journal: Journal
    nursery: trio.Nursery
    claims: Claims
    deletions: Deletions
    asides: Asides
    taking: Taking
    moves: Moves
    turns: Turns
    renames: Renames
    room: Room
    shelf: Shelf
    uploads: Uploads
    uploader: Uploader
    leaving: Leaving
