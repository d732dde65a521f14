"""What is shown of a repository that cannot be opened: a note that says what to do."""

from backgate.fs.format import Backup
from backgate.fs.parts import safe_part
from backgate.gateway.provider import ObjectInfo

NOTE = "KEY-NEEDED.txt"
TEXT = """\
The Xen Orchestra repository in {place} cannot be shown: {reason}.

Put its encryption key, the 32 characters that were entered in Xen Orchestra, into a file that
nobody else can read, and name that file in Backgate's configuration, in the [repository.NAME] table
of this store:

    secrets = {{ xen-orchestra = "file:/etc/backgate/xo.key" }}

(or "systemd:xo-key" for a systemd credential), then mount again. The key is also in the remote's
URL in Xen Orchestra, and so in every backup of its configuration.

{waiting} in it. Nothing else is affected: all other backups are shown as usual.
"""


def locked(where: str, reason: str, waiting: list[ObjectInfo]) -> Backup:
    """Return the repository as one backup that is not shown, with the note in its place."""
    place = f"the directory {where!r}" if where else "the top directory"
    count = "1 backup waits" if len(waiting) == 1 else f"{len(waiting)} backups wait"
    text = TEXT.format(place=place, reason=reason, waiting=count)
    first = waiting[0]
    return Backup(
        path=path_of(where),
        key=first.key,
        time_ns=first.mtime_ns,
        is_complete=False,
        reason=f"{reason} (secrets = {{ xen-orchestra = ... }} in the configuration)",
        files={NOTE: text.encode()},
    )


def path_of(where: str) -> tuple[str, ...]:
    """Return the components of a repository's prefix, as they appear below `backups/`."""
    return tuple(safe_part(part) for part in where.split("/") if part not in ("", ".", ".."))
