"""Tell systemd how a mount is doing: ready, alive, stopping (sd_notify(3)).

Nothing happens where no service manager asked for it.
"""

import logging
import os
import socket
from collections.abc import Mapping

import trio

MICROSECONDS = 1e-6  # seconds

log = logging.getLogger(__name__)


def notify(message: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Send `message` ("READY=1\\nSTATUS=...") to the service manager.

    False when there is none, or when it cannot be told: no mount is to wait, or to end, for that.
    """
    address = environment.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.setblocking(False)
        try:
            sender.sendto(message.encode(), address)
        except OSError as error:
            log.debug("the service manager cannot be told: %s", error)
            return False
    return True


def watchdog_interval(environment: Mapping[str, str] = os.environ) -> float | None:
    """Return the seconds between two signs of life, half of what is allowed; None: none wanted."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    allowed = environment.get("WATCHDOG_USEC", "")
    return int(allowed) * MICROSECONDS / 2 if allowed.isdigit() and int(allowed) else None


async def keep_alive(environment: Mapping[str, str] = os.environ) -> None:
    """Send signs of life for as long as the loop turns; one that is stuck gets restarted."""
    interval = watchdog_interval(environment)
    while interval is not None:
        notify("WATCHDOG=1", environment)
        await trio.sleep(interval)
