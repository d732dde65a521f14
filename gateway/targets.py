"""What a TARGET on a command line means: a repository, and a path in its tree.

A target is a repository's name from the configuration, a URL, or a directory's path; behind a colon
it may name one place in the tree. Object keys and paths may hold colons themselves, so for those
the cut is where `:repository` or `:backups` follows, the only two names at the top of the tree.
"""

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backgate.gateway.config import (
    COMMAND_LINE,
    NAME,
    NOT_WRITTEN,
    SCHEME,
    Configuration,
    RepositoryConfig,
    repository_config,
)
from backgate.gateway.errors import UsageError
from backgate.gateway.places import name_from_url

_TREE_PATH = re.compile(r":/*(?=(?:repository|backups)(?:/|$))|:/*$")
_LOOKS_LIKE_PATH = ("/", "./", "../", "~")


@dataclass(frozen=True, slots=True)
class Target:
    """A repository, by name or URL, and a path in the tree that is shown for it."""

    repository: str  # a name, or a URL
    path: str = ""  # "backups/restic/web"; "" is the root

    @property
    def is_url(self) -> bool:
        return SCHEME.match(self.repository) is not None

    def __str__(self) -> str:
        return f"{self.repository}:{self.path}" if self.path else self.repository


def parse_target(text: str) -> Target:
    """Return what `text` names; a local path becomes a `file://` URL with an absolute path.

    Raises `UsageError` when it is empty, or its path climbs with `..`.
    """
    if SCHEME.match(text) or text in (".", "..") or text.startswith(_LOOKS_LIKE_PATH):
        repository, path = _cut_where_the_tree_begins(text)
        repository = repository if SCHEME.match(repository) else _file_url(repository)
    else:
        repository, _, path = text.partition(":")
        if not NAME.fullmatch(repository):
            raise UsageError(
                f"{text!r}: neither a repository's name nor a URL "
                f"(for a directory write ./{text} or its whole path)"
            )
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UsageError(f"{text!r}: a path in the tree cannot contain '..'")
    return Target(repository, "/".join(parts))


def resolve(
    target: Target, configuration: Configuration, options: Mapping[str, Any]
) -> RepositoryConfig:
    """Return the configuration of `target`'s repository, changed by `options` (keys of its table).

    Raises `UsageError` for a name that is not configured and `ConfigError` for a wrong option.
    """
    if target.is_url:
        name = name_from_url(target.repository)
        table = {"url": target.repository, **options}
        return configuration.with_profile(repository_config(name, table, COMMAND_LINE))
    found = configuration.repositories.get(target.repository)
    if found is None:
        raise UsageError(_unknown(target.repository, configuration))
    if not options:
        return found
    written = {
        key: getattr(found, key) for key in found.__struct_fields__ if key not in NOT_WRITTEN
    }
    changed = repository_config(found.name, _merged(written, options), found.origin)
    return configuration.with_profile(changed)


def _cut_where_the_tree_begins(text: str) -> tuple[str, str]:
    start = text.find("://") + len("://") if SCHEME.match(text) else 0
    cut = _TREE_PATH.search(text, start)
    return (text, "") if cut is None else (text[: cut.start()], text[cut.end() :])


def _file_url(path: str) -> str:
    return f"file://{os.path.abspath(os.path.expanduser(path))}"


def _merged(written: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    secrets = {**written["secrets"], **options.get("secrets", {})}
    merged = {**written, **options, "secrets": secrets}
    return {key: value for key, value in merged.items() if value is not None}


def _unknown(name: str, configuration: Configuration) -> str:
    where = configuration.path or "no configuration file was found"
    near = difflib.get_close_matches(name, configuration.repositories, 1)
    if near:
        hint = f"did you mean {near[0]!r}?"
    elif configuration.repositories:
        hint = f"known are {', '.join(sorted(configuration.repositories))}"
    else:
        hint = f"for a directory write ./{name}, for a bucket s3://{name}"
    return f"no repository {name!r}: {where} — {hint}"
