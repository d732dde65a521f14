"""Write XVAs as XAPI exports them."""

import hashlib
import io
import tarfile
from collections.abc import Mapping
from xml.sax.saxutils import escape

import xxhash

CHUNK = 1 << 20  # bytes


def xva(
    disks: Mapping[str, bytes], *, sums: str = "xxhash", silent_before: frozenset[int] = frozenset()
) -> bytes:
    """Return an XVA of `disks` (name -> content); chunks of zeros are left out as XAPI does.

    In front of the chunks numbered `silent_before` the host had nothing to send for a while.
    """
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        _add(archive, "ova.xml", ova(disks))
        for reference, content in zip(references(disks), disks.values(), strict=True):
            number = 0
            pieces = [content[at : at + CHUNK] for at in range(0, len(content), CHUNK)]
            for place, piece in enumerate(pieces):
                if place in silent_before:
                    _add_chunk(archive, f"{reference}/{number:08d}", b"", sums)
                    number += 1
                if any(piece) or place in (0, len(pieces) - 1):
                    _add_chunk(archive, f"{reference}/{number:08d}", piece, sums)
                number += 1
    return made.getvalue()


def references(disks: Mapping[str, bytes]) -> list[str]:
    """What the disks are called in the archive."""
    return [f"Ref:{7 + 10 * number}" for number in range(len(disks))]


def ova(disks: Mapping[str, bytes]) -> bytes:
    """Return the description of a VM with these disks, and a CD drive."""
    objects = [_object("VM", "Ref:0", {"name_label": "web"})]
    objects.append(_object("VBD", "Ref:1", {"VDI": "Ref:2", "device": "xvdd", "type": "CD"}))
    objects.append(_object("VDI", "Ref:2", {"name_label": "a CD", "virtual_size": "5"}))
    for number, (reference, name) in enumerate(zip(references(disks), disks, strict=True)):
        size = str(len(disks[name]))
        objects.append(_object("VDI", reference, {"name_label": name, "virtual_size": size}))
        attached = {"VDI": reference, "userdevice": str(number), "type": "Disk"}
        attached["device"] = f"xvd{'abcd'[number]}"
        objects.append(_object("VBD", f"Ref:{100 + number}", attached))
    array = f"<array><data>{''.join(objects)}</data></array>"
    return f"<value><struct>{_member('objects', array)}</struct></value>".encode()


def _object(kind: str, reference: str, snapshot: Mapping[str, str]) -> str:
    inside = "".join(_member(name, escape(value)) for name, value in snapshot.items())
    members = _member("class", kind) + _member("id", reference)
    members += _member("snapshot", f"<struct>{inside}</struct>")
    return f"<value><struct>{members}</struct></value>"


def _member(name: str, value: str) -> str:
    return f"<member><name>{name}</name><value>{value}</value></member>"


def _add_chunk(archive: tarfile.TarFile, name: str, data: bytes, sums: str) -> None:
    _add(archive, name, data)
    if sums == "xxhash":
        _add(archive, f"{name}.xxhash", xxhash.xxh64_hexdigest(data).upper().encode())
    else:
        _add(archive, f"{name}.checksum", hashlib.sha1(data).hexdigest().encode())


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))
