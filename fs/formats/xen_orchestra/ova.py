"""`ova.xml`, the first member of an XVA: which disks the VM has, as XAPI tells it in XML-RPC."""

from dataclasses import dataclass
from xml.etree import ElementTree

from backgate.gateway.units import MIB

OVA = b"ova.xml"
OVA_MAX = 16 * MIB  # bytes; a few kilobytes for each disk and snapshot
TAGS_MAX = 500_000  # in it; an element takes about 100 bytes of memory
DEPTH_MAX = 32  # values within values
DISKS_MAX = 1000  # of one VM; a hypervisor takes 255
SIZE_MAX = 1 << 50  # bytes of a disk

Value = str | dict[str, "Value"] | list["Value"]


class BadOva(ValueError):
    """No XML-RPC, or none that describes a VM; the caller knows where it lies."""


@dataclass(frozen=True, slots=True)
class OvaDisk:
    """One disk of a VM; `reference` is the prefix of its chunks in the archive."""

    reference: str
    device: str
    label: str
    size: int  # bytes


def disks_in(xml: bytes) -> list[OvaDisk]:
    """Return the disks in the order of their devices; `BadOva` when it makes no sense."""
    try:
        text = xml.decode()  # in another encoding what is forbidden would not be seen
    except UnicodeDecodeError:
        raise BadOva("it is not in UTF-8") from None
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise BadOva("it declares a type or entities, which XAPI never does")
    if text.count("<") > TAGS_MAX:
        raise BadOva("it has too many elements")
    try:
        root = ElementTree.fromstring(text)  # of text it ignores what encoding is declared
    except (ElementTree.ParseError, UnicodeError, ValueError) as error:
        raise BadOva(f"no XML: {error}") from None
    document = _value(root, 0)
    objects = document.get("objects") if isinstance(document, dict) else None
    if not isinstance(objects, list):
        raise BadOva("it lists no objects")
    records = [one for one in objects if isinstance(one, dict)]
    devices = _devices(records)
    found = [disk for one in records if (disk := _disk(one, devices)) is not None]
    if len(found) > DISKS_MAX:
        raise BadOva("more disks than a VM can have")
    return sorted(found, key=lambda disk: (len(disk.device), disk.device, disk.reference))


def _disk(record: dict[str, Value], devices: dict[str, str]) -> OvaDisk | None:
    snapshot, reference = record.get("snapshot"), record.get("id")
    if record.get("class") != "VDI" or not isinstance(snapshot, dict):
        return None
    size, label = snapshot.get("virtual_size"), snapshot.get("name_label")
    if not (isinstance(reference, str) and isinstance(size, str) and size.isdecimal()):
        raise BadOva("a disk without size or identity")
    if len(size) > len(str(SIZE_MAX)) or int(size) > SIZE_MAX:
        raise BadOva(f"a disk of {size[:32]} bytes is refused")
    if reference not in devices:
        return None  # known to the VM's server, but no disk of this VM
    return OvaDisk(
        reference, devices[reference], label if isinstance(label, str) else "", int(size)
    )


def _devices(records: list[dict[str, Value]]) -> dict[str, str]:
    """Return the device of each disk that is attached, by its reference."""
    found: dict[str, str] = {}
    for record in records:
        snapshot = record.get("snapshot")
        if record.get("class") == "VBD" and isinstance(snapshot, dict):
            reference = snapshot.get("VDI")
            device = snapshot.get("device") or snapshot.get("userdevice")
            if isinstance(reference, str) and snapshot.get("type") != "CD":
                found[reference] = device if isinstance(device, str) else ""
    return found


def _value(element: ElementTree.Element, depth: int) -> Value:
    """Return what a `<value>` stands for; every scalar as its text."""
    if depth > DEPTH_MAX:
        raise BadOva("values within values, too many")
    if len(element) == 0:
        return element.text or ""
    inner = element[0]
    if inner.tag == "struct":
        return {
            member.findtext("name", ""): _value(value, depth + 1)
            for member in inner
            if (value := member.find("value")) is not None
        }
    if inner.tag == "array":
        return [_value(value, depth + 1) for value in inner.iterfind("data/value")]
    return inner.text or ""
