"""What a checksum costs: of the bytes alone, and of a PUT of them; CPU of this process, printed.

`python -m benchmarks.checksums [ROUNDS]`. The puts go to a SeaweedFS of its own, in turns, beside
those of boto3 with a Content-MD5.
"""

import hashlib
import os
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec.structs import replace

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))

from servers.seaweedfs import SeaweedFS, seaweedfs  # noqa: E402

from backgate.gateway.credentials import Credentials  # noqa: E402
from backgate.gateway.profiles import profile  # noqa: E402
from backgate.gateway.providers.checksums import Outgoing  # noqa: E402
from backgate.gateway.providers.s3 import S3  # noqa: E402
from backgate.gateway.providers.s3_client import Connection  # noqa: E402
from backgate.gateway.units import GIB, MIB  # noqa: E402

BODY = os.urandom(8 * MIB)  # what one part of an upload has
KINDS = ("md5", "sha256", "crc32c")
BUCKET = "checksums"


def main(rounds: int) -> None:
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    _show("sums", {kind: lambda kind=kind: getattr(Outgoing(BODY), kind) for kind in KINDS}, rounds)
    for tls in (False, True):
        with seaweedfs(tls=tls) as server, _puts(server) as puts:
            _show("https" if tls else "http", puts, rounds)


def _show(title: str, calls: dict[str, Callable[[], object]], rounds: int) -> None:
    """Call in turns, and print the least CPU that each took, for a GiB."""
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds + 1):
        for name, call in calls.items():
            begun = time.process_time()
            call()
            least[name] = min(least[name], time.process_time() - begun)
    for name, seconds in least.items():
        ratio = least["md5"] / seconds
        print(f"{title} {name}: {seconds * GIB / len(BODY):.2f} s of CPU a GiB, {ratio:.2f}")


@contextmanager
def _puts(server: SeaweedFS) -> Iterator[dict[str, Callable[[], object]]]:
    server.bucket(BUCKET)
    stores = {kind: _store(server, kind) for kind in KINDS}
    client = server.client()

    def by_boto3() -> None:
        digest = b64encode(hashlib.md5(BODY, usedforsecurity=False).digest()).decode()
        client.put_object(Bucket=BUCKET, Key="boto3", Body=BODY, ContentMD5=digest)

    puts = {kind: lambda kind=kind: stores[kind].put(kind, BODY) for kind in KINDS}
    yield {**puts, "boto3, md5": by_boto3}
    for store in stores.values():
        store.close()
    client.close()


def _store(server: SeaweedFS, kind: str) -> S3:
    return S3(
        Connection(
            bucket=BUCKET,
            endpoint_url=server.endpoint_url,
            region="us-east-1",
            profile=replace(profile("seaweedfs"), upload_checksum=kind),
            credentials=Credentials(server.access_key, server.secret_key),
            ca_bundle=server.ca_bundle,
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
