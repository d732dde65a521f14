"""Looking and restoring without a mount: the commands on a local store."""

import json
import os
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.compare import differences
from support.trees import make_odd_tree, run
from support.xen_orchestra import T1, T2, Writer

from backgate.cli.main import main

pytestmark = pytest.mark.slow


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    return make_odd_tree(tmp_path / "odd")


@pytest.fixture
def store(tmp_path: Path, odd: Path) -> Path:
    """A local store that holds an archive of an odd tree, one that is cut off, and a plain file."""
    store = tmp_path / "store"
    (store / "web").mkdir(parents=True)
    run("tar", "-C", odd, "-S", "--format=pax", "-cf", store / "web" / "monday.tar", ".")
    whole = (store / "web" / "monday.tar").read_bytes()
    (store / "cut.tar").write_bytes(whole[: len(whole) // 2 // 512 * 512])
    (store / "plain").write_bytes(b"plain\n")
    return store


@dataclass(frozen=True)
class Result:
    """What one command printed, and its exit code."""

    stdout: str
    stderr: str
    returncode: int


class Commands:
    """Runs `backgate` in this process, which spares a second of imports each time."""

    def __init__(self, output: pytest.CaptureFixture[str]) -> None:
        self._output = output

    def run(self, *arguments: str, check: bool = True) -> Result:
        self._output.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        printed = self._output.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        assert code == 0 or not check, printed.err
        return Result(printed.out, printed.err, code)

    def json(self, *arguments: str) -> object:
        return json.loads(self.run(*arguments, "--json").stdout)


@pytest.fixture
def made(
    tmp_path: Path,
    store: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Commands:
    """The commands, with one repository configured: `store`."""
    config = tmp_path / "backgate.toml"
    config.write_text(f'[repository.store]\nurl = "file://{store}"\n')
    monkeypatch.setenv("BACKGATE_CONFIG", str(config))
    for name in ("CACHE_HOME", "STATE_HOME", "RUNTIME_DIR"):
        monkeypatch.setenv(f"XDG_{name}", str(tmp_path / name))
    return Commands(capfd)


def test_the_top_of_the_tree_is_listed(made: Commands) -> None:
    assert made.run("ls", "store").stdout == "backups\nrepository\n"
    assert made.run("ls", "store:repository").stdout == "cut.tar\nplain\nweb\n"


def test_a_url_and_a_path_name_the_same_store(made: Commands, store: Path) -> None:
    listed = made.run("ls", "store:repository").stdout

    assert made.run("ls", f"file://{store}:repository").stdout == listed
    assert made.run("ls", f"{store}:repository").stdout == listed


def test_a_long_listing_shows_modes_owners_and_times(made: Commands, odd: Path) -> None:
    lines = made.run("ls", "-l", "store:backups/tar/web/monday").stdout.splitlines()

    text = next(line for line in lines if line.endswith(" text"))
    assert text.startswith("-r--------")
    assert "1969-12-31T00:00:00Z" in text
    assert any(line.endswith(" link -> small") for line in lines)


def test_a_listing_as_json_is_one_document(made: Commands, odd: Path) -> None:
    records = made.json("ls", "store:backups/tar/web/monday/names")

    assert isinstance(records, list)
    assert {record["name"] for record in records} == set(os.listdir(odd / "names"))
    assert all(record["path"].startswith("backups/tar/web/monday/names/") for record in records)


def test_completed_backups_are_listed(made: Commands) -> None:
    shown = made.run("backups", "store").stdout
    records = made.json("backups", "store", "--all")

    assert "backups/tar/web/monday" in shown
    assert "cut" not in shown
    assert isinstance(records, list)
    cut = next(record for record in records if record["object"] == "cut.tar")
    assert cut["complete"] is False
    assert cut["reason"]


def test_images_that_are_missing_are_told_with_all(made: Commands, store: Path) -> None:
    writer = Writer(store)
    for time, content in ((T1, bytes([1]) * 4096), (T2, bytes([2]) * 4096)):
        writer.back_up(time, {"root": content})
    image = writer.images["root", T1]
    shutil.rmtree(store / writer.top / image.data)
    (store / writer.top / f"{T1}.json").unlink()

    shown = made.run("backups", "store", "--all").stdout
    (line,) = [line for line in shown.splitlines() if "web/2026-08-02T01-00-00Z" in line]

    assert f"{T2}.json: the disk 'xvda-root': " in line
    assert image.data in line
    assert line.endswith("it is missing, and without it the disk is not whole")


def test_backups_below_a_path_are_listed(made: Commands) -> None:
    assert made.run("backups", "store:backups/restic").stdout == ""
    assert "monday" in made.run("backups", "store:backups/tar/web").stdout


def test_a_file_is_written_to_standard_output(made: Commands) -> None:
    shown = made.run("cat", "store:repository/plain", "store:backups/tar/web/monday/small")

    assert shown.stdout == "plain\nsmall\n"


def test_a_directory_is_no_file(made: Commands) -> None:
    result = made.run("cat", "store:repository", check=False)

    assert result.stderr == "backgate: repository: Is a directory\n"
    assert result.returncode == 1


@pytest.mark.parametrize("command", ["ls", "cat", "find"])
def test_what_is_not_there_is_named(made: Commands, command: str) -> None:
    result = made.run(command, "store:backups/tar/nothing", check=False)

    assert "No such file or directory" in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.returncode == 1


def test_everything_that_fits_is_found(made: Commands) -> None:
    found = made.run("find", "store:backups", "--name", "*random*").stdout.splitlines()
    large = made.run("find", "store:backups", "--type", "f", "--size", "+2MiB").stdout.splitlines()
    records = made.json("find", "store:backups/tar", "--type", "l")

    assert sorted(os.path.basename(path) for path in found) == [
        "random",
        "random again",
        "random thrice",
    ]
    assert all(path.startswith("backups/tar/web/monday/") for path in found)
    assert "backups/tar/web/monday/sparse" in large
    assert isinstance(records, list)
    assert {record["target"] for record in records} == {"small", "/nowhere/at all"}


def test_many_backups_are_searched_and_each_name_is_found_once(made: Commands, store: Path) -> None:
    for number in range(12):
        writer = Writer(store, vm=f"{number:036d}", name=f"vm{number}")
        writer.back_up(T1, {"root": bytes(512)})

    found = made.run("find", "store:backups", "--name", "disk.raw").stdout.splitlines()

    times = "2026-08-01T01-00-00Z/disks/xvda-root/disk.raw"
    assert sorted(found) == sorted(
        f"backups/xen-orchestra/vm{number}/{times}" for number in range(12)
    )


def test_names_for_xargs_end_with_nul(made: Commands) -> None:
    found = made.run("find", "store:backups/tar/web/monday/names", "-0", "--name", "new*").stdout

    assert found == "backups/tar/web/monday/names/new\nline\0"


def test_a_backup_is_restored_exactly(made: Commands, odd: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()

    made.run("cp", "-r", "store:backups/tar/web/monday", str(tmp_path / "new"))

    assert differences(odd, tmp_path / "new" / "monday") == []


def test_a_slash_at_the_end_means_what_is_in_it(made: Commands, odd: Path, tmp_path: Path) -> None:
    made.run("cp", "-r", "store:backups/tar/web/monday/", str(tmp_path / "new"))

    assert differences(odd, tmp_path / "new") == []


def test_restoring_again_copies_nothing(made: Commands, tmp_path: Path) -> None:
    made.run("cp", "-r", "store:backups/tar/web/monday", str(tmp_path / "new"))

    again = made.json("cp", "-r", "store:backups/tar/web/monday", str(tmp_path / "new"))

    assert isinstance(again, dict)
    assert again["failures"] == []
    assert again["restored"][0]["skipped"] > 300


@pytest.mark.parametrize(
    ("destination", "name"), [("new", "new"), (".", "small"), ("directory/", "small")]
)
def test_a_file_is_copied_under_its_own_or_a_new_name(
    made: Commands, tmp_path: Path, destination: str, name: str
) -> None:
    (tmp_path / "directory").mkdir()
    where = os.path.join(tmp_path, destination)

    made.run("cp", "store:backups/tar/web/monday/small", where)

    path = tmp_path / ("directory" if "directory" in destination else "") / name
    assert path.read_bytes() == b"small\n"
    assert path.stat().st_mode & 0o777 == 0o751


def test_a_directory_needs_r(made: Commands, tmp_path: Path) -> None:
    result = made.run("cp", "store:backups/tar/web/monday", str(tmp_path / "new"), check=False)

    assert result.stderr == "backgate: cp: store:backups/tar/web/monday: is a directory: add -r\n"
    assert result.returncode == 2
    assert not (tmp_path / "new").exists()


def test_several_sources_need_a_directory(made: Commands, tmp_path: Path) -> None:
    sources = ["store:repository/plain", "store:backups/tar/web/monday/small"]

    wrong = made.run("cp", *sources, str(tmp_path / "new"), check=False)
    made.run("cp", *sources, str(tmp_path))

    assert wrong.returncode == 2
    assert (tmp_path / "plain").read_bytes() + (
        tmp_path / "small"
    ).read_bytes() == b"plain\nsmall\n"


def test_a_store_without_the_command_is_left_as_it_was(made: Commands, store: Path) -> None:
    before = sorted(path.relative_to(store) for path in store.rglob("*"))

    made.run("find", "store", "--json")
    made.run("cache", "rebuild", "store")

    assert sorted(path.relative_to(store) for path in store.rglob("*")) == before


def test_the_cache_tells_what_it_knows(made: Commands) -> None:
    made.run("cache", "refresh", "store")

    status = made.json("cache", "status", "store")
    rebuilt = made.json("cache", "rebuild", "store")
    shown = made.run("cache", "status", "store").stdout

    assert isinstance(status, dict)
    assert (status["objects"], status["is_complete"]) == (3, True)
    assert isinstance(rebuilt, dict)
    assert rebuilt["objects"] == 3
    assert "listed             completely" in shown


def test_an_object_that_something_else_wrote_is_seen_after_a_refresh(
    made: Commands, store: Path
) -> None:
    made.run("cache", "refresh", "store")
    (store / "web" / "new").write_bytes(b"1")

    before = made.run("ls", "store:repository/web").stdout
    made.run("cache", "refresh", "store:repository/web")
    after = made.run("ls", "store:repository/web").stdout

    assert "new" not in before
    assert "new" in after


def test_an_empty_spool_is_an_empty_list(made: Commands) -> None:
    assert made.json("spool", "list", "store") == []
    assert made.run("spool", "list", "store").stdout == ""
    assert made.json("spool", "wait", "store") == []


def test_nothing_mounted_is_said(made: Commands) -> None:
    assert made.json("status", "store") == []
    assert made.run("status").stdout == "nothing is mounted\n"


def test_what_is_installed_is_told(made: Commands) -> None:
    found = made.json("plugins")

    assert isinstance(found, list)
    names = {(one["kind"], one["name"]) for one in found}
    assert {
        ("format", "tar"),
        ("format", "restic"),
        ("provider", "s3"),
        ("profile", "aws"),
    } <= names


def test_names_that_would_lead_out_of_the_destination_are_not_restored(
    made: Commands, store: Path, tmp_path: Path
) -> None:
    with tarfile.open(store / "evil.tar", "w") as archive:
        for name in ("../outside", "/etc/outside", "good"):
            archive.addfile(tarfile.TarInfo(name))

    made.run("cp", "-r", "store:backups/tar/evil/", str(tmp_path / "deep" / "new"), check=False)

    assert not (tmp_path / "outside").exists()
    assert not (tmp_path / "deep" / "outside").exists()
    assert not Path("/etc/outside").exists()
    assert (tmp_path / "deep" / "new" / "good").exists()


def test_a_store_that_vanished_is_named(made: Commands, store: Path) -> None:
    shutil.rmtree(store)

    result = made.run("ls", "store:repository", check=False)

    assert str(store) in result.stderr
    assert json.dumps(result.stderr).count("\\n") == 1
    assert result.returncode == 1


def test_a_misspelt_format_among_the_secrets_is_refused(made: Commands, tmp_path: Path) -> None:
    config = tmp_path / "backgate.toml"
    config.write_text(config.read_text() + 'secrets = { restik = "env:RESTIC_PASSWORD" }\n')

    refused = made.run("ls", "store:backups", check=False)

    assert refused.returncode == 2
    assert refused.stderr == (
        f"backgate: {config}: [repository.store]: secrets: no format 'restik' is installed — "
        "did you mean 'restic'? known are image, restic, tar, xen-orchestra\n"
    )


def test_what_is_not_there_is_said_with_its_path(made: Commands, tmp_path: Path) -> None:
    absent = made.run("cp", "store:backups/tar/web/nope", str(tmp_path), check=False)
    below = made.run("cat", "store:backups/tar/nope/monday/small", check=False)
    named = made.run("ls", "store:repository/nope", check=False)

    assert (absent.returncode, below.returncode, named.returncode) == (1, 1, 1)
    assert absent.stderr == "backgate: backups/tar/web/nope: No such file or directory\n"
    assert below.stderr == "backgate: backups/tar/nope/monday/small: No such file or directory\n"
    assert named.stderr == "backgate: repository/nope: No such file or directory\n"


def test_a_local_path_that_cannot_be_written_is_named_whole(made: Commands, tmp_path: Path) -> None:
    target = tmp_path / "target"
    (target / "small").mkdir(parents=True)

    clash = made.run("cp", "store:backups/tar/web/monday/small", str(target), check=False)

    assert clash.returncode == 1
    assert clash.stderr.startswith(f"backgate: {target}/small: ")
