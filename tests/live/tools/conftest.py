"""A path for each tool: a mounted gateway over SeaweedFS, reached as it is or with faults."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from servers.faultproxy import Rule, fault_proxy
from servers.seaweedfs import SeaweedFS
from support.gateway import Gateway, gateway


def faults() -> list[Rule]:
    """One request in ten fails: refused, reset, cut short, or done with its answer lost."""
    return [
        Rule(match="^(PUT|POST|DELETE|HEAD)", every=23, status=503, code="SlowDown"),
        Rule(match="^(PUT|POST|DELETE)", every=31, is_lost=True),
        Rule(match="^GET", every=13, reset_after=100),
        Rule(every=29, is_refused=True),
    ]


@pytest.fixture
def way() -> str:
    """How the store is reached: "well", or "faulty" where a test is parametrized so."""
    return "well"


@pytest.fixture
def settings() -> Mapping[str, object]:
    """What else is configured; a test module may say so."""
    return {}


@pytest.fixture
def mounted(
    tmp_path: Path,
    seaweedfs_server: SeaweedFS,
    request: pytest.FixtureRequest,
    way: str,
    settings: Mapping[str, object],
) -> Iterator[Gateway]:
    """Provide a gateway with a bucket of its own, mounted."""
    bucket = seaweedfs_server.bucket(f"b{abs(hash(request.node.name)) % 10**12}")
    with ExitStack() as stack:
        endpoint = seaweedfs_server.endpoint_url
        if way == "faulty":
            proxy = stack.enter_context(fault_proxy(endpoint))
            proxy.rules[:] = faults()
            endpoint = proxy.url
        table = {
            "url": f"s3://{bucket}",
            "provider": "seaweedfs",
            "endpoint_url": endpoint,
            **settings,
        }
        environment = seaweedfs_server.environment()
        made = stack.enter_context(gateway(tmp_path / "gateway", table, environment))
        made.mount()
        yield made
