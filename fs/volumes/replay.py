"""What a file system's journal says of the device it lies on.

The backup of a running machine is a crashed disk: what was written last is in the journal only.
"""

from collections.abc import Mapping
from typing import NamedTuple

from backgate.fs.volume import Device
from backgate.fs.volumes.ext_changes import Changes

PACE = 8 << 20  # bytes of a long log that are gone through in a second of CPU, or it is given up

STATE, JOURNAL, DAMAGE = "state", "journal", "damage"  # of the notes of a file system
CLEAN = "clean"
DIRTY = "in use when it was copied"
NOT_REPLAYED = "not replayed, so what was written last may be missing or wrong"
MISSING = "what was written last may be missing"
_DOUBT = "may be missing"  # is in whatever is said of a journal that leaves a doubt


class Replay(NamedTuple):
    """A device as it would be once its journal had been written back, and what was done."""

    device: Device
    notes: Mapping[str, str]
    changes: Changes | None = None  # of single inodes and names, on top of the device's blocks


def clean(device: Device) -> Replay:
    """Return the answer for a journal with nothing to write back."""
    return Replay(device, {STATE: CLEAN})


def replayed(device: Device, *what: str) -> Replay:
    """Return the answer for a journal that was written back, with `what` to say of it."""
    return Replay(device, {STATE: DIRTY, JOURNAL: "replayed: " + ", ".join(what)})


def unreplayed(device: Device, reason: str) -> Replay:
    """Return the answer for a journal that cannot be written back: the device as it is."""
    return Replay(device, {STATE: DIRTY, JOURNAL: f"{NOT_REPLAYED}: {reason}"})


def leaves_doubt(said: str) -> bool:
    """Tell from what is said of a journal whether what it should have told may be missing."""
    return _DOUBT in said


def counted(number: int, one: str, many: str = "") -> str:
    """Return `number` with the word for so many: "1 block", "2 blocks"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
