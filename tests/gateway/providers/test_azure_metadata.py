"""Names of metadata that Azure refuses come back as they were."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backgate.gateway.providers.azure_metadata import from_azure, to_azure

NAMES = st.text("abcxyz019-_.!#$%&'*+^`|~", min_size=1, max_size=20)


@given(st.dictionaries(NAMES, st.just("text"), max_size=5))
def test_any_name_reads_back(metadata: dict[str, str]) -> None:
    headers = to_azure(metadata)

    assert from_azure({name.title(): text for name, text in headers.items()}) == metadata
    assert all(name.removeprefix("x-ms-meta-").isidentifier() for name in headers)


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("mode", "mode"),
        ("backgate-writer", "backgate_x2dwriter"),
        ("hdi_isfolder", "hdi_isfolder"),
        ("1st", "_x31st"),
        ("a_x2d", "a_x5fx2d"),
    ],
)
def test_a_name_is_written_as_an_identifier(name: str, header: str) -> None:
    assert to_azure({name: "1"}) == {f"x-ms-meta-{header}": "1"}
    assert from_azure({f"x-ms-meta-{header}": "1", "x-ms-version": "2"}) == {name: "1"}
