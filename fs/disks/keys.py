"""Where a name in an image leads: a key beside the image, never outside of the repository."""

import posixpath


class BadPath(ValueError):
    """A name that leads nowhere a file of this repository can be."""


def beside(key: str, name: str, root: str = "") -> str:
    """Return the key that `name`, relative to the directory of `key`, means.

    Raises `BadPath` when it would lie outside of `root` ("" or a prefix with a final slash).
    """
    if not name or "\0" in name or name.startswith("/"):
        raise BadPath(f"not a path within the repository: {name!a:.200}")
    directory = key.rpartition("/")[0].removeprefix(root.rstrip("/")).strip("/")
    path = posixpath.normpath(posixpath.join(directory, name))
    if path == ".." or path.startswith(("../", "/")) or path == ".":
        raise BadPath(f"it leads out of the repository: {name!a:.200}")
    return root + path
