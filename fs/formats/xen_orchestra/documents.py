"""The JSON documents of a repository, typed; what we do not use is skipped.

Old servers write 0 and 1 for booleans, so numbers are taken for them.
"""

from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from backgate.gateway.errors import Damaged
from backgate.gateway.source import Data
from backgate.gateway.units import MIB

METADATA_MAX = 16 * MIB  # bytes of any document; a few kilobytes as a rule
Size = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
T = TypeVar("T")


class Encryption(Struct):
    """`encryption.json`."""

    algorithm: str


class Vm(Struct):
    name_label: str = ""


class SmConfig(Struct):
    image_format: object = msgspec.field(name="image-format", default=None)


class Vdi(Struct):
    uuid: str = ""
    name_label: str | None = ""
    virtual_size: Size | None = None
    sm_config: SmConfig | None = None

    @property
    def is_qcow2(self) -> bool:
        """True when the hypervisor held this disk as qcow2."""
        return self.sm_config is not None and self.sm_config.image_format == "qcow2"


class Vbd(Struct):
    VDI: str | None = None
    device: str | None = None
    userdevice: str | int | None = None


class Metadata(Struct):
    """`<time>.json`: one backup of a VM. `vhds` is the authority for which disk is which file."""

    mode: str
    size: Size | None = None
    vm: Vm | None = None
    vdis: dict[str, Vdi] | None = None
    vhds: dict[str, str] | None = None
    vbds: dict[str, Vbd] | None = None
    xva: str | None = None
    includeNonNbdQcow2Fix: bool | None = None


class MergeState(Struct):
    """`.<oldest>.merge.json`: a merge that goes on, or was interrupted."""

    chain: list[str] | None = None  # names beside it: the oldest, which all is merged into, first
    step: str = "mergeBlocks"

    @property
    def is_cleaning_up(self) -> bool:
        """True once all blocks are in the oldest, and the others are being deleted."""
        return self.step.startswith("cleanup")


class Pool(Struct):
    name_label: str | None = ""


class MetadataBackup(Struct):
    """`metadata.json` of a backup of a configuration or a pool's metadata."""

    data: str | None = None
    jobName: str | None = None
    scheduleName: str | None = None
    pool: Pool | None = None


def parse(key: str, data: Data, document: type[T]) -> T:
    """Return `data` as a `document`; `Damaged` when it is not one."""
    try:
        return msgspec.json.decode(data, type=document, strict=False)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Damaged(key, None, f"not the JSON that belongs there: {error}") from None
