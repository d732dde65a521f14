"""What is shown of a repository that cannot be opened: a note that says what to do."""

from backgate.fs.format import Backup
from backgate.fs.formats.restic.layout import Layout

NOTE = "PASSWORD-NEEDED.txt"
TEXT = """\
The restic repository in {place} cannot be shown: {reason}.

Put its password into a file that nobody else can read, and name that file in Backgate's
configuration, in the [repository.NAME] table of this store:

    secrets = {{ restic = "file:/etc/backgate/restic-password" }}

(or "systemd:restic-password" for a systemd credential), then mount again. An empty file stands
for the empty password. One password is tried with all keys of all restic repositories in the store.

{waiting} in it. Nothing else is affected: all other backups are shown as usual.
"""


def locked(layout: Layout, reason: str) -> Backup:
    """Return the repository as one backup that is not shown, with the note in its place."""
    place = f"the directory {layout.where!r}" if layout.where else "the top directory"
    count = len(layout.snapshots)
    waiting = "1 snapshot waits" if count == 1 else f"{count} snapshots wait"
    text = TEXT.format(place=place, reason=reason, waiting=waiting)
    return Backup(
        path=layout.path,
        key=layout.config.key,
        time_ns=layout.config.mtime_ns,
        is_complete=False,
        reason=f"{reason} (secrets = {{ restic = ... }} in the configuration)",
        files={NOTE: text.encode()},
    )


def unreadable(layout: Layout, reason: str) -> Backup:
    """Return a repository whose config does not hold as one backup that is not shown."""
    return Backup(
        path=layout.path,
        key=layout.config.key,
        time_ns=layout.config.mtime_ns,
        is_complete=False,
        reason=reason,
    )
