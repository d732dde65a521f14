"""LUKS: an encrypted volume, opened with one of the configured passphrases.

A second header without a first may be all that is left of a volume that others have been laid over
since: it counts only where no file system is known.
"""

import struct
from collections.abc import Sequence
from typing import ClassVar

from backgate.fs.volume import Device, Layer, Volume
from backgate.fs.volumes import luks1, luks2
from backgate.fs.volumes.key_costs import Patience
from backgate.fs.volumes.luks_keys import opened
from backgate.fs.volumes.luks_segments import Header, clear
from backgate.gateway.errors import Damaged

MARK = struct.Struct(">6sH")
NEEDED = "it is encrypted with {} and needs a passphrase: set secrets = {{ image = ... }}"
REFUSED = "it is encrypted with {}, and no passphrase of secrets = {{ image = ... }} opens it"


class Luks(Layer):
    """Versions 1 and 2; what has opened one volume is tried first on the next."""

    name: ClassVar[str] = "luks"
    certain: ClassVar[bool] = True
    replaces: ClassVar[bool] = True

    def __init__(self) -> None:
        self._worked: list[bytes] = []
        self._patience: Patience | None = None

    def claims(self, device: Device) -> bool:
        return _version(device) in (1, 2)

    def volumes(self, members: Sequence[Volume], secrets: Sequence[bytes]) -> list[Volume]:
        device = members[0].device
        header = luks1.header(device) if _version(device) == 1 else luks2.header(device)
        content, problem = device, ""
        try:
            key = self._key(device, header, secrets)
            if key is not None:
                content = clear(device, header, key)
            else:
                problem = (REFUSED if secrets else NEEDED).format(header.version)
        except Damaged as error:
            problem = f"it is encrypted with {header.version}: {error.reason}"
        return [
            Volume(
                name=header.label or header.uuid or header.version,
                device=content,
                kind="luks",
                label=header.label,
                notes={
                    "encryption": f"{header.version}, {header.segments[0].spec}",
                    "uuid": header.uuid,
                },
                problem=problem,
            )
        ]

    def _key(self, device: Device, header: Header, secrets: Sequence[bytes]) -> bytes | None:
        if self._patience is None:
            self._patience = Patience(len(secrets))
        order = [*self._worked, *(secret for secret in secrets if secret not in self._worked)]
        found = opened(device, header.slots, header.digests, order, self._patience)
        if found is None:
            return None
        key, number = found
        if order[number] not in self._worked:
            self._worked.append(order[number])
        return key


class LuksSecond(Luks):
    """Version 2 without its first header."""

    certain: ClassVar[bool] = False

    def claims(self, device: Device) -> bool:
        return luks2.is_second(device)

    def is_beside_tables(self, device: Device) -> bool:
        return True


def _version(device: Device) -> int:
    """Return the version that the first header tells, 0 when there is none."""
    raw = device.read_at(0, MARK.size)
    mark, version = MARK.unpack(raw) if len(raw) == MARK.size else (b"", 0)
    return version if mark == luks2.FIRST else 0
