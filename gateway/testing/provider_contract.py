"""What every provider must do, for the tests of Backgate and of any package that adds a provider.

A test file instantiates the class with a fixture. Where a store is different and says so in its
`abilities`, the suite holds it to what it says.
"""

from backgate.gateway.testing.asking import fill, keys_of, pages_of, together
from backgate.gateway.testing.names_contract import NamesContract
from backgate.gateway.testing.objects_contract import ObjectsContract
from backgate.gateway.testing.odd_keys import ODD_KEYS
from backgate.gateway.testing.uploads_contract import UploadsContract

__all__ = ["ODD_KEYS", "ProviderContract", "fill", "keys_of", "pages_of", "together"]


class ProviderContract(ObjectsContract, NamesContract, UploadsContract):
    """Instantiate with a fixture `provider`: an empty store."""
