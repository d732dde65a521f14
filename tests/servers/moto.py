"""moto's server, which behaves as Amazon S3 does as far as objects go."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from servers.processes import Running, Unavailable, answers, free_ports, write_certificates
from servers.s3 import S3Server


@contextmanager
def moto() -> Iterator[S3Server]:
    """Run a server over TLS while the context is open."""
    if any(find_spec(name) is None for name in ("moto", "flask", "flask_cors")):
        raise Unavailable("moto[s3], flask or flask-cors is missing: pip install it")
    with tempfile.TemporaryDirectory(prefix="backgate-moto-") as directory:
        home = Path(directory)
        bundle = write_certificates(home)
        (port,) = free_ports(1)
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        command += ["-s", "-c", str(home / "server.pem"), "-k", str(home / "server.key")]
        server = Running(command, home / "log")
        try:
            url = f"https://127.0.0.1:{port}"
            server.wait_until(answers(f"{url}/moto-api/", bundle))
            yield S3Server(url, bundle)
        finally:
            server.end()
