"""BitLocker, opened with a configured password or recovery key by libbde, where it is installed.

The library is an extra: without it a volume says what to install. One whose encryption was under
way when it was copied is refused.
"""

import re
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, ClassVar

from backgate.fs.volume import ENCODED, Device, Extent, Layer, Volume
from backgate.fs.volumes.key_costs import Patience, costly
from backgate.gateway.errors import Damaged

try:
    import pybde
except ImportError:
    pybde = None

MARK_AT, FIXED, TO_GO = 3, b"-FVE-FS-", b"MSWIN4.1"  # in the boot sector
TO_GO_AT, TO_GO_GUID = 424, bytes.fromhex("3bd66749292ed84a8399f6a339e3d001")
RECOVERY = re.compile(r"[0-9]{6}(-[0-9]{6}){7}")  # a recovery key, as Windows shows it
PIECE = 1 << 20  # bytes that are decrypted at a time
SECTOR = 4096  # bytes; libbde answers a read that begins inside a sector with wrong bytes
UNDER_WAY = "Encrypt-on-Write"  # what libbde calls a conversion that it cannot read
MISSING = "it is encrypted with BitLocker: install backgate[bitlocker] to open it"
NEEDED = "it is encrypted with BitLocker and needs a password: set secrets = { image = ... }"
REFUSED = "it is encrypted with BitLocker, and no password of secrets = { image = ... } opens it"


class BitLocker(Layer):
    """Fixed and removable ("To Go") volumes of Windows 7 and later."""

    name: ClassVar[str] = "bitlocker"
    certain: ClassVar[bool] = True
    replaces: ClassVar[bool] = True

    def __init__(self) -> None:
        self._patience: Patience | None = None

    def claims(self, device: Device) -> bool:
        head = device.read_at(0, TO_GO_AT + len(TO_GO_GUID))
        return head.startswith(FIXED, MARK_AT) or (
            head.startswith(TO_GO, MARK_AT) and head.startswith(TO_GO_GUID, TO_GO_AT)
        )

    def volumes(self, members: Sequence[Volume], secrets: Sequence[bytes]) -> list[Volume]:
        device = content = members[0].device
        problem = ""
        if self._patience is None:
            self._patience = Patience(max(1, len(secrets)))
        if pybde is None:
            problem = MISSING
        else:
            try:
                opened = _opened(pybde, device, secrets, self._patience)
                content = opened or device
                problem = "" if opened else (REFUSED if secrets else NEEDED)
            except Damaged as error:
                problem = f"it is encrypted with BitLocker: {error.reason}"
        return [
            Volume(
                name="BitLocker",
                device=content,
                kind="bitlocker",
                notes={"encryption": "BitLocker"},
                problem=problem,
            )
        ]


class Opened:
    """The clear bytes of a volume that libbde has unlocked; for one thread."""

    def __init__(self, volume: Any, file: "_File") -> None:
        self._volume, self._file = volume, file
        self.size: int = volume.get_size()

    def read_at(self, offset: int, length: int) -> bytes:
        stop = min(offset + length, self.size)
        if offset >= stop:
            return b""
        start = offset // SECTOR * SECTOR
        end = min(-(-stop // SECTOR) * SECTOR, self.size)
        pieces = [self._sectors(at, min(PIECE, end - at)) for at in range(start, end, PIECE)]
        return b"".join(pieces)[offset - start : stop - start]

    def _sectors(self, offset: int, length: int) -> bytes:
        with self._file.errors("reading"):
            data: bytes = self._volume.read_buffer_at_offset(length, offset)
        if len(data) < length:
            raise Damaged("BitLocker", offset, "the volume ends before it should")
        return data

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        length = min(length, self.size - offset)
        if length > 0:
            yield Extent(length, ENCODED, 0)


class _File:
    """A device as libbde reads it: by a position; it keeps what a read raised, which C cannot."""

    def __init__(self, device: Device) -> None:
        self._device, self._position = device, 0
        self.raised: BaseException | None = None

    def errors(self, doing: str) -> "_Errors":
        return _Errors(self, doing)

    def read(self, length: int) -> bytes:
        try:
            data = self._device.read_at(self._position, length)
        except BaseException as error:  # on its way through C it would lose what it is
            self.raised = error
            raise
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        start = {0: 0, 1: self._position, 2: self._device.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def get_size(self) -> int:
        return self._device.size


class _Errors:
    """Turns an error of libbde's into `Damaged`, and one that a read of ours raised into itself."""

    def __init__(self, file: _File, doing: str) -> None:
        self._file, self._doing = file, doing

    def __enter__(self) -> None:
        self._file.raised = None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._file.raised is not None:
            raise self._file.raised
        if isinstance(error, OSError | MemoryError | ValueError | OverflowError):
            raise Damaged("BitLocker", None, f"{self._doing}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """Return the innermost reason of libbde's, which tells its call stack, outermost first."""
    sentences = str(error).strip().split(". ")
    if any(UNDER_WAY in sentence for sentence in sentences):
        return "it was being encrypted or decrypted when it was copied, which is not supported"
    return sentences[min(1, len(sentences) - 1)].split(": ", 1)[-1][:200]


def _opened(
    library: ModuleType, device: Device, secrets: Sequence[bytes], patience: Patience
) -> Opened | None:
    """Return the volume as the first of `secrets` opens it, or none is needed; else None."""
    for secret in ("", *(secret.decode("utf-8", "replace") for secret in secrets)):
        file, volume = _File(device), library.volume()
        with patience.spent(), costly(), file.errors("opening"):
            if RECOVERY.fullmatch(secret):
                volume.set_recovery_password(secret)
            elif secret:
                volume.set_password(secret)
            volume.open_file_object(file)
            if not volume.is_locked() or volume.unlock():
                return Opened(volume, file)
    return None
