"""What people call things, as components of a path."""

PART_MAX = 200  # bytes of one component


def safe_part(text: str) -> str:
    """Return `text` as one component of a path: no separator, no control character, no colon."""
    safe = "".join("_" if char in "/:\x7f" or char < " " else char for char in text)
    safe = safe.encode("utf-8", "replace")[:PART_MAX].decode("utf-8", "ignore")
    return "_" + safe[1:] if safe in ("", ".", "..") else safe
