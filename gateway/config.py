"""What an administrator may configure for a repository, typed and checked."""

from typing import Literal

import msgspec

from backgate.gateway.units import GIB


class RepositoryConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[repository.NAME]` table."""

    name: str  # the table's name, or one made from the URL
    url: str
    provider: str | None = None  # a profile's name
    region: str | None = None
    endpoint_url: str | None = None
    credentials: str = "env"
    ca_bundle: str | None = None  # a file of certificates to trust instead of the system's
    writers: Literal["exclusive", "shared"] = "exclusive"
    max_age: float = 60.0  # seconds that a listing counts as fresh with shared writers
    secrets: dict[str, str] = {}
    patience: float = 3600.0  # seconds that repository/ waits out a fault
    backups_patience: float = 60.0  # seconds that backups/ waits out a fault
    durability: Literal["store", "journal"] = "store"
    block_cache: int = 10 * GIB  # bytes on disk
    spool: int = 4 * GIB  # bytes on disk that files being written may take
    capacity: int | None = None  # bytes that statfs shows
    staged: list[str] = []  # more patterns of temporary names
    attributes: Literal["listing", "stored"] = (
        "listing"  # "stored": ask the store for mode and times
    )
