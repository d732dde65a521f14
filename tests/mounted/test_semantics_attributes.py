"""Modes, owners and times, as docs/semantics.md has them."""

from pathlib import Path

import pytest
from support.syscalls import assert_same

pytestmark = [pytest.mark.mounted, pytest.mark.slow]


def test_chmod_follows_the_rules_of_a_local_file_system(either: Path, local: Path) -> None:
    assert_same(
        either,
        local,
        """
        write f
        stamp f
        chmod f 0111
        stat f mode
        moved f
        mkdir d
        chmod d 01777
        stat d mode
        symlink f l
        chmod l 0640
        stat f mode
        chmod missing 0644
        chmod f/x 0644
        chmod n*256 0644
        as 65534 chmod f 0777
        chown f 65534 65534
        as 65534 chmod f 04755
        stat f mode
        as 65534:65533 chmod f 02755
        stat f mode
        as 65533 chmod f 0644
        chown f 65534 65533
        as 65534:65534 chmod f 02755
        stat f mode
        as 65534:65533 chmod f 02755
        stat f mode
        chmod d 02775
        stat d mode
        symlink loop1 loop2
        symlink loop2 loop1
        chmod loop1 0644
        """,
    )


def test_set_id_bits_are_lost_as_on_a_local_file_system(either: Path, local: Path) -> None:
    assert_same(
        either,
        local,
        """
        write f
        chmod f 06777
        chown f 65534 65534
        stat f mode
        chmod f 06777
        as 65534 rewrite f
        stat f mode
        chmod f 06777
        as 65533 rewrite f
        stat f mode
        chmod f 06777
        rewrite f
        stat f mode
        chmod f 06777
        as 65533 truncate f 3
        stat f mode
        chmod f 06777
        truncate f 2
        stat f mode
        chmod f 06777
        as 65534 chown f -1 65534
        stat f mode
        chmod f 06555
        chown f 65534 65532
        stat f mode
        chmod f 06555
        chown f -1 -1
        stat f mode
        chmod f 02644
        chown f 65534 65532
        stat f mode
        mkdir d
        chmod d 06777
        chown d 65534 65532
        stat d mode uid gid
        """,
    )


def test_chown_follows_the_rules_of_a_local_file_system(either: Path, local: Path) -> None:
    assert_same(
        either,
        local,
        """
        write f
        stamp f
        chown f 123 456
        stat f uid gid
        moved f
        symlink f l
        chown l 124 457
        stat f uid gid
        stat l uid
        lchown l 7 8
        stat l uid gid
        stat f uid gid
        chown f 65534 65533
        as 65534:65533,65532 chown f 65534 65532
        stat f uid gid
        as 65534:65533 chown f 65534 65531
        as 65534:65533 chown f 65533 65533
        as 65533:65533 chown f 65533 65533
        as 65534:65533 chown f -1 65533
        stat f uid gid
        stamp f
        chown f -1 -1
        moved f
        mkdir d
        chown d 65534 65533
        stat d uid gid
        chown missing 1 1
        chown f/x 1 1
        """,
    )


def test_utimes_follows_the_rules_of_a_local_file_system(either: Path, local: Path) -> None:
    assert_same(
        either,
        local,
        """
        write f
        utimes f 1234567890123456789 -5000000001
        stat f times
        mkdir d
        utimes d 1 2
        stat d times
        utimes f 5000000000000000000 5000000000000000001
        stat f times
        stamp f
        utimes f 1 2
        moved f
        chown f 65534 65534
        chmod f 0444
        as 65534 utimes f 3 4
        as 65533 utimes f 3 4
        as 65534 now f
        as 65533 now f
        chmod f 0666
        as 65533 now f
        as 65533 utimes f 3 4
        utimes missing 1 2
        utimes f/x 1 2
        """,
    )


def test_times_move_as_on_a_local_file_system(either: Path, local: Path) -> None:
    assert_same(
        either,
        local,
        """
        write f
        stamp f
        rewrite f abc
        moved f
        stamp f
        open f RDONLY
        moved f
        stamp f
        read f
        moved f
        mkdir d
        stamp d
        write d/f
        moved d
        stamp d
        rewrite d/f abc
        moved d
        stamp d
        list d
        moved d
        stamp d
        mkdir d/e
        symlink x d/l
        moved d
        """,
    )


def test_modes_and_owners_are_heeded(either: Path, local: Path) -> None:
    assert_same(
        either,
        local,
        """
        mkdir d
        chmod d 0700
        write d/f
        as 65534 read d/f
        as 65534 access d X
        chmod d 0711
        as 65534 read d/f
        as 65534 list d
        chmod d 0755
        chmod d/f 0640
        as 65534 read d/f
        chown d/f 0 65533
        as 65534:65533 read d/f
        as 65534:65534,65533 read d/f
        as 65534:65533 rewrite d/f
        chmod d/f 0604
        as 65534:65533 read d/f
        as 65534 read d/f
        chmod d/f 0000
        read d/f
        access d/f RW
        access d/f X
        as 65534 write d/new
        """,
    )
