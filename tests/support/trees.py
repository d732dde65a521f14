"""A directory tree with everything that a backup may meet."""

import os
import subprocess
from pathlib import Path

YEAR_1969_NS = -86_400_000_000_000  # nanoseconds since 1970
YEAR_2020_NS = 1_577_836_800_000_000_000
YEAR_2100_NS = 4_102_444_800_123_456_789


def make_odd_tree(top: Path) -> Path:
    """Fill `top` with odd names, sizes, modes, times and links; owners too when root."""
    top.mkdir(parents=True, exist_ok=True)
    (top / "empty").write_bytes(b"")
    (top / "small").write_bytes(b"small\n")
    (top / "random").write_bytes(os.urandom(3_000_000))
    (top / "text").write_bytes(b"the same line again and again\n" * 100_000)
    with (top / "sparse").open("wb") as file:
        file.seek(20_000_000)
        file.write(b"end")
    deep = top / "deep"
    for level in range(30):
        deep = deep / f"level {level}"
    deep.mkdir(parents=True)
    (deep / "bottom").write_text("bottom")
    (top / "empty directory").mkdir()
    names = top / "names"
    names.mkdir()
    odd = ["with space", "ünï-côdé", "quote\"'", "back\\slash", "new\nline", "tab\t", "~", "-dash"]
    odd += ["x" * 255, "日本語", "e\u0301", ".hidden", "%25", "a:b", "*?[]"]
    for name in odd:
        (names / name).write_text(name)
    (top / "link").symlink_to("small")
    (top / "dangling").symlink_to("/nowhere/at all")
    os.link(top / "random", top / "random again")
    os.link(top / "random", names / "random thrice")
    for number in range(300):
        (top / "many").mkdir(exist_ok=True)
        (top / "many" / f"{number:04}").write_bytes(os.urandom(number * 7))
    (top / "small").chmod(0o4751)
    (top / "text").chmod(0o400)
    (top / "empty directory").chmod(0o1777)
    if os.geteuid() == 0:
        os.chown(top / "text", 1234, 4321)
        os.lchown(top / "link", 1234, 4321)
    # rsync sets no time where source and target agree to the second: nothing here is that young.
    for folder, directories, files in os.walk(top, topdown=False):
        for number, name in enumerate([*directories, *files]):
            time_ns = YEAR_2020_NS + number * 1_000_000_007
            os.utime(os.path.join(folder, name), ns=(time_ns, time_ns), follow_symlinks=False)
    os.utime(top / "random", ns=(YEAR_2100_NS, YEAR_2100_NS))
    os.utime(top / "text", ns=(YEAR_1969_NS, YEAR_1969_NS))
    os.utime(top / "empty directory", ns=(1_000_000_000_000_000_001, 1_500_000_000_987_654_321))
    return top


def set_xattr(path: Path, name: str, value: bytes) -> bool:
    """Set an extended attribute; False where the file system has none."""
    try:
        os.setxattr(path, name, value)
    except OSError:
        return False
    return True


def run(*command: object, **environment: str) -> str:
    """Run a tool to its end and return what it printed; a failure shows its messages."""
    result = subprocess.run(
        [str(word) for word in command],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    if result.returncode:
        raise AssertionError(f"{command}: {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout
