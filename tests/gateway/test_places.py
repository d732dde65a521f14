"""One private folder per repository in each of three places."""

import os
import stat
from pathlib import Path

import pytest

from backgate.gateway import places as module
from backgate.gateway.config import RepositoryConfig
from backgate.gateway.errors import ConfigError
from backgate.gateway.places import folder_name, name_from_url, places_of, runtime_directories


def repository(url: str = "s3://acme-backups/xo", **more: str) -> RepositoryConfig:
    return RepositoryConfig(name="offsite", url=url, **more)  # type: ignore[arg-type]


def xdg(folder: Path) -> dict[str, str]:
    names = ("CACHE_HOME", "STATE_HOME", "RUNTIME_DIR")
    return {f"XDG_{name}": str(folder / name) for name in names}


def test_folders_lie_below_the_xdg_directories_and_are_private(tmp_path: Path) -> None:
    places = places_of(repository(), xdg(tmp_path))

    name = folder_name(repository())
    assert places.cache == tmp_path / "CACHE_HOME" / "backgate" / name
    assert places.state == tmp_path / "STATE_HOME" / "backgate" / name
    assert places.runtime == tmp_path / "RUNTIME_DIR" / "backgate" / name
    for folder in (places.cache, places.state, places.runtime):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


def test_systemds_directories_come_first(tmp_path: Path) -> None:
    given = {
        "CACHE_DIRECTORY": f"{tmp_path}/c:{tmp_path}/other",
        "STATE_DIRECTORY": f"{tmp_path}/s",
        "RUNTIME_DIRECTORY": f"{tmp_path}/r",
    }

    places = places_of(repository(), given | xdg(tmp_path))

    assert [places.cache.parent, places.state.parent, places.runtime.parent] == [
        tmp_path / "c",
        tmp_path / "s",
        tmp_path / "r",
    ]


def test_the_units_user_finds_the_units_directories_in_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = [tmp_path / name for name in ("cache", "lib", "run")]
    for folder in system:
        folder.mkdir()
    monkeypatch.setattr(module, "SYSTEM", tuple(str(folder) for folder in system))

    places = places_of(repository(), {})

    assert [places.cache.parent, places.state.parent, places.runtime.parent] == system


def test_a_folder_that_others_may_enter_is_closed(tmp_path: Path) -> None:
    places = places_of(repository(), xdg(tmp_path))
    places.state.chmod(0o755)

    places_of(repository(), xdg(tmp_path))

    assert stat.S_IMODE(places.state.stat().st_mode) == 0o700


def test_a_cache_moved_behind_a_symlink_is_followed(tmp_path: Path) -> None:
    (tmp_path / "CACHE_HOME").mkdir()
    (tmp_path / "big").mkdir()
    (tmp_path / "CACHE_HOME" / "backgate").symlink_to(tmp_path / "big")

    assert places_of(repository(), xdg(tmp_path)).cache.parent == tmp_path / "big"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    places = places_of(repository(), xdg(tmp_path))
    os.chown(places.cache, 12345, 12345)

    with pytest.raises(ConfigError, match=r"belongs to user 12345, not to 0: run as that user"):
        places_of(repository(), xdg(tmp_path))


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "CACHE_HOME").write_text("")

    with pytest.raises(ConfigError, match="CACHE_HOME/backgate: cannot be made: File exists"):
        places_of(repository(), xdg(tmp_path))


def test_each_store_has_its_own_folder() -> None:
    configs = [
        repository(),
        repository("s3://acme-backups/x"),
        repository("s3://acme-backups-xo"),
        repository(endpoint_url="http://127.0.0.1:8333"),
        repository(endpoint_url="http://127.0.0.1:8334"),
        repository("/acme-backups/xo"),
        repository(provider="seaweedfs"),
        repository(region="eu-central-1"),
        repository(provider="ovh", region="gra"),
        repository(provider="ovh", region="rbx"),
        repository(provider="cloudflare-r2", account="one"),
        repository(provider="cloudflare-r2", account="two"),
    ]

    assert len({folder_name(config) for config in configs}) == len(configs)


def test_what_is_learnt_of_a_store_does_not_move_its_spool() -> None:
    address = "http://127.0.0.1:8333"

    for before, after in (
        (
            repository(endpoint_url=address),
            repository(endpoint_url=f"{address}/", provider="seaweedfs", region="x"),
        ),
        (repository("/srv/backups"), repository("file:///srv/backups/")),
    ):
        assert folder_name(before) == folder_name(after)


def test_a_directory_has_no_region() -> None:
    """`AWS_REGION` completes every URL."""
    directory = repository("file:///srv/store")

    assert folder_name(repository("file:///srv/store", region="gra")) == folder_name(directory)


def test_a_trailing_slash_is_the_same_store() -> None:
    assert folder_name(repository("s3://acme-backups/xo/")) == folder_name(repository())


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("s3://acme-backups/xo", "acme-backups-xo"),
        ("file:///", "repository"),
        ("file:///srv/bäckups/../x y", "srv-b-ckups-..-x-y"),
        ("s3://" + "a" * 200, "a" * 40),
    ],
)
def test_a_folders_name_is_readable_and_short(url: str, name: str) -> None:
    assert name_from_url(url) == name


def test_only_directories_that_exist_are_searched_for_mounts(tmp_path: Path) -> None:
    assert tmp_path / "backgate" not in runtime_directories({"XDG_RUNTIME_DIR": str(tmp_path)})
