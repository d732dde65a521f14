"""A provider of another distribution, installed as anybody would: found, named, used, and tested.

It is built and installed without network, into an environment of its own that borrows the packages
of this one.
"""

import json
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "backgate-sqlite"


@dataclass(frozen=True)
class Environment:
    """A throw-away Python environment."""

    python: Path
    home: Path

    def install(self, project: Path) -> None:
        self.pip("install", "--no-deps", "--no-build-isolation", "--no-index", str(project))

    def pip(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "pip", "--python", str(self.python), "--quiet"]
        done = self.run(*command, "--disable-pip-version-check", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr

    def backgate(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        code = "from backgate.cli.main import main; main()"
        return self.run(str(self.python), "-c", code, *arguments)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        variables = {"HOME": str(self.home), "PATH": "/usr/bin:/bin", "PIP_NO_INPUT": "1"}
        return subprocess.run(
            command, env=variables, cwd=self.home, capture_output=True, text=True, timeout=100
        )


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    found = Environment(folder / "bin" / "python", folder)
    scheme = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", "venv", vars=scheme))
    borrowed = "".join(
        f"import site; site.addsitedir({each!r})\n" for each in site.getsitepackages()
    )
    (packages / "borrowed.pth").write_text(borrowed)
    shutil.copytree(EXAMPLE, folder / "project")  # a build writes beside its source
    found.install(folder / "project")
    return found


def test_its_scheme_is_listed_with_distribution_and_version(environment: Environment) -> None:
    done = environment.backgate("plugins", "--json")

    assert done.returncode == 0, done.stderr
    found = {(one["kind"], one["name"]): one["from"] for one in json.loads(done.stdout)}
    assert found["provider", "sqlite"] == "backgate-sqlite 1.0"
    assert found["provider", "s3"] == "backgate"


def test_its_urls_are_stores(environment: Environment, tmp_path: Path) -> None:
    store = f"sqlite://{tmp_path}/store.db"

    for arguments in (("doctor", store), ("ls", store), ("find", f"{store}:repository")):
        done = environment.backgate(*arguments)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    assert (tmp_path / "store.db").exists()


def test_it_passes_the_suite_that_ships_with_backgate(environment: Environment) -> None:
    suite = environment.home / "project" / "tests"
    options = ("-q", "--import-mode=importlib", "-p", "no:cacheprovider", "-W", "error")
    done = environment.run(str(environment.python), "-m", "pytest", *options, str(suite))

    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


def test_the_suite_explains_what_is_wrong_with_a_provider(
    environment: Environment, tmp_path: Path
) -> None:
    (tmp_path / "test_wrong.py").write_text(
        "import pytest\n"
        "from backgate.gateway.providers.memory import Memory\n"
        "from backgate.gateway.testing.provider_contract import ProviderContract\n"
        "class Forgetful(Memory):\n"
        "    def get(self, key, start, stop, etag=None):\n"
        "        return super().get(key, start, stop, etag)[:3]\n"
        "class TestForgetful(ProviderContract):\n"
        "    @pytest.fixture\n"
        "    def provider(self):\n"
        "        return Forgetful()\n"
    )

    done = environment.run(
        *(str(environment.python), "-m", "pytest", "-q", "-p", "no:cacheprovider"),
        *("-k", "reads_back", str(tmp_path)),
    )

    assert done.returncode == 1
    assert "assert b'hel' == b'hello'" in done.stdout


def test_a_profile_of_another_package_is_known_by_its_name(environment: Environment) -> None:
    (packages,) = environment.home.glob("lib/*/site-packages")
    (packages / "attic.toml").write_text(
        'title = "the attic"\nendpoint = "https://attic.example"\n'
    )
    (packages / "attic.py").write_text(
        "from pathlib import Path\nPROFILE = Path(__file__).with_suffix('.toml')\n"
    )
    info = packages / "attic-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: attic\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text("[backgate.profiles]\nattic = attic:PROFILE\n")

    listed = environment.backgate("providers", "attic", "--json")
    shutil.rmtree(info)

    assert listed.returncode == 0, listed.stderr
    told = json.loads(listed.stdout)
    assert (told["title"], told["from"]) == ("the attic", "attic 2.0")


def test_another_that_claims_its_name_is_refused(environment: Environment) -> None:
    (rival,) = environment.home.glob("lib/*/site-packages/backgate_sqlite-1.0.dist-info")
    rival = shutil.copytree(rival, rival.with_name("rival-1.0.dist-info"))
    for name, old, new in (
        ("METADATA", "Name: backgate-sqlite", "Name: rival"),
        ("entry_points.txt", "backgate_sqlite:", "rival:"),
    ):
        (rival / name).write_text((rival / name).read_text().replace(old, new))

    done = environment.backgate("plugins")
    shutil.rmtree(rival)

    assert done.returncode == 2
    assert "two plug-ins are called 'sqlite'" in done.stderr
    assert "rival 1.0" in done.stderr
    assert "backgate-sqlite 1.0" in done.stderr
    assert environment.backgate("plugins").returncode == 0
