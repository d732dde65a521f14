"""Azurite, Microsoft's emulator of Azure Blob Storage."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servers.processes import (
    Running,
    Unavailable,
    answers,
    free_ports,
    program,
    write_certificates,
)

ACCOUNT = "devstoreaccount1"  # Azurite's own, and its key: Microsoft has published both
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
MAIN = Path(sys.prefix, "servers/node_modules/azurite/dist/src/blob/main.js")


@dataclass(frozen=True)
class Azurite:
    """A running emulator; containers are made with `container`."""

    endpoint_url: str
    ca_bundle: str | None
    account: str = ACCOUNT
    key: str = KEY

    def client(self, container: str) -> Any:
        """Return Microsoft's own client."""
        from azure.storage.blob import ContainerClient

        keys = {"account_name": self.account, "account_key": self.key}
        settings = {"connection_verify": self.ca_bundle} if self.ca_bundle else {}
        return ContainerClient(self.endpoint_url, container, credential=keys, **settings)

    def container(self, name: str) -> str:
        """Create the container `name`, unless it is there, and return its name."""
        with self.client(name) as client:
            if not client.exists():
                client.create_container()
        return name

    def empty(self, container: str) -> None:
        """Remove all of a container."""
        with self.client(container) as client:
            for name in list(client.list_blob_names()):
                client.delete_blob(name)

    def environment(self) -> dict[str, str]:
        """Return what a command's environment needs in order to be let in."""
        return {"AZURE_STORAGE_KEY": self.key}


@contextmanager
def azurite(*, tls: bool = False) -> Iterator[Azurite]:
    """Run an emulator while the context is open; its data vanish with it."""
    node = program("node", "install Node.js, and run make setup-test again")
    if not MAIN.exists():
        raise Unavailable("azurite is missing: make setup-test installs it where npm is there")
    with tempfile.TemporaryDirectory(prefix="backgate-azurite-") as directory:
        home = Path(directory)
        (port,) = free_ports(1)
        bundle = write_certificates(home) if tls else None
        command = [node, str(MAIN), "--blobHost", "127.0.0.1", "--blobPort", str(port)]
        command += ["--location", str(home), "--silent", "--skipApiVersionCheck"]
        command += ["--disableTelemetry"]  # nothing leaves loopback
        if tls:
            command += ["--cert", str(home / "server.pem"), "--key", str(home / "server.key")]
        # A copy's source is asked for over the network, even from itself.
        server = Running(command, home / "log", {"NODE_EXTRA_CA_CERTS": bundle} if bundle else {})
        try:
            url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
            server.wait_until(answers(url, bundle))
            yield Azurite(f"{url}/{ACCOUNT}", bundle)
        finally:
            server.end()
