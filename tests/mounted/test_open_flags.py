"""open(2) with each combination of its flags, compared with the local file system."""

import errno
import itertools
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from support.mounting import mounted
from support.repositories import small_parts
from support.writing import CONFIG

pytestmark = [pytest.mark.mounted, pytest.mark.slow]

ACCESS = ("RDONLY", "WRONLY", "RDWR")
FLAGS = ("CREAT", "EXCL", "TRUNC", "APPEND", "DIRECTORY", "NOFOLLOW")
TARGETS = ("absent", "file", "directory", "symlink", "symlink-to-directory", "dangling")
COMBINATIONS = [
    (access, *flags)
    for access in ACCESS
    for count in range(len(FLAGS) + 1)
    for flags in itertools.combinations(FLAGS, count)
]


def fill(top: Path) -> None:
    """Make each target; `behind` is what symlinks lead to."""
    (top / "behind").mkdir(parents=True)
    (top / "file").write_bytes(b"content")
    (top / "behind" / "file").write_bytes(b"content")
    (top / "directory").mkdir()
    (top / "symlink").symlink_to("behind/file")
    (top / "symlink-to-directory").symlink_to("directory")
    (top / "dangling").symlink_to("behind/new")


def state(top: Path) -> dict[str, object]:
    """Return what is there: names, and the contents of files."""
    found: dict[str, object] = {}
    for directory in ("", "behind/"):
        with os.scandir(top / directory) as entries:
            for entry in entries:
                is_file = entry.is_file(follow_symlinks=False)
                content = Path(entry.path).read_bytes() if is_file else None
                found[directory + entry.name] = content
    return found


def sizes(top: Path) -> dict[str, int]:
    """Return the sizes of the files that are there: an open that failed has changed none."""
    names = ("file", "behind/file", "behind/new", "absent")
    return {name: (top / name).stat().st_size for name in names if (top / name).exists()}


def opened(top: Path, target: str, flags: tuple[str, ...]) -> tuple[str, ...]:
    """Open it, read and write where that may be, and say what happened."""
    number = sum(getattr(os, f"O_{flag}") for flag in flags)
    try:
        descriptor = os.open(top / target, number, 0o640)
    except OSError as error:
        return (errno.errorcode[error.errno or 0],)
    acts: tuple[Callable[[], object], ...] = (
        lambda: os.fstat(descriptor).st_size if "directory" not in target else None,
        lambda: os.read(descriptor, 100),
        lambda: os.write(descriptor, b"NEW"),
    )
    told = []
    for act in acts:
        try:
            told.append(repr(act()))
        except OSError as error:
            told.append(errno.errorcode[error.errno or 0])
    os.close(descriptor)
    return tuple(told)


def restore(top: Path, pristine: dict[str, object], after: dict[str, object]) -> None:
    """Make it what it was."""
    for name in after.keys() - pristine.keys():
        (top / name).unlink()
    for name, content in pristine.items():
        if after.get(name) != content:
            assert isinstance(content, bytes)
            (top / name).write_bytes(content)


def table(top: Path) -> dict[tuple[str, tuple[str, ...]], object]:
    """Return what each combination did to each target, and what was there afterwards."""
    fill(top)
    pristine, before = state(top), sizes(top)
    told: dict[tuple[str, tuple[str, ...]], object] = {}
    for target in TARGETS:
        for flags in COMBINATIONS:
            happened = opened(top, target, flags)
            if len(happened) == 1 and sizes(top) == before:
                told[target, flags] = happened, {}
                continue
            after = state(top)
            changed = {name for name, _ in after.items() ^ pristine.items()}
            told[target, flags] = happened, {name: after.get(name) for name in changed}
            restore(top, pristine, after)
    assert state(top) == pristine
    return told


def test_every_combination_of_open_flags_does_what_a_local_file_system_does(tmp_path: Path) -> None:
    with mounted(partial(small_parts, tmp_path, CONFIG), tmp_path) as mount:
        found = table(mount.path / "top")

    expected = table(tmp_path / "local")
    assert found == expected
    assert len(found) == len(TARGETS) * len(ACCESS) * 2 ** len(FLAGS)
