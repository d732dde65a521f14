"""Where the index of a repository is kept, as its configuration says."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from os import environ
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from backgate.gateway.config import RepositoryConfig
from backgate.gateway.credentials import metadata_password_of
from backgate.gateway.errors import ConfigError
from backgate.gateway.metadata.index import Index
from backgate.gateway.metadata.local import LocalIndex
from backgate.gateway.metadata.postgresql import Server
from backgate.gateway.metadata.shared import SharedIndex
from backgate.gateway.places import folder_name

PARAMETER = "schema"  # ours, in the URL; all others are libpq's
USUAL = "backgate"
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")  # needs no quotes anywhere


@dataclass(frozen=True, slots=True)
class Shared:
    """A database that several gateways share an index in."""

    server: Server
    store: str  # whose index it is; gateways that name a store differently share nothing


def place_of(
    config: RepositoryConfig, directory: Path, environment: Mapping[str, str] = environ
) -> Path | Shared:
    """Return where the index is: in a database, or else in `directory`. Raises `ConfigError`."""
    if config.metadata is None:
        return directory
    return Shared(server_of(config, environment), folder_name(config))


def server_of(config: RepositoryConfig, environment: Mapping[str, str] = environ) -> Server:
    """Return the database that `config` names, with what opens it. Raises `ConfigError`."""
    base, _, query = (config.metadata or "").partition("?")
    parameters = parse_qsl(query, keep_blank_values=True)
    schema = dict(parameters).get(PARAMETER, USUAL)
    if not _SCHEMA.fullmatch(schema):
        raise ConfigError(
            f"{config.origin}: metadata: schema must be of a-z, 0-9 and _, not {schema!r}"
        )
    left = urlencode([(name, value) for name, value in parameters if name != PARAMETER])
    url = f"{base}?{left}" if left else base
    return Server(url, schema, metadata_password_of(config, environment))


async def opened_index(place: Path | Shared) -> Index:
    """Return the index at `place`, open; made when there is none. Raises `StoreError`."""
    if isinstance(place, Path):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        return LocalIndex(place)
    index = SharedIndex(place.server, place.store)
    try:
        await index.open()
    except BaseException:
        await index.aclose()
        raise
    return index
