"""What was once read of images, kept in the cache: an image of the same versions says the same.

One small file for each repository, replaced as a whole. Without it, or when it is damaged, images
are read again.
"""

import hashlib
import logging
import os
import tempfile
from pathlib import Path

import msgspec
from msgspec import Struct

from backgate.fs.formats.xen_orchestra.links import About
from backgate.gateway.units import MIB

VERSION = 1  # part of the folder's name: another version of this code keeps its own
FACTS_MAX = 256 * MIB  # bytes of such a file; an image takes about 300

log = logging.getLogger(__name__)


class Known(Struct):
    """By the identity of the objects: where an alias leads to, and what an image says."""

    targets: dict[str, str] = {}
    images: dict[str, About] = {}


class Facts:
    """The file of the repository at the prefix `where`; blocking, for a worker thread."""

    def __init__(self, cache: Path, where: str) -> None:
        digest = hashlib.sha256(where.encode("utf-8", "surrogatepass")).hexdigest()
        self._path = cache / f"images-{VERSION}" / digest[:32]

    def load(self) -> Known:
        """Return what is known; nothing where there is no such file."""
        try:
            if self._path.stat().st_size > FACTS_MAX:
                return Known()
            return msgspec.json.decode(self._path.read_bytes(), type=Known)
        except FileNotFoundError:
            return Known()
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            log.info("images are read again: %s: %s", self._path, error)
            return Known()

    def save(self, known: Known) -> None:
        """Keep `known`, and nothing else; a disk that is full is no error."""
        data = msgspec.json.encode(known)
        temporary = None
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=self._path.parent)
            with open(descriptor, "wb") as file:
                file.write(data)
            os.replace(temporary, self._path)
        except OSError as error:
            log.info("what was read of images is not kept: %s: %s", self._path, error)
            if temporary is not None:
                Path(temporary).unlink(missing_ok=True)
