"""Where the suite of `backgate.gateway.testing.provider_contract` was."""

from backgate.gateway.testing.provider_contract import (  # noqa: F401
    ODD_KEYS,
    ProviderContract,
    fill,
    keys_of,
    pages_of,
    together,
)
