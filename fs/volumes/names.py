"""Names of volumes that can be names of files, whatever a disk calls them."""

import unicodedata
from collections.abc import Iterable

LONGEST = 120  # UTF-8 bytes: a name of 255 must still hold a number, a group and its volume


def file_name(text: str, otherwise: str = "unnamed") -> str:
    """Return `text` as a name that a file can have; `otherwise` when nothing is left of it.

    No slash, no control, format or private character, no lone surrogate; not "." or ".."; bounded.
    """
    kept = "".join(
        "_" if char == "/" or unicodedata.category(char)[0] == "C" else char for char in text
    )
    kept = " ".join(kept.split())
    kept = kept.encode()[:LONGEST].decode(errors="ignore").strip()
    return kept if kept.strip(". ") else otherwise


def unique_names(names: Iterable[str]) -> list[str]:
    """Return `names` in order, where the second of one name, and the next, carry a number."""
    given: set[str] = set()
    answer = []
    for name in names:
        candidate, number = name, 1
        while candidate in given:
            number += 1
            candidate = f"{name} ({number})"
        given.add(candidate)
        answer.append(candidate)
    return answer
