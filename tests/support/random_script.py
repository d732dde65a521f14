"""Random scripts of system calls on few names, so that they often meet."""

import random

NAMES = ("a", "b", "c", "d.tmp", "e-tmp-1")  # the last two are temporary
TARGETS = ("a", "../b", "a/b", "x")
DEPTHS = (0, 0, 1, 1, 2)  # directories above a name
FLAGS = ("CREAT|WRONLY", "CREAT|EXCL|WRONLY", "RDWR", "WRONLY|TRUNC", "RDONLY")

# What a line may be, and how often; a letter in braces is drawn for each.
LINES = {
    "write {p} {n}": 10,
    "rewrite {p} {n}": 4,
    "read {p}": 5,
    "mkdir {p}": 8,
    "rmdir {p}": 4,
    "unlink {p}": 6,
    "rename {p} {q}": 14,
    "rename {p} {q} NOREPLACE": 2,
    "symlink {t} {p}": 3,
    "readlink {p}": 2,
    "chmod {p} {m}": 3,
    "lchown {p} 65534 65533": 2,
    "truncate {p} {s}": 3,
    "list {p}": 5,
    "stat {p} type mode uid gid": 6,
    "open {p} {f}": 4,
    "hold {p} RDWR": 4,
    "fwrite {p} {n}": 3,
    "fread {p}": 4,
    "fstat {p} size nlink": 3,
    "utimes {p} {n} {n}": 2,
}


def random_script(seed: int, count: int) -> str:
    """Return `count` random lines, and then one for each name that tells what is there."""
    chance = random.Random(seed)

    def path() -> str:
        return "/".join(chance.choice(NAMES) for _ in range(chance.choice(DEPTHS) + 1))

    lines = [
        line.format(
            p=path(),
            q=path(),
            n=number,
            t=chance.choice(TARGETS),
            m=chance.choice(("0700", "0644", "0755", "01777")),
            s=chance.choice((0, 2, 50)),
            f=chance.choice(FLAGS),
        )
        for number, line in enumerate(chance.choices(list(LINES), list(LINES.values()), k=count))
    ]
    every = [*NAMES, *(f"{one}/{other}" for one in NAMES for other in NAMES)]
    return "\n".join(
        [*lines, "list", *(f"{verb} {one}" for one in every for verb in ("list", "read"))]
    )
