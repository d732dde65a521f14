"""The pytest plug-in: installed with Backgate, it lets the contract suite explain its failures.

pytest rewrites the assertions of test modules only; a suite that lies in a package has to ask.
"""

import pytest

MODULES = ("asking", "objects_contract", "names_contract", "uploads_contract")

pytest.register_assert_rewrite(*(f"backgate.gateway.testing.{name}" for name in MODULES))
