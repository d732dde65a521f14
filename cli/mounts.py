"""Find the running mount that a command means, by its mount point or by its target."""

from typing import TYPE_CHECKING

from backgate.fs.mountpoint import absolute, clear_dead, mounted_at
from backgate.fs.running import RunningMount, running
from backgate.gateway.errors import BackgateError, UsageError
from backgate.gateway.places import runtime_directories

if TYPE_CHECKING:
    from backgate.gateway.config import RepositoryConfig


def all_mounts() -> list[RunningMount]:
    """Return the mounts of this machine that we may speak to, the oldest first."""
    return running(runtime_directories())


def mount_at(directory: str) -> RunningMount | None:
    """Return the mount at `directory`; None when only a dead one was there, which is cleared away.

    Raises `UsageError` when nothing of ours is mounted there.
    """
    mountpoint = absolute(directory)
    mounted = mounted_at(mountpoint)
    found = [mount for mount in all_mounts() if mount.mountpoint == mountpoint]
    if mounted is not None and mounted.user is not None:
        # Anybody may claim to be the process of any mount; root hears them all.
        found = [mount for mount in found if mount.user == mounted.user]
    if found:
        return found[-1]
    if mounted is None:
        raise UsageError(f"{mountpoint}: nothing is mounted here")
    if not mounted.is_ours:
        raise UsageError(f"{mountpoint}: a {mounted.kind} file system is mounted here, not ours")
    if clear_dead(mountpoint) is not None:
        raise BackgateError(
            f"{mountpoint}: its process cannot be reached: run this as the user who mounted it"
        )
    return None


def mounts_of(config: "RepositoryConfig") -> list[RunningMount]:
    """Return the running mounts of the repository `config`."""
    from backgate.gateway.places import folder_name

    name = folder_name(config)
    return [mount for mount in all_mounts() if f"/{name}/" in mount.socket]
