"""A directory as a store: the contract, and what a directory may hold that no bucket can."""

from pathlib import Path

import pytest
from contracts.provider_contract import ProviderContract

from backgate.gateway.providers.local import Local


class TestLocal(ProviderContract):
    @pytest.fixture
    def provider(self, tmp_path: Path) -> Local:
        return Local(str(tmp_path))


class TestLocalWithoutExtendedAttributes(ProviderContract):
    @pytest.fixture
    def provider(self, tmp_path: Path) -> Local:
        return Local(str(tmp_path), use_xattrs=False)
