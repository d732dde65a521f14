"""BitLocker as far as it can be made without Windows: its mark, damage, and what is missing.

No tool on Linux makes such a volume, and the images of others may not be carried here.
"""

from random import Random

import pytest
from support.disks import BytesDevice, found_in

from backgate.fs.volumes import bitlocker
from backgate.fs.volumes.bitlocker import BitLocker
from backgate.fs.volumes.discovery import Found
from backgate.gateway.errors import Damaged

SIZE = 1 << 20


def volume() -> bytearray:
    """Return a boot sector of BitLocker, and nothing behind it that holds together."""
    data = bytearray(SIZE)
    data[:11] = b"\xeb\x58\x90-FVE-FS-"
    data[11:13] = (512).to_bytes(2, "little")
    data[160:176] = bytes.fromhex("3bd66749292ed84a8399f6a339e3d001")
    for at, place in enumerate((4096, 8192, 12288)):
        data[176 + 8 * at : 184 + 8 * at] = place.to_bytes(8, "little")
    data[510:512] = b"\x55\xaa"
    return data


def only(device: BytesDevice) -> Found:
    (found,) = found_in(device, secrets=[b"a password"]).values()
    return found


def test_a_damaged_volume_is_shown_as_what_it_is_with_its_bytes() -> None:
    found = only(BytesDevice(volume()))

    assert found.path == ("xvda", "0-bitlocker")
    assert found.problem.startswith("it is encrypted with BitLocker: ")
    assert found.volume.device.size == SIZE


def test_without_the_library_a_volume_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bitlocker, "pybde", None)

    assert "install backgate[bitlocker]" in only(BytesDevice(volume())).problem


def test_a_removable_volume_is_known_by_its_identifier() -> None:
    data = bytearray(SIZE)
    data[3:11] = b"MSWIN4.1"
    assert not BitLocker().claims(BytesDevice(data))

    data[424:440] = bytes.fromhex("3bd66749292ed84a8399f6a339e3d001")
    assert BitLocker().claims(BytesDevice(data))


class Unreadable(BytesDevice):
    """A disk whose store is gone, once its boot sector has been read."""

    def read_at(self, offset: int, length: int) -> bytes:
        if offset >= 4096:
            raise ConnectionError("the store is gone")
        return super().read_at(offset, length)


def test_a_read_that_fails_is_not_taken_for_damage() -> None:
    with pytest.raises(ConnectionError, match="the store is gone"):
        only(Unreadable(volume()))


def test_a_conversion_that_was_under_way_is_named() -> None:
    errors = bitlocker._File(BytesDevice(b"")).errors("opening")

    with pytest.raises(Damaged, match="being encrypted or decrypted"), errors:
        raise OSError("a: b. libbde_eow: unable to read Encrypt-on-Write (EOW) descriptor. c: d.")


class WholeSectors:
    """As libbde's volumes are: what is read from inside a sector would come out wrong."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def get_size(self) -> int:
        return len(self._data)

    def read_buffer_at_offset(self, length: int, offset: int) -> bytes:
        assert offset % 4096 == 0
        assert length % 4096 == 0 or offset + length == len(self._data)
        return self._data[offset : offset + length]


def test_libbde_is_asked_for_whole_sectors_only() -> None:
    data = Random(4).randbytes((3 << 20) + 512)
    opened = bitlocker.Opened(WholeSectors(data), bitlocker._File(BytesDevice(b"")))

    for offset, length in [(0, 1), (4095, 2), (5000, 2 << 20), (len(data) - 700, 900), (9, 0)]:
        assert opened.read_at(offset, length) == data[offset : offset + length]
    assert opened.read_at(len(data), 1) == b""
