"""Run a server's program on loopback: ports, certificates, waiting, and an end in any case."""

import os
import random
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

READY_WITHIN = 120.0  # seconds; most take one or two on an idle machine
PORTS = range(20000, 32000)  # below the range from which the kernel serves outgoing connections
SIDE_BY_SIDE = 8  # processes of tests, each of which has ports of its own


class Unavailable(Exception):
    """A server cannot run on this machine; the message says what is missing."""


class Running:
    """A program that has been started and is ended with `end`, or with us."""

    def __init__(self, command: list[str], log: Path, environment: dict[str, str] | None = None):
        self._log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                # The kernel ends it with us, whatever becomes of us.
                ["setpriv", "--pdeathsig", "KILL", *command],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=os.environ | (environment or {}),
                cwd=log.parent,
                start_new_session=True,  # an interrupt at the terminal is ours to handle
            )

    def wait_until(self, is_ready: Callable[[], bool]) -> None:
        """Return when it is ready; raises `RuntimeError` with the end of its log if it never is."""
        until = time.monotonic() + READY_WITHIN
        while time.monotonic() < until and self.process.poll() is None:
            if is_ready():
                return
            time.sleep(0.05)
        self.end()
        name = self.process.args[3] if isinstance(self.process.args, list) else ""
        end_of_log = self._log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{name} did not start: {end_of_log}")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def program(name: str, how: str) -> str:
    """Return the path of the program `name`; raises `Unavailable` with `how` to install it."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if found is None:
        raise Unavailable(f"the program {name} is missing: {how}")
    return found


def free_ports(count: int) -> list[int]:
    """Return `count` ports on which nobody listens, and of which nobody else is told.

    Between our look and a server's bind another server must not take them: neither one of ours,
    nor one of the tests that run beside us.
    """
    found: list[int] = []
    while len(found) < count:
        port = next(_ports)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
    return found


def _own_ports() -> Iterator[int]:
    """Give each port once that is for this process, of those that run side by side."""
    number = re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", ""))
    own = PORTS[int(number or 0) % SIDE_BY_SIDE :: SIDE_BY_SIDE]
    yield from random.sample(own, len(own))


_ports = _own_ports()


def answers(url: str, ca_bundle: str | None = None) -> Callable[[], bool]:
    """Return a question whether an HTTP server answers at `url`, whatever it says."""
    context = ssl.create_default_context(cafile=ca_bundle) if ca_bundle else None

    def ask() -> bool:
        try:
            urllib.request.urlopen(url, timeout=5, context=context).close()
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            return False
        return True

    return ask


def write_certificates(home: Path) -> str:
    """Write `server.pem` and `server.key`, and return the file of the authority to trust."""
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(home / "authority.pem"))
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    certificate.private_key_pem.write_to_path(str(home / "server.key"))
    for number, blob in enumerate(certificate.cert_chain_pems):
        blob.write_to_path(str(home / "server.pem"), append=number > 0)
    return str(home / "authority.pem")
