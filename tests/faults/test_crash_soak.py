"""Many crashes at moments that nobody chose: no file whose close had returned is lost or torn."""

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from servers.seaweedfs import SeaweedFS
from support.gateway import gateway

pytestmark = [pytest.mark.soak, pytest.mark.live, pytest.mark.mounted, pytest.mark.timeout(3600)]

ROUNDS = 20
LINES_MAX = 60  # acknowledged files until the crash

# Writes files of random sizes, some under a staged name; a line names each that was acknowledged.
WRITER = """
import hashlib, os, random, sys
top, round_, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
generator = random.Random(seed)
number = 0
while True:
    data = generator.randbytes(generator.choice([0, 100, 70_000, 3_000_000, 20_000_000]))
    name = f"{round_}-{number}"
    staged = number % 3 == 0
    path = os.path.join(top, name + ("-tmp-1" if staged else ""))
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL)
    for start in range(0, len(data), 65536):
        os.write(file, data[start : start + 65536])
    os.close(file)
    if staged:
        os.rename(path, os.path.join(top, name))
    print(name, hashlib.sha256(data).hexdigest(), flush=True)
    number += 1
"""


def test_no_acknowledged_file_is_lost_in_many_crashes(
    tmp_path: Path, seaweedfs_server: SeaweedFS
) -> None:
    bucket = seaweedfs_server.bucket("soak")
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    generator = random.Random(seed)
    acknowledged: dict[str, str] = {}
    table = {
        "url": f"s3://{bucket}",
        "provider": "seaweedfs",
        "endpoint_url": seaweedfs_server.endpoint_url,
    }
    with gateway(tmp_path / "gateway", table, seaweedfs_server.environment()) as made:
        made.mount()
        for round_ in range(ROUNDS):
            command = [sys.executable, "-c", WRITER, str(made.repository), str(round_), str(seed)]
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            ) as writer:
                assert writer.stdout is not None
                for _ in range(generator.randrange(1, LINES_MAX)):
                    name, digest = writer.stdout.readline().split()
                    acknowledged[name] = digest
                made.kill()
                rest, _ = writer.communicate()
                acknowledged |= dict(line.split() for line in rest.splitlines())
            made.mount()
        made.run("spool", "wait", "store")

        client = seaweedfs_server.client()
        for name, digest in acknowledged.items():
            stored = client.get_object(Bucket=bucket, Key=name)["Body"].read()
            assert hashlib.sha256(stored).hexdigest() == digest, name
        shown = {name for name in os.listdir(made.repository) if not name.startswith(".")}
        assert set(acknowledged) <= shown
        made.umount()
