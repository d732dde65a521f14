"""What tests of backup tools need: the newest version that there is, and a tree that changes."""

import os
import shutil
import sys
from pathlib import Path

TOOLS = Path(sys.prefix, "tools", "bin")  # what tests/tools.sh installs


def tool(name: str) -> str:
    """Return the path of the tool `name`: of the newest version that there is."""
    found = shutil.which(name, path=f"{TOOLS}:{os.environ['PATH']}")
    if found is None:
        raise RuntimeError(f"the tool {name} is missing: run `make setup-test`")
    return found


def make_plain_tree(top: Path) -> Path:
    """Fill `top` with what every tool keeps on any file system: no hard links, one owner."""
    for folder in range(4):
        (top / f"folder {folder}").mkdir(parents=True)
        for number in range(25):
            content = os.urandom(number * 400) + b"line\n" * number
            (top / f"folder {folder}" / f"{number:02}.bin").write_bytes(content)
    (top / "large").write_bytes(os.urandom(6_000_000))
    (top / "empty").touch()
    (top / "empty folder").mkdir()
    (top / "ünï-côdé").write_text("names are not ASCII")
    (top / "link").symlink_to("folder 1/01.bin")
    (top / "dangling").symlink_to("/nowhere/at all")
    (top / "private").write_text("for one only")
    (top / "private").chmod(0o600)
    (top / "folder 2").chmod(0o750)
    _age(top)
    return top


def change_tree(top: Path, number: int) -> None:
    """Change, add, replace and remove files, another choice for each `number`."""
    with (top / "large").open("r+b") as file:
        file.seek(number * 1_000_000)
        file.write(os.urandom(100_000))
    (top / f"new {number}").mkdir()
    for one in range(10):
        (top / f"new {number}" / f"{one}").write_bytes(os.urandom(3000 + one))
    (top / "folder 0" / f"{number:02}.bin").unlink()
    (top / "folder 1" / f"{number:02}.bin").write_bytes(b"shorter")
    (top / "folder 3" / f"{number:02}.bin").rename(top / f"moved {number}")
    (top / "folder 2" / f"{number:02}.bin").write_bytes(b"a program")
    (top / "folder 2" / f"{number:02}.bin").chmod(0o755)
    (top / "link").unlink()
    (top / "link").symlink_to(f"moved {number}")
    _age(top)


def _age(top: Path) -> None:
    """Give all directories and links whole times of their own: tools compare some to the second."""
    for folder, directories, files in os.walk(top, topdown=False):
        for name in [*directories, *files]:
            path = os.path.join(folder, name)
            if os.path.isdir(path) or os.path.islink(path):
                time_ns = 1_700_000_000_000_000_000 + len(path) * 1_000_000_000
                os.utime(path, ns=(time_ns, time_ns), follow_symlinks=False)
