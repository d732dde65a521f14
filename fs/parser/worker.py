"""The worker process: parses untrusted images, and asks the gateway for every byte of them.

Started by `process` with a socket as its only way out, it answers requests one after another until
the gateway is gone. Whatever a parser stumbles over is told to the gateway in words.
"""

import resource
import socket
import sys
import time
from collections.abc import Callable
from functools import partial

from backgate.fs.parser.asked import Gateway, NotGiven
from backgate.fs.parser.containers import CONTAINERS
from backgate.fs.parser.image import Image
from backgate.fs.parser.messages import TEXT_MAX, Failed, Message, Open, Unavailable
from backgate.fs.parser.sandbox import confine
from backgate.fs.volumes import FILE_SYSTEMS, LAYERS, load
from backgate.gateway.errors import Damaged, FileError


def main() -> None:
    """`worker.py SOCKET PARENT CPU`: the descriptor, the gateway's process, seconds a request."""
    descriptor, parent, seconds = (int(argument) for argument in sys.argv[1:])
    connection = socket.socket(fileno=descriptor)
    for place in (*CONTAINERS.values(), *FILE_SYSTEMS.values(), *LAYERS.values()):
        load(place)  # nobody may not be let into the folders that root imports from
    confine(parent)
    serve(Gateway(connection), seconds)


def serve(gateway: Gateway, seconds: int) -> None:
    """Answer until the gateway is gone; a request may use `seconds` of CPU."""
    image: Image | None = None
    while (request := gateway.request()) is not None:
        _limit(seconds)
        if isinstance(request, Open):
            image = _opened(gateway, request)
        elif image is not None:
            gateway.say(_told(partial(image.answer, request), image))


def _opened(gateway: Gateway, request: Open) -> Image | None:
    """Return the disks; None, and the gateway knows why, when they cannot be opened."""
    opened: list[Image] = []

    def tell() -> Message:
        opened.append(Image(gateway, request))
        return opened[0].opened()

    gateway.say(_told(tell))
    return opened[0] if opened else None


def _limit(seconds: int) -> None:
    """Have the kernel end us when this request uses more CPU than it may."""
    spent = int(time.process_time())
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (spent + seconds + 1, hard))


def _told(tell: Callable[[], Message], image: Image | None = None) -> Message:
    """Return what `tell` says of the image, or what it stumbles over."""
    try:
        return tell()
    except NotGiven:
        return Unavailable()
    except FileError as error:
        return Failed(error.errno, "", None, _reason(error))
    except Damaged as error:
        return Failed(0, error.where[:TEXT_MAX], _offset(error), _reason(error.reason))
    except MemoryError:
        if image is not None:
            image.forget()
        return Failed(0, "", None, "reading it needs more memory than an image may use")
    except Exception as error:  # the one place: a parser of untrusted bytes may raise anything
        return Failed(0, "", None, _reason(f"unexpected {type(error).__name__}: {error}"))


def _offset(error: Damaged) -> int | None:
    return error.offset if error.offset is not None and 0 <= error.offset < 2**63 else None


def _reason(reason: object) -> str:
    return str(reason).encode("utf-8", "backslashreplace").decode()[:TEXT_MAX]


if __name__ == "__main__":
    main()
