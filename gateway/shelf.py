"""Which file of the spool has which name."""

from collections.abc import Iterator

from backgate.gateway.keys import parent_of
from backgate.gateway.spooled import SpooledFile


class Shelf:
    """The files of one spool, by number and by key; one key is one file."""

    def __init__(self) -> None:
        self._numbers: dict[int, SpooledFile] = {}
        self._directories: dict[str, dict[str, SpooledFile]] = {}  # prefix -> key -> file

    def __iter__(self) -> Iterator[SpooledFile]:
        return iter(list(self._numbers.values()))

    def __len__(self) -> int:
        return len(self._numbers)

    def get(self, key: str) -> SpooledFile | None:
        """Return the file that is named `key`."""
        return self._directories.get(parent_of(key), {}).get(key)

    def children(self, prefix: str) -> dict[str, SpooledFile]:
        """Return the files that lie directly in the directory `prefix`, by key."""
        return dict(self._directories.get(prefix, {}))

    def below(self, prefix: str) -> list[SpooledFile]:
        """Return all files whose key begins with `prefix`."""
        return [file for file in self if file.key is not None and file.key.startswith(prefix)]

    def add(self, file: SpooledFile) -> None:
        """Put a new file on the shelf, under its key."""
        self._numbers[file.number] = file
        if file.key is not None:
            self._directories.setdefault(parent_of(file.key), {})[file.key] = file

    def rename(self, file: SpooledFile, key: str | None) -> None:
        """Give `file` another key, which no file has, or none."""
        if file.key is not None:
            prefix = parent_of(file.key)
            siblings = self._directories.get(prefix, {})
            siblings.pop(file.key, None)
            if not siblings:
                self._directories.pop(prefix, None)
        file.key = key
        if file.number in self._numbers:
            self.add(file)

    def remove(self, file: SpooledFile) -> None:
        """Take a file off the shelf."""
        del self._numbers[file.number]
        key = file.key
        self.rename(file, None)
        file.key = key
