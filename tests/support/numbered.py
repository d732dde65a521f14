"""A store of very many objects that takes no memory: its keys are worked out from their numbers."""

from backgate.gateway.provider import ObjectInfo, Page
from backgate.gateway.providers.grouping import LAST
from backgate.gateway.providers.memory import Memory

PER_DIRECTORY = 1000  # objects
BEGAN_NS = 1_700_000_000_000_000_000  # nanoseconds since 1970
ETAG = "9bb58f26192e4ba00f01e2e7b136bbd8"


class Numbered(Memory):
    """`count` objects in directories of a thousand, for who only lists."""

    def __init__(self, count: int) -> None:
        super().__init__(f"memory:{count}")
        self.count = count

    def key(self, number: int) -> str:
        """Return the key of object `number`; they ascend with it."""
        return f"xo-vm-backups/{number // PER_DIRECTORY:06}/{number:09}.vhd"

    def page(
        self,
        prefix: str = "",
        delimiter: str = "",
        *,
        after: str = "",
        token: str | None = None,
        limit: int = 1000,
    ) -> Page:
        if delimiter:
            raise NotImplementedError
        first = max(self._first_behind(token or after), self._first_behind(prefix))
        end = self._first_behind(prefix + LAST)
        numbers = range(first, min(first + limit, end))
        found = [ObjectInfo(self.key(n), n, BEGAN_NS + n, ETAG) for n in numbers]
        return Page(found, [], found[-1].key if found and numbers.stop < end else None)

    def _first_behind(self, text: str) -> int:
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            if self.key(middle) > text:
                high = middle
            else:
                low = middle + 1
        return low
