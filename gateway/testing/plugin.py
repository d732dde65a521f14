"""The pytest plug-in: installed with Backgate, it lets the contract suite explain its failures.

pytest rewrites the assertions of test modules only; a suite that lies in a package has to ask.
"""

import pytest

pytest.register_assert_rewrite("backgate.gateway.testing.provider_contract")
