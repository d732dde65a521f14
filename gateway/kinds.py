"""Notice that a repository has become a mirror since its cache was filled.

A repository of the usual kind changes modes and times in its cache without looking at what else an
object keeps, which a mirror then takes for not being there.
"""

import logging
from contextlib import suppress
from pathlib import Path

from backgate.gateway.config import COMMAND_LINE, RepositoryConfig

FILE = "kind"  # in the folder of the cache, and gone with it

log = logging.getLogger(__name__)


def compare_kinds(folder: Path, config: RepositoryConfig) -> None:
    """Warn when the cache in `folder` was filled by a repository that `config` makes a mirror."""
    try:
        before = (folder / FILE).read_text()
    except (OSError, ValueError):
        before = config.kind
    if (before, config.kind) != ("repository", "mirror"):
        with suppress(OSError):  # then nobody is warned
            (folder / FILE).write_text(config.kind)
        return
    target = config.url if config.origin == COMMAND_LINE else config.name
    log.warning(
        "%s: it has become a mirror, and its cache does not know all that objects keep:"
        " run `backgate cache rebuild %s`",
        config.name,
        target,
    )


def forget_kind(folder: Path) -> None:
    """Note that the cache in `folder` knows nothing yet, under any kind."""
    (folder / FILE).unlink(missing_ok=True)
