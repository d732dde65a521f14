"""Who looks at files one by one after listing them, as `ls -l` does and a plain `find` does not.

They are given attributes with the names, which spares them a question for each. For all others that
would be work, and a record of each name in the kernel and here, for nothing.
"""

from cachetools import LRUCache

LOOKS = 8  # at files that were listed; a few may be targets of symlinks
TASKS = 512  # that are remembered to look; the kernel tells threads apart
DIRECTORIES = 1024  # that were listed lately


class Lookers:
    """What the tasks that list directories do afterwards."""

    def __init__(self, *, are_all: bool = False) -> None:
        self._are_all = are_all  # everybody is given attributes
        self._looks: LRUCache[int, int] = LRUCache(TASKS)
        self._listed: LRUCache[int, int] = LRUCache(DIRECTORIES)  # directory -> who listed it

    def listed(self, directory: int, task: int) -> None:
        """Note that `task` was told names of `directory` without attributes."""
        self._listed[directory] = task

    def looked(self, directory: int, task: int) -> None:
        """Note that `task` has looked at a file in `directory`."""
        lister = self._listed.get(directory)
        if lister is not None:
            for one in {lister, task}:  # they may be threads of one program
                self._looks[one] = self._looks.get(one, 0) + 1

    def is_one(self, task: int) -> bool:
        """True when `task` looks at what it lists."""
        return self._are_all or self._looks.get(task, 0) >= LOOKS
