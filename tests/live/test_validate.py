"""Tiers of a real server, and of the same server behind a proxy with a provider's weaknesses."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from servers.faultproxy import FaultProxy, Rule, fault_proxy
from servers.faults.listings import Listings
from servers.faults.rulesets import rule_set
from servers.seaweedfs import SeaweedFS

from backgate.gateway.config import RepositoryConfig, read_configuration
from backgate.gateway.credentials import Credentials
from backgate.gateway.profiles import profile
from backgate.gateway.providers import open_provider
from backgate.gateway.validation.plan import Plan
from backgate.gateway.validation.programme import validate
from backgate.gateway.validation.report import Report

pytestmark = [pytest.mark.live, pytest.mark.slow]

BUCKET = "validated"
SHORT = Plan(
    objects=300,
    fan_out=30,
    page_sizes=(1000, 10),
    pages=2,
    connections=(1, 4),
    transfer=65536,
    burst=0.3,
    burst_max=100,
    rounds=2,
    settling=3.0,
    deadline=60.0,
)
HASTY = replace(SHORT, deadline=3.0)  # where something never comes


@pytest.fixture
def server(seaweedfs_server: SeaweedFS) -> SeaweedFS:
    seaweedfs_server.bucket(BUCKET)
    seaweedfs_server.empty(BUCKET)
    return seaweedfs_server


@pytest.fixture
def proxy(server: SeaweedFS) -> Iterator[FaultProxy]:
    with fault_proxy(server.endpoint_url) as running:
        yield running


async def report_through(
    proxy: FaultProxy, server: SeaweedFS, name: str = "generic", plan: Plan = SHORT
) -> Report:
    """What a validation finds that knows the profile `name`."""
    config = RepositoryConfig(
        name="v", url=f"s3://{BUCKET}", provider="generic", endpoint_url=proxy.url
    )
    guarded, _ = open_provider(config, Credentials(server.access_key, server.secret_key))
    provider = guarded.unguarded()
    try:
        report = await validate(provider, "", profile(name), plan, name="mine")
    finally:
        provider.close()
        guarded.close()
    assert report.left_behind == []
    client = server.client()
    left = client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
    pending = client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    client.close()
    assert [one["Key"] for one in left] == []
    assert pending == []
    return report


def outcomes(report: Report) -> dict[str, str]:
    return {one.subject: one.outcome for one in report.findings}


async def test_seaweedfs_is_tier_2_and_its_profile_is_taken(
    proxy: FaultProxy, server: SeaweedFS, tmp_path: Path
) -> None:
    report = await report_through(proxy, server)

    assert report.tier == 2
    assert outcomes(report)["checksums"] == "checked"
    reasons = {one.subject for one in report.reasons}
    assert {"order", "markers", "empty prefixes", "special keys"} <= reasons
    path = tmp_path / "backgate.toml"
    table = f'[repository.a]\nurl = "s3://{BUCKET}"\nprovider = "mine"\n'
    path.write_text(f'{report.snippet}\n{table}endpoint_url = "{server.endpoint_url}"\n')
    measured = read_configuration(path).repositories["a"].profile
    assert measured is not None
    real = profile("seaweedfs").abilities()
    found = measured.abilities()
    assert (found.lists_in_order, found.conditional_put) == (False, True)
    assert found.conditional_delete == real.conditional_delete is True
    assert found.markers_are_objects == real.markers_are_objects
    assert found.forgets_prefixes == real.forgets_prefixes
    assert found.keys.dot_components == real.keys.dot_components
    assert found.keys.empty_components == real.keys.empty_components


async def test_a_slow_listing_makes_tier_3(proxy: FaultProxy, server: SeaweedFS) -> None:
    proxy.listings = Listings(scans_above=100)  # as Backblaze B2, in small
    proxy.rules.append(Rule(match=r"POST .*\?delete", status=501, code="NotImplemented"))

    report = await report_through(proxy, server, plan=HASTY)

    assert report.tier == 3
    first = report.reasons[0]
    assert (first.subject, first.outcome) == ("pages by delimiter", "time out")
    assert "none came within 3 s" in first.detail
    assert "listed flat" in first.remedy
    assert outcomes(report)["pages"] in ("in time", "slow")
    assert "list_delimiter_scans = true" in report.snippet
    assert outcomes(report)["batch delete"] == "one by one"
    assert 'delete_integrity = "single"' in report.snippet


async def test_large_pages_that_hang_make_tier_3(proxy: FaultProxy, server: SeaweedFS) -> None:
    proxy.rules.append(Rule(keys_above=100, delay=float("inf")))

    report = await report_through(proxy, server, plan=HASTY)

    assert report.tier == 3
    assert outcomes(report)["pages"] == "time out"
    assert "of 10 they came" in report.reasons[0].detail
    assert "list_slow = true" in report.snippet
    assert outcomes(report)["completeness"] == "whole"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("netapp-storagegrid", {"conditional put": "ignored", "list after write": "late"}),
        ("ibm-cos", {"order": "other", "completeness": "whole"}),
        ("google-storage-s3", {"copied parts": "missing", "conditional put": "ignored"}),
    ],
)
async def test_a_providers_weaknesses_are_found(
    name: str, expected: dict[str, str], proxy: FaultProxy, server: SeaweedFS
) -> None:
    proxy.emulate(rule_set(name))

    report = await report_through(proxy, server)

    found = outcomes(report)
    assert {subject: found[subject] for subject in expected} == expected
    assert report.tier in (2, 3)
