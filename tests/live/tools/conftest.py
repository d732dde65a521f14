"""A path for each tool: a mounted gateway over SeaweedFS, reached as it is or with faults."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from servers.faultproxy import Rule, fault_proxy
from servers.seaweedfs import SeaweedFS
from support.gateway import Gateway, gateway

FAULTY = {  # of so many requests one is told to wait, loses its answer, is cut short, is refused
    "faulty": (23, 31, 7, 29),
    "very faulty": (4, 5, 3, 7),  # for tools that need few
}


def faults(way: str) -> list[Rule]:
    """Return what goes wrong on a faulty way: with one request in ten, or in two."""
    busy, lost, cut, refused = FAULTY[way]
    return [
        Rule(match="^(PUT|POST|DELETE|HEAD)", every=busy, status=503, code="SlowDown"),
        Rule(match="^(PUT|POST|DELETE)", every=lost, is_lost=True),
        Rule(match="^GET", every=cut, reset_after=100),
        Rule(every=refused, is_refused=True),
    ]


@pytest.fixture
def way() -> str:
    """How the store is reached: "well", or faulty where a test is parametrized so."""
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
    """Provide a gateway with a bucket of its own, mounted; every fault asked for has come."""
    bucket = seaweedfs_server.bucket(f"b{abs(hash(request.node.name)) % 10**12}")
    with ExitStack() as stack:
        endpoint, rules = seaweedfs_server.endpoint_url, list[Rule]()
        if way in FAULTY:
            proxy = stack.enter_context(fault_proxy(endpoint))
            proxy.rules[:] = rules = faults(way)
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
        assert "Traceback" not in made.log.read_text()
        assert [rule for rule in rules if not rule.applied] == []
