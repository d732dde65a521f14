"""`backgate cache`: what is known of a store, whatever the store itself says at the moment."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.gateway import Gateway, gateway

pytestmark = pytest.mark.slow  # each command is a process


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    path = tmp_path / "objects"
    for name in ("web/a", "web/sub/b", "%odd/c", "x"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(b"1")
    return path


@pytest.fixture
def made(tmp_path: Path, objects: Path) -> Iterator[Gateway]:
    with gateway(tmp_path / "gateway", {"url": str(objects)}) as found:
        yield found


def listed(made: Gateway, path: str) -> list[str]:
    return sorted(made.run("ls", f"store:repository/{path}").stdout.split())


def test_status_of_a_store_that_cannot_be_reached_is_told_at_once(
    made: Gateway, objects: Path
) -> None:
    made.run("cache", "refresh", "store")
    objects.rename(objects.with_name("gone"))

    status = made.json("cache", "status", "store")
    shown = made.run("cache", "status", "store").stdout

    assert isinstance(status, dict)
    assert (status["objects"], status["is_complete"], status["last_error"]) == (4, True, None)
    assert "LIST requests      1\n" in shown
    assert "compared           0 samples" in shown


def test_a_refresh_that_fails_is_an_error_and_forgets_nothing(made: Gateway, objects: Path) -> None:
    made.run("cache", "refresh", "store")
    objects.rename(objects.with_name("gone"))
    made.configure({"url": str(objects), "patience": "1 s"})

    failed = made.run("cache", "refresh", "store", check=False)
    status = made.json("cache", "status", "store")

    assert failed.returncode == 1
    assert isinstance(status, dict)
    assert (status["objects"], status["is_complete"]) == (4, True)


@pytest.mark.parametrize("path", ["web", "web/", "web/sub", "%odd"])
def test_one_directory_is_listed_again(made: Gateway, objects: Path, path: str) -> None:
    made.run("cache", "refresh", "store")
    (objects / path / "new").write_bytes(b"1")
    (objects / "elsewhere").write_bytes(b"1")

    made.run("cache", "refresh", f"store:repository/{path}")

    assert "new" in listed(made, path)
    assert "elsewhere" not in listed(made, "")


def test_a_name_that_is_no_name_of_a_directory_is_refused(made: Gateway) -> None:
    for path in ("backups/restic", "repository/%=%41"):
        refused = made.run("cache", "refresh", f"store:{path}", check=False)

        assert refused.returncode == 2
        assert "cache: " in refused.stderr
