"""Find where to split a stretch of keys of which nothing is known but where it begins.

All keys from there on share some characters with the first; how many, a few questions of one key
each tell. At the next character the stretch is split, in the middle of what the keys have there.
"""

from collections.abc import Awaitable, Callable

LAST = 0x10FFFF  # no character behind it
SURROGATES = range(0xD800, 0xE000)  # are no characters
ORDINARY = 0x7F  # a name rarely has characters behind it
QUESTIONS = 24  # about twice the logarithm of all that can be asked; enough is enough

FirstBehind = Callable[[str], Awaitable[str | None]]


async def split_point(first: str, end: str | None, first_behind: FirstBehind) -> str | None:
    """Return a key some way between the key `first` and `end` (None: the last of all); or None.

    `first_behind` says which key of the stretch comes first behind a text, None: none does.
    """
    asked = 0

    async def ask(text: str | None) -> str | None:
        nonlocal asked
        if text is None or (end is not None and text >= end):
            return None
        asked += 1
        return await first_behind(text)

    shared, split = 0, None  # characters that all keys have in common with the first
    longest = len(first)
    while shared < longest and asked < QUESTIONS:
        middle = (shared + longest) // 2
        found = await ask(_behind_all(first[: middle + 1]))
        if found is None:
            shared = middle + 1
        else:
            longest, split = middle, found
    if split is None or shared < longest or not split.startswith(first[:shared]):
        return split
    low = ord(split[shared])
    high = _highest(first[:shared], end, low)
    while high - low > 1 and asked < QUESTIONS:
        middle = (low + high) // 2
        found = await ask(first[:shared] + _character(middle))
        if found is not None and found.startswith(first[:shared]):
            return found
        high = middle
    return split


def _highest(prefix: str, end: str | None, low: int) -> int:
    """Return what the next character behind `prefix` is below, as far as that can be told."""
    if end is not None and end.startswith(prefix) and len(end) > len(prefix):
        return ord(end[len(prefix)]) + 1
    return max(low + 1, ORDINARY)


def _behind_all(prefix: str) -> str | None:
    """Return a text behind all keys that begin with `prefix`, near to them."""
    code = ord(prefix[-1])
    return None if code == LAST else prefix[:-1] + _character(code + 1)


def _character(code: int) -> str:
    return chr(SURROGATES.stop if code in SURROGATES else code)
